"""Measures grades a second through GradingService: whole numbers, and other mathematics with and without math-verify.

`python studies/grading_speed/bench.py [NUM]` prints a table. Each line is measured with the driver waiting and with the
driver at work in Python all the while, as an engine in the same process may be; on a machine that does other work too
the CPU time of a grade, the driver's and the workers', says more than the rate. "All new" has no pair of answer and
target twice; "all read" has of these only what takes math-verify; "as in a search" has 8 responses to a prompt with 3
different answers among them.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
import time
from contextlib import closing
from pathlib import Path

from autolambda.graders.math import Math
from autolambda.graders.service import GradingService
from autolambda.responses import Grade, Response

TEXT = "We collect the terms and simplify, as was to be shown. " * 30  # about 1,700 characters before the box
# Answer and target by a number, in shares like those of MATH-500's answers that are not whole numbers.
PAIRS = (
    [(r"\frac{%d}{7}", "%d/7"), (r"\dfrac{%d}{11}", r"\frac{%d}{11}"), (r"-\frac{%d}{3}", r"\frac{-%d}{3}")] * 2
    + [("%d.50", "%d.5"), (r"%d\%%", "%d"), (r"%d\text{ cm}", "%d"), (r"%d^\circ", "%d")]
    + [
        (r"%d\sqrt{2}", r"%d \sqrt 2"),
        (r"\sqrt{%d}", r"\sqrt{ %d }"),
        (r"\frac{\sqrt{%d}}{2}", r"\frac{1}{2}\sqrt{%d}"),
    ]
    + [(r"%d\pi", r"\pi \cdot %d"), (r"\frac{%d\pi}{4}", r"\frac{%d}{4}\pi")]
    + [("%dx + 1", "1 + %dx"), ("x^2 + %d", "%d + x^2")]
    + [(r"(%d, 3)", r"\left(%d, 3\right)"), (r"[0, %d)", r"[0,%d)"), (r"\{1, %d\}", r"\{%d, 1\}")]
)


def whole_numbers(num: int) -> list[tuple[str, str]]:
    return [(f"{number:03d}", str(number)) for number in range(num)]


def all_new(num: int) -> list[tuple[str, str]]:
    """Every fourth is wrong."""
    kinds = zip(range(2, num + 2), itertools.cycle(PAIRS), strict=False)
    return [(answer % number, target % (number + (number % 4 == 0))) for number, (answer, target) in kinds]


def all_read(num: int) -> list[tuple[str, str]]:
    read = (pair for pair in all_new(20 * num) if Math().quick(f"\\boxed{{{pair[0]}}}", pair[1]) is None)
    return list(itertools.islice(read, num))


def as_in_a_search(num: int) -> list[tuple[str, str]]:
    pairs = all_new(num // 8 * 3)
    return [
        (pairs[3 * prompt + (0, 0, 0, 1, 0, 2, 0, 1)[repeat]][0], pairs[3 * prompt][1])
        for prompt in range(num // 8)
        for repeat in range(8)
    ]


def measure(pairs: list[tuple[str, str]], *, busy: bool) -> tuple[float, float]:
    """Grades a second from the first response sent to the last score, and CPU milliseconds of a grade."""
    responses = [(Response(f"{TEXT}\\boxed{{{answer}}}.", 500, "stop"), target) for answer, target in pairs]
    with closing(GradingService(seconds=30)) as service:  # fresh workers, with nothing kept from before
        service.start(["math"])
        warm = [(Response(rf"\boxed{{x + {number}}}", 1, "stop"), f"{number + 1} + x") for number in range(40)]
        [service.score(*one, grader="math", think_end="</think>").result() for one in warm]
        start, cpu = time.perf_counter(), cpu_seconds()
        futures = [service.score(*one, grader="math", think_end="</think>") for one in responses]
        while busy and not all(future.done() for future in futures):
            sum(range(1000))
        grades = [future.result().grade for future in futures]
        seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    assert not {Grade.UNPARSED, Grade.TRUNCATED} & set(grades)
    return len(grades) / seconds, 1000 * cpu / len(grades)


def cpu_seconds() -> float:
    """CPU time of this process and its children so far, from /proc: that of running children is told nowhere else."""
    pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


def main(num: int) -> None:
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f}, {num} grades a line, {10 * num} of whole numbers")
    print(f"{'':20}{'driver waits':>16}{'CPU':>12}{'driver works':>16}")
    for make, many in ((whole_numbers, 10 * num), (all_new, num), (all_read, num), (as_in_a_search, num)):
        waits, cpu = measure(make(many), busy=False)
        works, _ = measure(make(many), busy=True)
        print(f"{make.__name__.replace('_', ' '):20}{waits:>14,.0f}/s{cpu:>9.2f} ms{works:>14,.0f}/s", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
