"""The grading service: what is told at once, what comes from a process, and processes that hang, die or are killed."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import CancelledError
from contextlib import closing

import pytest

from autolambda.errors import GraderError, TaskError
from autolambda.graders.grading import Score, find_grader
from autolambda.graders.service import LONGEST, GradingService
from autolambda.responses import Grade, Response

SOURCE = """
import os, signal, sys, time
class Odd(Exception):
    def __init__(self, a, b): super().__init__(a)  # cannot be unpickled
def first(text, target): return text[:1], text[:1] == target
def size(text, target): return str(len(text)), len(text) == int(target)
def raises(text, target): raise ValueError("two\\nlines")
def odd(text, target): raise Odd(1, 2)
def hangs(text, target): time.sleep(1e6)
def holds(text, target): return len(str(9**9**9)) == 1
def holds_if_told(text, target): return holds(text, target) if text == "hold" else True
def alarms(text, target):
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.alarm(0)
    time.sleep(1e6)
def leaves(text, target): sys.exit(3)
def dies(text, target): os._exit(3)
def nonsense(text, target): return 7
def big(text, target): return len(bytearray(3 << 30)) == 0
def recursive(text, target): return recursive(text, target)
def whose(text, target): return str(os.getpid()), True
def here(text, target): return os.getcwd(), True
def slow(text, target):
    time.sleep(0.3)
    return True
"""
SECONDS = 3  # for one text; a busy machine takes more than 1 to parse the first
ALIVE = "autolambda_marks:first"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "autolambda_marks.py").write_text(SOURCE)
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    yield folder
    patch.undo()
    sys.path[:] = [path for path in sys.path if path != str(folder)]
    find_grader.cache_clear()


@pytest.fixture(scope="module")
def service(folder):
    with closing(GradingService(num_workers=1, seconds=SECONDS, num_bytes=1 << 30)) as service:
        yield service


def send(service, text, target, grader="math", finish="stop"):
    return service.score(Response(text, 5, finish), target, grader=grader, think_end="</think>")


def score(service, text, target, grader="math", finish="stop"):
    return send(service, text, target, grader, finish).result(timeout=60)


@pytest.mark.parametrize(
    ("text", "target", "grader", "finish", "expected"),
    [
        ("so 3</think>7", "7", "number", "stop", Score(Grade.CORRECT, "7")),
        (r"\boxed{7}</think>\boxed{8}", "7", "math", "stop", Score(Grade.WRONG, "8")),
        (r"\boxed{7}</think>it is 7", "7", "math", "stop", Score(Grade.UNPARSED, None)),
        ("", "7", "math", "stop", Score(Grade.UNPARSED, None)),
        ("ANSWER: C</think>", "C", "choice", "stop", Score(Grade.UNPARSED, None)),
        (" ", "a", "regex", "stop", Score(Grade.UNPARSED, None)),
        (r"\boxed{7}", "7", "math", "length", Score(Grade.TRUNCATED, "7")),
        (r"\boxed{\sqrt{49}}", "7", "math", "length", Score(Grade.TRUNCATED, None)),
        ("7", "7", ALIVE, "length", Score(Grade.TRUNCATED, None)),
    ],
)
def test_what_is_quick_needs_no_process(folder, text, target, grader, finish, expected):
    with closing(GradingService()) as service:
        future = send(service, text, target, grader, finish)
        assert future.done()
        assert future.result() == expected
        assert service._pool is None


@pytest.mark.parametrize(
    ("text", "target", "grader", "expected"),
    [
        (r"\boxed{1}</think>\boxed{\sqrt{49}}", "7", "math", Score(Grade.CORRECT, r"\sqrt{49}")),
        (r"\boxed{\sqrt{50}}", "7", "math", Score(Grade.WRONG, r"\sqrt{50}")),
        (r"\boxed{9^{9^{9^{9}}}}", "7", "math", Score(Grade.UNPARSED, None)),
        ("a" * 40 + "!", "(a|aa)+$", "regex", Score(Grade.UNPARSED, None)),
        ("it is 42 km", r"\d+", "regex", Score(Grade.CORRECT, "42")),
        ("7", "7", ALIVE, Score(Grade.CORRECT, "7")),
        ("x" * (LONGEST + 5), str(LONGEST), "autolambda_marks:size", Score(Grade.CORRECT, str(LONGEST))),
        ("\ud800\0", "\ud800", ALIVE, Score(Grade.CORRECT, "\ud800")),
    ],
)
def test_what_a_process_reads(service, text, target, grader, expected):
    assert score(service, text, target, grader) == expected


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("raises", "grader 'autolambda_marks:raises': ValueError: two lines"),
        ("odd", "grader 'autolambda_marks:odd': Odd: 1"),
        ("hangs", f"it took longer than {SECONDS} s"),
        ("holds", f"it took longer than {SECONDS} s"),
        ("alarms", f"it took longer than {SECONDS} s"),
        ("leaves", "SystemExit: 3"),
        ("dies", r"its process died \(exit code 3\)"),
        ("nonsense", "TypeError: it returned 7, not a bool"),
        ("big", "MemoryError"),
        ("recursive", "RecursionError"),
    ],
)
def test_a_grader_of_ones_own_that_fails_is_an_error_and_the_next_text_is_read(service, function, message):
    failing = send(service, "7", "7", f"autolambda_marks:{function}")
    following = [send(service, text, "7", ALIVE) for text in "787"]
    with pytest.raises(GraderError, match=message) as caught:
        failing.result(timeout=60)
    assert "\n" not in str(caught.value)
    assert [future.result(timeout=60).grade for future in following] == [Grade.CORRECT, Grade.WRONG, Grade.CORRECT]


@pytest.mark.parametrize("grader", ["autolambda_marks:absent", "no_module_of_that_name:f", "mth"])
def test_a_grader_that_is_not_there_is_refused_at_once(folder, grader):
    with closing(GradingService()) as service, pytest.raises(TaskError):
        service.start([grader])


def test_a_grader_that_only_the_process_cannot_load_is_refused(folder):
    (folder / "autolambda_vanishes.py").write_text(SOURCE)
    find_grader("autolambda_vanishes:first")
    (folder / "autolambda_vanishes.py").write_text("raise OSError('gone')")
    with closing(GradingService(num_workers=1)) as service, pytest.raises(TaskError, match="OSError: gone"):
        score(service, "7", "7", "autolambda_vanishes:first")


def test_a_script_is_run_from_the_drivers_folder(service, folder):
    assert score(service, "7", "7", "autolambda_marks:here").answer == str(folder)


def test_a_killed_process_costs_no_text(service):
    slow = [send(service, "7", "7", "autolambda_marks:slow") for _ in range(4)]
    first = int(score(service, "7", "7", "autolambda_marks:whose").answer)
    waiting = [send(service, "7", "7", "autolambda_marks:slow") for _ in range(2)]
    time.sleep(0.1)
    os.kill(first, signal.SIGKILL)  # at work
    assert {future.result(timeout=60).grade for future in slow + waiting} == {Grade.CORRECT}
    second = int(score(service, "7", "7", "autolambda_marks:whose").answer)
    os.kill(second, signal.SIGKILL)  # idle
    third = int(score(service, "7", "7", "autolambda_marks:whose").answer)
    assert len({first, second, third}) == 3


def test_an_interrupt_is_the_drivers(service):
    pid = int(score(service, "7", "7", "autolambda_marks:whose").answer)
    os.kill(pid, signal.SIGINT)
    assert int(score(service, "7", "7", "autolambda_marks:whose").answer) == pid


def test_start_returns_at_once_and_starts_nothing_for_quick_graders(folder):
    with closing(GradingService(num_workers=1)) as service:
        service.start(["number", "choice"])
        assert service._pool is None
        start = time.perf_counter()
        service.start(["number", "math"])
        assert time.perf_counter() - start < 0.5
        assert score(service, r"\boxed{\sqrt{49}}", "7").grade is Grade.CORRECT


def test_closing_cancels_what_is_owed_and_is_quick(folder):
    with closing(GradingService(num_workers=1, seconds=60)) as service:
        pid = int(score(service, "7", "7", "autolambda_marks:whose").answer)
        owed = [send(service, "7", "7", "autolambda_marks:hangs") for _ in range(500)]
        start = time.perf_counter()
    assert time.perf_counter() - start < 5
    assert all(future.cancelled() for future in owed)
    with pytest.raises(CancelledError):
        owed[0].result(timeout=0)
    assert not is_alive(pid)


def test_answers_that_are_alike_are_read_once(service, monkeypatch):
    sent = []
    submit = service._pool.submit
    monkeypatch.setattr(service._pool, "submit", lambda *job: sent.append(job) or submit(*job))
    futures = [send(service, f"attempt {i}: \\boxed{{\\sqrt{{{i % 2 + 8}}}}}", r"2\sqrt{2}") for i in range(10)]
    assert [future.result(timeout=60).grade for future in futures] == [Grade.CORRECT, Grade.WRONG] * 5
    assert sent == [("math", rf"\boxed{{\sqrt{{{number}}}}}", r"2\sqrt{2}") for number in (8, 9)]
    assert score(service, r"\boxed{\sqrt{8}}", r"3\sqrt{2}").grade is Grade.WRONG  # another target
    [score(service, "7", "7", ALIVE) for _ in range(2)]
    assert len(sent) == 5  # a whole text is read each time


def test_the_cache_is_bounded(service, monkeypatch):
    monkeypatch.setattr("autolambda.graders.service._MAX_CACHED", 2)
    service._cache.clear()
    for number in (11, 12, 13):
        score(service, rf"\boxed{{\sqrt{{{number}}}}}", "7")
    assert list(service._cache) == [("math", rf"\boxed{{\sqrt{{{number}}}}}", "7") for number in (12, 13)]


def test_a_mark_that_nobody_wants_any_more(service):
    owed = [send(service, "7", "7", "autolambda_marks:slow") for _ in range(3)]
    assert owed[2].cancel()
    assert owed[1].result(timeout=60).grade is Grade.CORRECT


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc")
@pytest.mark.parametrize("text", ["", "hold"])
def test_processes_end_with_a_driver_that_is_killed(folder, text):
    script = folder / "driver.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import time
            from autolambda.graders.service import GradingService
            from autolambda.responses import Response
            def send(service, text, function):
                response = Response(text, 1, "stop")
                return service.score(response, "7", grader="autolambda_marks:" + function, think_end="<")
            if __name__ == "__main__":
                service = GradingService(num_workers=1, seconds=3)
                print(send(service, "7", "whose").result().answer, flush=True)
                send(service, {text!r}, "holds_if_told")
                time.sleep(0.5)
                print("now", flush=True)
                time.sleep(60)
            """
        )
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as driver:
        pid = int(driver.stdout.readline())
        assert driver.stdout.readline() == "now\n"
        assert is_alive(pid)
        driver.kill()
    until = time.monotonic() + 15
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_alive(pid)


def test_a_script_without_the_guard_is_told(folder):
    script = folder / "unguarded.py"
    script.write_text(
        textwrap.dedent(
            """
            import contextlib
            from autolambda.graders.service import GradingService
            from autolambda.responses import Response
            with contextlib.closing(GradingService(num_workers=1)) as service:
                future = service.score(Response("7", 1, "stop"), "7", grader="autolambda_marks:first", think_end="<")
                print(future.result())
            """
        )
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert "TaskError: the grading process does not start" in done.stderr.splitlines()[-1]
    assert "if __name__ == '__main__':" in done.stderr.splitlines()[-1]
