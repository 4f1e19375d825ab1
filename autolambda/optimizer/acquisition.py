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

from autolambda.optimizer.space import BEYOND, DECIMALS, Params, Range
from autolambda.optimizer.surrogate import PosteriorSamples
from autolambda.statistics.estimates import SURE, Floats

_REACHES = (0.02, 0.06, 0.15)  # sizes of the steps around a good schedule, as shares of each range
_NUM_STEPS = 25  # at each reach
_NUM_CENTRES = 2  # schedules around which new ones are proposed
_NUM_FAR = 150
_WHOLE = {each.param for each in BEYOND.values()}  # random points take the whole range of these, half of the others
_SAME_ACCURACY, _SAME_TOKENS = 0.01, 0.03  # predicted differences (share of 1; relative) of schedules that are alike


@dataclass(frozen=True)
class Target:
    """A budget in mean tokens, and the relative standard error of a finalist's mean tokens at confirmation.

    The confirmation's upper bound lies ``reach`` standard errors above the mean.
    """

    budget: float
    spread: float
    reach: float

    @property
    def highest(self) -> float:
        """The mean tokens at which the chance to be shown within the budget is one half."""
        return self.budget / (1 + self.reach * self.spread)


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


def thompson(draw: PosteriorSamples, target: Target, *, index: int) -> int:
    """Returns the most accurate schedule within the target in one posterior sample, else the cheapest."""
    accuracy, tokens, allowed = draw.accuracy[index], draw.tokens[index], draw.allowed[index]
    within = (tokens <= target.highest) & allowed
    if within.any():
        return int(np.argmax(np.where(within, accuracy, -1.0)))
    return int(np.argmin(np.where(allowed, tokens, np.inf) if allowed.any() else tokens))


def expected_gains(draw: PosteriorSamples, target: Target) -> Floats:
    """Returns the expected lead in accuracy (share of 1) of each schedule over the surest one, float64 [schedules].

    A schedule leads in the samples in which it is within the target, allowed and more accurate.
    """
    index = surest(draw, target)
    ours = np.where(draw.allowed[:, [index]], draw.accuracy[:, [index]], 0.0)
    counts = (draw.tokens <= target.highest) & draw.allowed
    gains: Floats = np.where(counts, np.maximum(draw.accuracy - ours, 0.0), 0.0).mean(axis=0)
    return gains


def is_dominated(draw: PosteriorSamples, index: int) -> bool:
    """Returns whether some other schedule is as accurate with no more tokens, with a chance of at least ``SURE``.

    A schedule that breaks a guard does not count against one that breaks none.
    """
    others = np.arange(draw.tokens.shape[1]) != index
    cheaper = draw.tokens[:, others] <= draw.tokens[:, [index]]
    better = draw.accuracy[:, others] >= draw.accuracy[:, [index]]
    counts = draw.allowed[:, others] | ~draw.allowed[:, [index]]
    return float((cheaper & better & counts).any(axis=1).mean()) >= SURE


def distinct(draw: PosteriorSamples, num_measured: int) -> list[int]:
    """Returns the new points, counted from the first, whose predictions differ from those of all measured schedules."""
    accuracy, tokens = draw.accuracy, np.log(draw.tokens)
    apart = _rms(accuracy, num_measured) >= _SAME_ACCURACY
    apart |= _rms(tokens, num_measured) >= _SAME_TOKENS
    indices: list[int] = np.flatnonzero(apart.all(axis=1)).tolist()
    return indices


def _rms(draws: Floats, size: int) -> Floats:
    """Returns the root mean square difference of each new point to each measured one, float64 [new, measured]."""
    new, old = draws[:, size:], draws[:, :size]
    squares = (new**2).mean(axis=0)[:, None] + (old**2).mean(axis=0) - 2 * new.T @ old / len(draws)
    distances: Floats = np.sqrt(np.maximum(squares, 0.0))
    return distances


def centres(known: PosteriorSamples, params_of: Sequence[Params], targets: Sequence[Target]) -> list[Params]:
    """Returns the points around which to propose new ones: the targets' picks, and Thompson samples of the last."""
    indices = [surest(known, target) for target in targets]
    indices += [thompson(known, targets[-1], index=index) for index in range(_NUM_CENTRES)]
    return [params_of[index] for index in dict.fromkeys(indices)][: max(_NUM_CENTRES, len(targets))]


def candidates(
    free: Sequence[str], ranges: Mapping[str, Range], centres: Sequence[Params], rng: np.random.Generator
) -> list[dict[str, float]]:
    """Returns new points: uniform lambdas, random points of the whole space, and random steps around the ``centres``.

    Only the ``free`` parameters differ from 0 or from the centre.
    """
    rest = [name for name in ranges if name != "lam"]
    zero = dict.fromkeys(rest, 0.0)
    points = [
        {"lam": round(float(lam), DECIMALS), **zero}
        for lam in np.linspace(*ranges["lam"], 401 if free == ["lam"] else 101)
    ]
    if free == ["lam"]:
        return points
    for _ in range(_NUM_FAR):
        far = {"lam": float(rng.uniform(*ranges["lam"])), **zero}
        for name in free[1:]:
            far[name] = float(rng.uniform(*ranges[name])) * (1.0 if name in _WHOLE else 0.5)
        points.append(_rounded(far, ranges))
    for centre in centres:
        for reach in _REACHES:
            for normal in rng.standard_normal((_NUM_STEPS, len(free))).tolist():
                step = {**zero, **centre}
                for name, value in zip(free, normal, strict=True):
                    step[name] += reach * (ranges[name][1] - ranges[name][0]) * value
                points.append(_rounded(step, ranges))
    return points


def _rounded(params: Params, ranges: Mapping[str, Range]) -> dict[str, float]:
    return {name: round(min(max(params[name], low), high), DECIMALS) for name, (low, high) in ranges.items()}
