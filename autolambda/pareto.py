"""The front of accuracy (up) against mean tokens (down), its hypervolume, and the verdict for a budget.

A point dominates another when it is at least as good in both and better in one. The verdict is a fixed-sequence test
(Maurer, Hothorn & Lehmacher 1995): hypotheses ``mean tokens > budget`` are tested one by one at 5 % in an order stated
before the data, up to the first that stands; the chance of any false rejection stays at 5 % without a correction. With
guards each hypothesis is the union ``too many tokens, or a guard broken``, which falls where each part does at 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from autolambda.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Score:
    """The two objectives: accuracy (share of 1) and mean generated tokens per response. Both finite."""

    accuracy: float
    mean_tokens: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.accuracy) and math.isfinite(self.mean_tokens)):
            raise InputError(f"a score needs two finite numbers, seen {self.accuracy!r} and {self.mean_tokens!r}")


def front(points: Iterable[T], *, key: Callable[[T], Score]) -> list[T]:
    """The non-dominated points, mean tokens ascending; of points with equal scores the first is kept."""
    scored = [(key(point), point) for point in points]
    scored.sort(key=lambda pair: (pair[0].mean_tokens, -pair[0].accuracy))
    kept: list[T] = []
    highest = -math.inf
    for score, point in scored:
        if score.accuracy > highest:
            highest = score.accuracy
            kept.append(point)
    return kept


def hypervolume(scores: Iterable[Score], *, reference_tokens: float, reference_accuracy: float = 0.0) -> float:
    """The area dominated above ``reference_accuracy`` and below ``reference_tokens``, in tokens times accuracy.

    Divide by ``reference_tokens`` for a share. Points outside the reference add nothing.
    """
    area, highest = 0.0, reference_accuracy
    for score in front(scores, key=lambda score: score):
        if score.mean_tokens < reference_tokens and score.accuracy > highest:
            area += (score.accuracy - highest) * (reference_tokens - score.mean_tokens)
            highest = score.accuracy
    return area


def best_within(points: Iterable[T], *, budget: float, key: Callable[[T], Score]) -> T | None:
    """The most accurate point with mean tokens <= ``budget``; ties go to fewer tokens, then to the first."""
    return max(
        (point for point in front(points, key=key) if key(point).mean_tokens <= budget),
        key=lambda point: key(point).accuracy,
        default=None,
    )


class Verdict(StrEnum):
    """What the confirmation says about a budget."""

    FEASIBLE = "feasible"
    UNCERTAIN = "uncertain"
    INFEASIBLE = "infeasible"


@dataclass(frozen=True)
class Finalist:
    """A confirmed schedule: its accuracy, mean tokens, and the two one-sided 95 % bounds of the latter.

    ``keeps`` says that it is shown to keep every guard, ``breaks`` that it is shown to break one; neither may be.
    """

    accuracy: float
    mean_tokens: float
    tokens_lower: float
    tokens_upper: float
    keeps: bool = True
    breaks: bool = False


@dataclass(frozen=True)
class Decision:
    """Indices into the finalists.

    ``pick`` is the answer and ``best`` the most accurate that passed: both ``None`` unless feasible. ``nearest`` has
    the smallest mean tokens, of those not shown to break a guard if there are any. ``passed`` are those shown to be
    within the budget and to keep every guard.
    """

    verdict: Verdict
    pick: int | None
    best: int | None
    nearest: int
    passed: tuple[int, ...]


def confirmation_order(predicted_tokens: Sequence[float]) -> tuple[int, ...]:
    """The order in which finalists are tested: predicted mean tokens ascending, ties as given.

    To be called, and its result recorded, before the first confirmation response is seen.
    """
    if any(math.isnan(tokens) for tokens in predicted_tokens):
        raise InputError("a finalist without a predicted number of tokens cannot be put in order")
    return tuple(sorted(range(len(predicted_tokens)), key=lambda index: predicted_tokens[index]))


def decide(
    finalists: Sequence[Finalist], *, budget: float, difference_lower: Callable[[int, int], float], margin: float = 0.01
) -> Decision:
    """The verdict over ``finalists``, given in their testing order, and the pick.

    ``difference_lower(i, j)`` is the one-sided 95 % lower bound of the paired difference accuracy i minus accuracy j.
    The most accurate of those that passed is picked, unless a cheaper one is shown to lose less than ``margin``: then
    the cheapest such. A false ``infeasible`` needs a bound of a truly feasible finalist to fail: at most 5 % for each
    constraint, tokens or a guard, at the edge of which it lies. Raises ``InputError`` without finalists.
    """
    if not finalists:
        raise InputError("no finalist to decide on: confirm at least one schedule")
    tokens = [finalist.mean_tokens for finalist in finalists]
    nearest = min(range(len(finalists)), key=lambda i: (finalists[i].breaks, tokens[i]))
    passes = [finalist.tokens_upper <= budget and finalist.keeps for finalist in finalists]
    num_passed = next((i for i, passed in enumerate(passes) if not passed), len(finalists))
    passed = tuple(range(num_passed))
    if not passed:
        fails = all(finalist.tokens_lower > budget or finalist.breaks for finalist in finalists)
        return Decision(Verdict.INFEASIBLE if fails else Verdict.UNCERTAIN, None, None, nearest, passed)
    best = max(passed, key=lambda i: (finalists[i].accuracy, -tokens[i]))
    cheaper = [i for i in passed if tokens[i] < tokens[best] and difference_lower(i, best) > -margin]
    return Decision(Verdict.FEASIBLE, min([*cheaper, best], key=tokens.__getitem__), best, nearest, passed)
