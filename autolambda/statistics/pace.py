"""How fast an engine generates: the seconds of its calls, and how long each waits for its last responses.

An engine decodes in steps: each gives every running response one token. A step takes some time however few responses
run, and a little more for each. Towards the end of a call few run, and most of the time is that fixed part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

LEAST_WINDOWS = 5  # of a call, from which its pace is fitted
LEAST_RUNNING = 8  # responses at once, in a call from which a pace is fitted


@dataclass(frozen=True)
class Window:
    """A short part of a call: its ``seconds``, the ``num_tokens`` that it generated, and the responses that ran."""

    seconds: float
    num_tokens: int
    num_running: float


@dataclass(frozen=True)
class Pace:
    """The speed of an engine: seconds of a decoding ``step``, and seconds of each ``row`` (response) in it.

    ``longest`` is the longest response of a call over the mean of its responses.
    """

    step: float
    row: float
    longest: float

    def seconds(self, num_tokens: float, *, mean_tokens: float, num_calls: float) -> float:
        """Returns the seconds of some calls, whose responses have ``mean_tokens`` and ``num_tokens`` in all."""
        return self.row * num_tokens + self.step * self.longest * mean_tokens * num_calls

    @property
    def enough(self) -> float:
        """The responses from which on a call spends at most half of its time on the fixed part of its steps."""
        if self.row:
            return self.step * self.longest / self.row
        return math.inf if self.step else 0.0


@dataclass(frozen=True)
class CallTime:
    """The time of one call of an engine.

    ``idle_seconds`` are those at its end in which fewer than half as many responses ran as at its height.
    """

    num_responses: int
    num_tokens: int
    seconds: float
    idle_seconds: float
    pace: Pace | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> CallTime:
        pace = plain["pace"]
        return cls(**{**plain, "pace": Pace(**pace) if pace else None})


def time_call(lengths: Sequence[int], windows: Sequence[Window]) -> CallTime:
    """Returns the time of a call from the tokens of its responses and its windows, in order."""
    height = max((window.num_running for window in windows), default=0.0)
    tail = 0.0
    for window in reversed(windows):
        if window.num_running >= height / 2:
            break
        tail += window.seconds
    seconds = sum(window.seconds for window in windows)
    return CallTime(len(lengths), sum(lengths), seconds, tail, _pace(lengths, windows, height))


def _pace(lengths: Sequence[int], windows: Sequence[Window], height: float) -> Pace | None:
    """Fits ``seconds = step * steps + row * tokens`` over the windows; ``None`` if they are too few or all alike.

    The first window is left out, because the prompts are prefilled in it.
    """
    used = [window for window in windows[1:] if window.num_running and window.num_tokens]
    if len(used) < LEAST_WINDOWS or height < LEAST_RUNNING or not sum(lengths):
        return None
    tokens = np.array([window.num_tokens for window in used], dtype=float)
    running = np.array([window.num_running for window in used])
    if running.max() < 2 * running.min():
        return None
    from scipy.optimize import nnls  # type: ignore[import-untyped]  # scipy ships no annotations

    (step, row), _ = nnls(np.stack([tokens / running, tokens], axis=1), np.array([w.seconds for w in used]))
    return Pace(float(step), float(row), max(lengths) * len(lengths) / sum(lengths))
