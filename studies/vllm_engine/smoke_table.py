"""Runs the steps of a smoke test one after the other, and tells what was expected and what was found.

A step that fails or takes too long does not stop the others. The steps of ``LEFT_OUT`` are left out, the first one
first, when the time is too short for all.
"""

from __future__ import annotations

import json
import operator
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

LEFT_OUT = ("16", "10", "12", "9", "11b")
SLACK = 20.0  # seconds that a step may take beyond three times its estimate
CLOSING = 10.0  # seconds for closing the engine of a step that failed
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "<=": operator.le,
    ">=": operator.ge,
    "has": operator.contains,
}

Device = Literal["cpu", "cuda"]
Status = Literal["as expected", "NOT AS EXPECTED", "FAILED", "TIMED OUT", "left out"]


class TimedOut(BaseException):
    """A step's time is over. Not an ``Exception``, so that no engine takes it for one of its own errors."""


@dataclass(frozen=True)
class Expect:
    """What a value that a step has found should be; ``on`` one device, or on both."""

    key: str
    operator: Literal["==", "<=", ">=", "has"]
    value: Any
    on: Device | None = None

    def holds(self, found: Mapping[str, Any]) -> bool:
        return self.key in found and _OPERATORS[self.operator](found[self.key], self.value)

    def __str__(self) -> str:
        return f"{self.key} {self.operator} {_short(self.value)}"


@dataclass(frozen=True)
class Step:
    """One step: ``run`` takes the bench and returns what it has found.

    ``seconds`` holds its estimated time by device; it does not run on a device that is missing there.
    """

    number: str
    title: str
    run: Callable[[Any], Mapping[str, Any]]
    seconds: Mapping[Device, float]
    expects: tuple[Expect, ...] = ()

    def expected_on(self, device: Device) -> list[Expect]:
        return [each for each in self.expects if each.on in (None, device)]


@dataclass(frozen=True)
class Outcome:
    """What became of a step: what it found, or why it did not end."""

    step: Step
    status: Status
    seconds: float = 0.0
    found: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""

    @property
    def is_good(self) -> bool:
        return self.status in ("as expected", "left out")


def affordable(steps: Sequence[Step], device: Device, seconds_left: float) -> list[Step]:
    """Returns the steps without those that must be left out for the others to fit into the time."""
    kept = list(steps)
    for number in LEFT_OUT:
        if sum(step.seconds[device] for step in kept) <= seconds_left:
            break
        kept = [step for step in kept if step.number != number]
    return kept


def run_all(
    steps: Sequence[Step], bench: Any, *, device: Device, seconds: float, on_outcome: Callable[[Outcome], None]
) -> list[Outcome]:
    """Runs the steps of the device within ``seconds``, in order, and calls ``on_outcome`` after each."""
    end = time.monotonic() + seconds
    steps, outcomes = [step for step in steps if device in step.seconds], []
    for number, step in enumerate(steps):
        left = end - time.monotonic()
        if step not in affordable(steps[number:], device, left) or left <= 0:
            outcome = Outcome(step, "left out", reason=f"{max(left, 0):.0f} s were left")
        else:
            outcome = _run(step, bench, device, limit=min(3 * step.seconds[device] + SLACK, left))
        if outcome.status in ("FAILED", "TIMED OUT"):
            with suppress(TimedOut), time_limit(CLOSING):
                bench.close()
        on_outcome(outcome)
        outcomes.append(outcome)
    return outcomes


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """0 if at least one step ran and each found what was expected, else 1. Steps that were left out do not count."""
    ran = any(outcome.status != "left out" for outcome in outcomes)
    return 0 if ran and all(outcome.is_good for outcome in outcomes) else 1


def table(outcomes: Sequence[Outcome], device: Device) -> str:
    """The outcomes as a table in Markdown."""
    rows = ["| # | step | expected | found | result | s |", "|---|---|---|---|---|---|"]
    for outcome in outcomes:
        step = outcome.step
        cells = [
            step.number,
            step.title,
            "; ".join(map(str, step.expected_on(device))),
            outcome.reason or ", ".join(f"{key} {_short(value)}" for key, value in outcome.found.items()),
            outcome.status,
            f"{outcome.seconds:.1f}",
        ]
        rows.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(rows)


def as_json(outcomes: Sequence[Outcome], device: Device) -> str:
    """The outcomes as JSON."""
    plain = [
        {
            "number": outcome.step.number,
            "title": outcome.step.title,
            "expected": [str(each) for each in outcome.step.expected_on(device)],
            "found": dict(outcome.found),
            "status": outcome.status,
            "reason": outcome.reason,
            "seconds": round(outcome.seconds, 1),
        }
        for outcome in outcomes
    ]
    return json.dumps({"device": device, "steps": plain}, indent=1)


def _run(step: Step, bench: Any, device: Device, *, limit: float) -> Outcome:
    start = time.monotonic()
    try:
        with time_limit(limit):
            found = step.run(bench)
    except TimedOut:
        return Outcome(step, "TIMED OUT", time.monotonic() - start, reason=f"no end after {limit:.0f} s")
    except Exception as error:  # a step may fail in any way, and the next ones still run
        words = " ".join(f"{type(error).__name__}: {error}".split())
        return Outcome(step, "FAILED", time.monotonic() - start, reason=words[:400])
    is_good = all(each.holds(found) for each in step.expected_on(device))
    return Outcome(step, "as expected" if is_good else "NOT AS EXPECTED", time.monotonic() - start, found)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises ``TimedOut`` in the block when its time is over."""

    def stop(*_: object) -> None:
        raise TimedOut

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return " ".join(str(value).split())[:160]
