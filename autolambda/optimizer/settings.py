"""The settings of a search, as its decisions take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autolambda.optimizer.space import Space

SamplerName = Literal["surrogate", "gp", "tpe"]


@dataclass(frozen=True)
class SearchSettings:
    """What a search may spend, where it looks and whom it confirms.

    ``trials`` includes at most ``ladder`` trials of the ladder. The rest is shared evenly among ``spaces``. ``knots``
    are the depth knots of a schedule. ``max_tokens_generated`` is for search and confirmation together; ``None`` is
    what both parents cost at full size. The search stops below an expected gain of ``min_gain`` (accuracy, share of
    1). Up to ``finalists`` schedules are confirmed. One may lose ``margin`` (share of 1) against a dearer one.
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
