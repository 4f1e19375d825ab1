"""The front of accuracy (up) against mean tokens (down), and its hypervolume.

A point dominates another if it is at least as good in both and better in one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from autolambda.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Objectives:
    """Accuracy (share of 1) and mean generated tokens per response. Raises ``InputError`` unless both are finite."""

    accuracy: float
    mean_tokens: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.accuracy) and math.isfinite(self.mean_tokens)):
            raise InputError(f"a score needs two finite numbers, seen {self.accuracy!r} and {self.mean_tokens!r}")


def front(points: Iterable[T], *, key: Callable[[T], Objectives]) -> list[T]:
    """Returns the non-dominated points by ascending mean tokens. Of points with equal scores the first is kept."""
    scored = [(key(point), point) for point in points]
    scored.sort(key=lambda pair: (pair[0].mean_tokens, -pair[0].accuracy))
    kept: list[T] = []
    highest = -math.inf
    for score, point in scored:
        if score.accuracy > highest:
            highest = score.accuracy
            kept.append(point)
    return kept


def hypervolume(scores: Iterable[Objectives], *, reference_tokens: float) -> float:
    """Returns the dominated area below ``reference_tokens``, in accuracy times tokens.

    Divided by ``reference_tokens`` it lies between 0 and 1. Points outside the reference add nothing.
    """
    area = highest = 0.0
    for score in front(scores, key=lambda score: score):
        if score.mean_tokens < reference_tokens and score.accuracy > highest:
            area += (score.accuracy - highest) * (reference_tokens - score.mean_tokens)
            highest = score.accuracy
    return area
