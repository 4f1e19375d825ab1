"""The settings of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autolambda.optimizer.space import Space

SamplerName = Literal["surrogate", "gp", "tpe"]


@dataclass(frozen=True)
class SearchSettings:
    """The trials and tokens of a search, its spaces and its finalists.

    ``trials`` includes at most ``ladder`` trials of the ladder. Every second further trial is in the first of the
    ``spaces``; the others take turns. ``knots`` are the depth knots of a schedule. ``max_tokens_generated`` is for
    search and confirmation together; ``None`` is the cost of both parents at full size. Unless a merge leads the
    parents, the search ends when one more finalist is expected to raise the accuracy by less than ``min_gain`` (share
    of 1). Up to ``finalists`` schedules are confirmed. A cheaper or a uniform pick may lose ``margin`` accuracy
    (share of 1).
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
