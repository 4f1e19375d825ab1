"""What to measure next and what to confirm, read off joint draws from the surrogate.

A target is a budget and the spread that a finalist's mean tokens will have when they are confirmed: a schedule is
within it where the upper bound that the confirmation will show is. A draw in which every schedule has its tokens and
its accuracy answers the question directly: which is the most accurate one within? (Thompson 1933; with a constraint,
Eriksson & Poloczek 2021.) The hypervolume below a budget is the mean of that answer over all budgets below. What
breaks a guard in a draw is no answer in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr  # type: ignore[import-untyped]  # scipy ships no annotations

from autolambda.optimizer.gaussian_process import Floats
from autolambda.optimizer.space import DECIMALS, Params, Span
from autolambda.optimizer.surrogate import PosteriorSamples

_Z = 1.6448536269514722  # one-sided 95 %
SURE = 0.95  # the chance to be shown within the budget from which a schedule counts as safe
WORTH = 0.001  # of accuracy: a bolder finalist is confirmed where it is expected to bring so much
_REACHES = (0.02, 0.06, 0.15)  # of the steps around a schedule that is good already
_NUM_STEPS = 25  # at each reach
_NUM_FAR = 150


@dataclass(frozen=True)
class Target:
    """A budget, and the relative standard error with which the mean tokens of a finalist will be known."""

    budget: float
    spread: float

    @property
    def highest(self) -> float:
        """The mean tokens at which an even chance remains to be shown within the budget."""
        return self.budget / (1 + _Z * self.spread)


def chances(draw: PosteriorSamples, target: Target) -> Floats:
    """The chance of each schedule to be shown within the budget and to break no guard, float64 [schedules]."""
    within: Floats = ndtr((target.highest - draw.tokens) / (target.spread * draw.tokens))
    found: Floats = (within * draw.allowed).mean(axis=0)
    return found


def safe(draw: PosteriorSamples, target: Target) -> int:
    """The most accurate schedule among those sure to be shown within; where none is sure, the likeliest."""
    chance = chances(draw, target)
    sure = chance >= SURE
    return int(np.argmax(np.where(sure, draw.accuracy.mean(axis=0), -1.0) if sure.any() else chance))


def bold(draw: PosteriorSamples, target: Target, *, than: int) -> int | None:
    """The schedule that is worth most beside ``than``: its chance to be within times what it is ahead by."""
    ahead = draw.accuracy.mean(axis=0)
    worth = chances(draw, target) * (ahead - ahead[than])
    best = int(np.argmax(worth))
    return best if worth[best] >= WORTH else None


def frugal(draw: PosteriorSamples, *, than: int, margin: float) -> int | None:
    """The cheapest schedule with a fifth fewer tokens than ``than`` that hardly loses: less than half the margin.

    It is as sure to break no guard, or sure enough.
    """
    ahead, tokens, allowed = draw.accuracy.mean(axis=0), draw.tokens.mean(axis=0), draw.allowed.mean(axis=0)
    good = (ahead >= ahead[than] - margin / 2) & (tokens <= 0.8 * tokens[than])
    good &= allowed >= min(SURE, allowed[than])
    return int(np.argmin(np.where(good, tokens, np.inf))) if good.any() else None


def sampled(draw: PosteriorSamples, target: Target, *, index: int) -> int:
    """The most accurate schedule within the target in one of the draws that is allowed; where none is, the cheapest."""
    accuracy, tokens, allowed = draw.accuracy[index], draw.tokens[index], draw.allowed[index]
    within = (tokens <= target.highest) & allowed
    if within.any():
        return int(np.argmax(np.where(within, accuracy, -1.0)))
    return int(np.argmin(np.where(allowed, tokens, np.inf) if allowed.any() else tokens))


def expected_gain(draw: PosteriorSamples, target: Target) -> float:
    """By how much the best within the target is expected to be more accurate than the safe one (share of 1).

    Where it is not sure that the safe one breaks no guard, it is worth nothing in the draws in which it does: there is
    something to learn.
    """
    best = np.where((draw.tokens <= target.highest) & draw.allowed, draw.accuracy, 0.0).max(axis=1)
    index = safe(draw, target)
    ours, allowed = draw.accuracy[:, index], draw.allowed[:, index]
    if allowed.mean() < SURE:
        ours = np.where(allowed, ours, 0.0)
    return max(0.0, float((best - ours).mean()))


def is_dominated(draw: PosteriorSamples, index: int) -> bool:
    """Whether with ``SURE`` chance some other schedule is at least as accurate with no more tokens.

    One that breaks a guard does not count against one that breaks none.
    """
    others = np.arange(draw.tokens.shape[1]) != index
    cheaper = draw.tokens[:, others] <= draw.tokens[:, [index]]
    better = draw.accuracy[:, others] >= draw.accuracy[:, [index]]
    counts = draw.allowed[:, others] | ~draw.allowed[:, [index]]
    return float((cheaper & better & counts).any(axis=1).mean()) >= SURE


def candidates(
    free: Sequence[str], box: Mapping[str, Span], centres: Sequence[Params], rng: np.random.Generator
) -> list[dict[str, float]]:
    """New places: the uniform lambdas, the box at large in lam and split, and steps around the ``centres``.

    Only ``free`` parameters leave the value that they have at 0 or at the centre.
    """
    rest = [name for name in box if name != "lam"]
    zero = dict.fromkeys(rest, 0.0)
    found = [{"lam": round(float(lam), DECIMALS), **zero} for lam in np.linspace(0, 1, 101 if free == ["lam"] else 41)]
    if free == ["lam"]:
        return found
    for _ in range(_NUM_FAR):
        far = {"lam": float(rng.uniform(0.0, 1.0)), **zero}
        for name in free[1:]:
            far[name] = float(rng.uniform(*box[name])) / 2
        found.append(_rounded(far, box))
    for centre in centres:
        for reach in _REACHES:
            for normal in rng.standard_normal((_NUM_STEPS, len(free))).tolist():
                step = dict(centre)
                for name, value in zip(free, normal, strict=True):
                    step[name] += reach * (box[name][1] - box[name][0]) * value
                found.append(_rounded(step, box))
    return found


def _rounded(params: Params, box: Mapping[str, Span]) -> dict[str, float]:
    return {name: round(min(max(params[name], low), high), DECIMALS) for name, (low, high) in box.items()}
