"""What a running search tells whoever watches it: plain values, in the order in which they happen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autolambda.schedule import Schedule
from autolambda.statistics.metrics import Measured


@dataclass(frozen=True)
class Noted:
    """Something to say in a line: what is used, what was found wrong but can be lived with."""

    text: str


@dataclass(frozen=True)
class Began:
    """An evaluation begins: ``share`` of the whole search, of which ``done`` lies behind (estimates, from 0 to 1)."""

    title: str
    schedule: Schedule
    num_responses: int
    done: float
    share: float


@dataclass(frozen=True)
class Generated:
    """A batch is stored."""

    num_responses: int
    num_tokens: int


@dataclass(frozen=True)
class EvaluationEnded:
    """An evaluation has ended; without numbers where it was stopped in mid-response, for the reason ``stopped``."""

    title: str
    schedule: Schedule
    measured: Measured | None
    stopped: str | None = None


Event = Noted | Began | Generated | EvaluationEnded
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Watches nothing."""
