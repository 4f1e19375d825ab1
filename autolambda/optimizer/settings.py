"""The settings of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autolambda.optimizer.space import BEYOND, LINE, Range, Space, ranges

SamplerName = Literal["surrogate", "gp", "tpe"]


@dataclass(frozen=True)
class SearchSettings:
    """The trials and tokens of a search, its spaces and its finalists.

    ``trials`` includes at most ``ladder`` trials of the ladder. Every second further trial is in the first of the
    ``spaces``; the others take turns. ``knots`` are the depth knots of a schedule. ``max_tokens_generated`` is for
    search and confirmation together; ``None`` is the cost of both parents at full size. Unless a merge leads the
    parents, the search ends when one more finalist is expected to raise the accuracy by less than ``min_gain`` (share
    of 1). Up to ``finalists`` schedules are confirmed. A cheaper or a uniform pick may lose ``margin`` accuracy
    (share of 1). ``range`` is that of lambda after the ladder.
    """

    spaces: tuple[Space, ...]
    trials: int
    ladder: int
    knots: int
    sampler: SamplerName
    max_tokens_generated: int | None
    min_gain: float
    seed: int
    finalists: int
    margin: float
    range: Range = LINE

    @property
    def ranges(self) -> dict[str, Range]:
        """The range of each parameter of a point."""
        return ranges(self.knots, lam=self.range, spaces=self.spaces)

    @property
    def beyond(self) -> bool:
        """Whether a space reads a model beside both parents."""
        return any(space in BEYOND for space in self.spaces)
