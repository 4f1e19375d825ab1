"""What an evaluation measures, as one value."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from autolambda.engines.base import Engine, Sampling
from autolambda.engines.chat import ChatFormat
from autolambda.merging.method import Method
from autolambda.schedule import Schedule
from autolambda.study.store import Kind
from autolambda.tasks.base import Phase


@dataclass(frozen=True)
class EvaluationRequest:
    """Responses of one merge on the slices of a phase, from ``start`` to ``stop`` (exclusive) of their fixed order.

    ``kind`` and ``key`` name the evaluation in the study's database, ``title`` names it for people. ``stop`` is by
    default the end of the slices. ``num_responses`` is the size of the whole evaluation if this is a part of it.
    What still runs is aborted once the responses hold more than ``max_tokens``, each weighted as its task counts.
    ``done`` and ``share`` (0 to 1) say how much of the whole search lies behind, and how much this evaluation is.

    These replace what the study uses: ``merge`` the linear merge by ``schedule``, ``chat`` the chat format (a parent
    under its own template), ``sampling`` how tokens are drawn, and ``engine`` the engine.
    """

    title: str
    kind: Kind
    key: str
    schedule: Schedule
    phase: Phase = "search"
    start: int = 0
    stop: int | None = None
    num_responses: int | None = None
    max_tokens: float = math.inf
    done: float = 0.0
    share: float = 1.0
    merge: Method | None = None
    chat: ChatFormat | None = None
    sampling: Sampling | None = None
    engine: Callable[[], Engine] | None = None

    @property
    def method(self) -> Method:
        """The merge to set in the engine."""
        return self.merge or Method.linear(self.schedule)

    @property
    def is_fixed(self) -> bool:
        """Whether the size was decided when the evaluation began: a confirmation must not grow with what it shows."""
        return self.kind in ("confirm", "parent", "baseline")
