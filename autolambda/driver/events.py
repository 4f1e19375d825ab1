"""The events of a running search, as plain values in the order in which they happen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from autolambda.schedule import Schedule
from autolambda.statistics.metrics import Measured

if TYPE_CHECKING:  # it loads SQLAlchemy
    from autolambda.study.store import Kind


Stage = Literal["first sweep", "search", "confirmation"]


@dataclass(frozen=True)
class Noted:
    """A one-line note: a chosen setting, or a problem that does not stop the search."""

    text: str


@dataclass(frozen=True)
class Began:
    """An evaluation begins. ``done`` and its ``share`` are estimated parts of the whole search (0 to 1).

    ``stage`` is the part of the run that it belongs to. ``allowance`` is how many tokens the study may generate in all,
    if that is known. ``num_left`` finalists may have to be checked after this evaluation.
    """

    title: str
    schedule: Schedule
    num_responses: int
    done: float
    share: float
    stage: Stage | None = None
    allowance: float | None = None
    num_left: int = 0


@dataclass(frozen=True)
class Generated:
    """A batch of responses is stored."""

    num_responses: int
    num_tokens: int


@dataclass(frozen=True)
class Generating:
    """The engine goes on: its running call has finished responses and tokens that are not stored yet."""

    num_responses: int
    num_tokens: int


@dataclass(frozen=True)
class EvaluationEnded:
    """An evaluation has ended. ``measured`` is ``None`` if it was aborted; ``stopped`` is the reason of the race."""

    title: str
    kind: Kind
    schedule: Schedule
    measured: Measured | None
    stopped: str | None = None


@dataclass(frozen=True)
class Opened:
    """A run opens a study. It tries at most ``num_trials`` merges for the ``budget``.

    ``earlier`` are the trials of earlier runs, which generated ``num_tokens``.
    """

    study: str
    budget: float | None
    num_trials: int
    earlier: tuple[EvaluationEnded, ...]
    num_tokens: int


Event = Noted | Opened | Began | Generating | Generated | EvaluationEnded
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Ignores the event."""
