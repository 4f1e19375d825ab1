"""Chooses the schedules to measure next and to confirm, from joint posterior samples of the surrogate.

A target is a budget plus the relative standard error expected at confirmation. A schedule meets the target if the
confirmation's upper bound of its mean tokens would be below the budget. One posterior sample gives every schedule its
tokens and accuracy. Thompson sampling (1933; with a constraint, Eriksson & Poloczek 2021) proposes the sample's most
accurate schedule within the target. It excludes the schedules that break a guard in the sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr  # type: ignore[import-untyped]  # scipy ships no annotations

from autolambda.optimizer.space import DECIMALS, Params, Range
from autolambda.optimizer.surrogate import PosteriorSamples
from autolambda.statistics.estimates import SURE, Z_95_ONE_SIDED, Floats

WORTH = 0.001  # expected gain in accuracy for which a riskier finalist is confirmed
_REACHES = (0.02, 0.06, 0.15)  # sizes of the steps around a good schedule, as shares of each range
_NUM_STEPS = 25  # at each reach
_NUM_FAR = 150


@dataclass(frozen=True)
class Target:
    """A budget in mean tokens, and the relative standard error of a finalist's mean tokens at confirmation."""

    budget: float
    spread: float

    @property
    def highest(self) -> float:
        """The mean tokens at which the chance to be shown within the budget is one half."""
        return self.budget / (1 + Z_95_ONE_SIDED * self.spread)


def chances(draw: PosteriorSamples, target: Target) -> Floats:
    """Returns the chance of each schedule to be shown within the budget and to break no guard, float64 [schedules]."""
    within: Floats = ndtr((target.highest - draw.tokens) / (target.spread * draw.tokens))
    chance: Floats = (within * draw.allowed).mean(axis=0)
    return chance


def surest(draw: PosteriorSamples, target: Target) -> int:
    """Returns the most accurate schedule that is sure to be shown within the budget, else the most probable one."""
    chance = chances(draw, target)
    sure = chance >= SURE
    return int(np.argmax(np.where(sure, draw.accuracy.mean(axis=0), -1.0) if sure.any() else chance))


def best_expected(draw: PosteriorSamples, target: Target, *, than: int) -> int | None:
    """Returns the schedule with the largest chance times lead in accuracy over ``than``; ``None`` below ``WORTH``."""
    ahead = draw.accuracy.mean(axis=0)
    worth = chances(draw, target) * (ahead - ahead[than])
    best = int(np.argmax(worth))
    return best if worth[best] >= WORTH else None


def cheapest_equal(draw: PosteriorSamples, *, than: int, margin: float) -> int | None:
    """Returns the cheapest schedule with a fifth fewer tokens than ``than`` that loses at most half the margin.

    Its chance to break no guard is at least as high, or at least ``SURE``.
    """
    ahead, tokens, allowed = draw.accuracy.mean(axis=0), draw.tokens.mean(axis=0), draw.allowed.mean(axis=0)
    good = (ahead >= ahead[than] - margin / 2) & (tokens <= 0.8 * tokens[than])
    good &= allowed >= min(SURE, allowed[than])
    return int(np.argmin(np.where(good, tokens, np.inf))) if good.any() else None


def thompson(draw: PosteriorSamples, target: Target, *, index: int) -> int:
    """Returns the most accurate schedule within the target in one posterior sample, else the cheapest."""
    accuracy, tokens, allowed = draw.accuracy[index], draw.tokens[index], draw.allowed[index]
    within = (tokens <= target.highest) & allowed
    if within.any():
        return int(np.argmax(np.where(within, accuracy, -1.0)))
    return int(np.argmin(np.where(allowed, tokens, np.inf) if allowed.any() else tokens))


def expected_gain(draw: PosteriorSamples, target: Target) -> float:
    """Returns the expected lead in accuracy (share of 1) of the best schedule within the target over the surest one.

    If the surest one may break a guard, its accuracy counts as 0 in the samples in which it does.
    """
    best = np.where((draw.tokens <= target.highest) & draw.allowed, draw.accuracy, 0.0).max(axis=1)
    index = surest(draw, target)
    ours, allowed = draw.accuracy[:, index], draw.allowed[:, index]
    if allowed.mean() < SURE:
        ours = np.where(allowed, ours, 0.0)
    return max(0.0, float((best - ours).mean()))


def is_dominated(draw: PosteriorSamples, index: int) -> bool:
    """Returns whether some other schedule is as accurate with no more tokens, with a chance of at least ``SURE``.

    A schedule that breaks a guard does not count against one that breaks none.
    """
    others = np.arange(draw.tokens.shape[1]) != index
    cheaper = draw.tokens[:, others] <= draw.tokens[:, [index]]
    better = draw.accuracy[:, others] >= draw.accuracy[:, [index]]
    counts = draw.allowed[:, others] | ~draw.allowed[:, [index]]
    return float((cheaper & better & counts).any(axis=1).mean()) >= SURE


def candidates(
    free: Sequence[str], ranges: Mapping[str, Range], centres: Sequence[Params], rng: np.random.Generator
) -> list[dict[str, float]]:
    """Returns new points: uniform lambdas, random points of the whole space, and random steps around the ``centres``.

    Only the ``free`` parameters differ from 0 or from the centre.
    """
    rest = [name for name in ranges if name != "lam"]
    zero = dict.fromkeys(rest, 0.0)
    points = [{"lam": round(float(lam), DECIMALS), **zero} for lam in np.linspace(0, 1, 101 if free == ["lam"] else 41)]
    if free == ["lam"]:
        return points
    for _ in range(_NUM_FAR):
        far = {"lam": float(rng.uniform(0.0, 1.0)), **zero}
        for name in free[1:]:
            far[name] = float(rng.uniform(*ranges[name])) / 2
        points.append(_rounded(far, ranges))
    for centre in centres:
        for reach in _REACHES:
            for normal in rng.standard_normal((_NUM_STEPS, len(free))).tolist():
                step = dict(centre)
                for name, value in zip(free, normal, strict=True):
                    step[name] += reach * (ranges[name][1] - ranges[name][0]) * value
                points.append(_rounded(step, ranges))
    return points


def _rounded(params: Params, ranges: Mapping[str, Range]) -> dict[str, float]:
    return {name: round(min(max(params[name], low), high), DECIMALS) for name, (low, high) in ranges.items()}
