"""Computes an estimate with a standard error and intervals from one number per prompt.

Prompts are the sample: SE^2 = var(prompt means) / num_prompts. Shares get Wilson's interval (1927) at the effective
sample size of Korn & Graubard (1998). Mean tokens get the bootstrap-t (Efron & Tibshirani 1993, ch. 12). Paired
differences get the two added prompts of Agresti & Min (2005). MOVER combines several tasks (Zou & Donner 2008). No
interval has zero width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autolambda.errors import InputError

Floats = NDArray[np.float64]
Weights = Mapping[str, float]

Z_95 = 1.959963984540054  # of the standard normal distribution, two-sided
Z_95_ONE_SIDED = 1.6448536269514722
SURE = 0.95  # before the confirmation, a chance of at least this counts as sure
_NUM_RESAMPLES = 1000
_CHUNK = 100_000  # resampled prompts in memory at a time, so that they fit the cache
_FEWEST = 4  # prompts that a bootstrap needs


@dataclass(frozen=True)
class Estimate:
    """A metric with its standard error (above 0) and 95 % interval, ``low <= value <= high``."""

    value: float
    standard_error: float
    low: float
    high: float
    num_prompts: int
    num_responses: int


@dataclass(frozen=True)
class Bounds:
    """Two one-sided 95 % bounds. Each alone covers 95 %."""

    lower: float
    upper: float


@dataclass(frozen=True)
class Limits:
    """An estimate with a two-sided interval, and its one-sided bounds."""

    estimate: Estimate
    bounds: Bounds


@dataclass(frozen=True)
class Difference:
    """A paired difference with its 95 % interval and two one-sided 95 % bounds."""

    value: float
    standard_error: float
    low: float
    high: float
    lower_bound: float
    upper_bound: float
    num_prompts: int

    @property
    def turned(self) -> Difference:
        """The difference with its sides exchanged."""
        bounds = -self.high, -self.low, -self.upper_bound, -self.lower_bound
        return Difference(-self.value, self.standard_error, *bounds, self.num_prompts)


def share(means: Floats, *, num_responses: int) -> Estimate:
    """Returns the mean of the prompts' shares (0 to 1), with Wilson's interval at the effective sample size.

    The variance is a weighted mean of the clustered variance and the variance of fully dependent repeats. The weights
    are the number of prompts with the rarer outcome, and 1. Without these prompts the dependence of repeats is unknown.
    """
    size, value = len(means), float(means.mean())
    spread, clustered, effective = value * (1 - value), 0.0, float(size)
    if size > 1 and spread > 0:
        clustered = float(means.var(ddof=1)) / size
        informative = int(np.count_nonzero(means if value < 0.5 else 1 - means))
        blended = (informative * clustered + spread / size) / (informative + 1)
        effective = spread / blended * (Z_95 / student(0.975, size - 1)) ** 2
        effective = min(max(effective, size), num_responses)
    middle, reach = wilson(value, effective)
    low, high = max(0.0, min(middle - reach, value)), min(1.0, max(middle + reach, value))
    return Estimate(value, max(math.sqrt(clustered), reach / Z_95), low, high, size, num_responses)


def wilson(value: float, size: float) -> tuple[float, float]:
    """Returns the middle and the half-width of Wilson's 95 % interval for a share (0 to 1) of ``size`` observations."""
    square = Z_95**2 / size
    middle = (value + square / 2) / (1 + square)
    return middle, math.sqrt(square * (value * (1 - value) + square / 4)) / (1 + square)


def tokens(means: Floats, *, num_responses: int, cap: float, seed: int) -> Limits:
    """Returns the mean of the prompts' mean lengths in tokens, with limits by the bootstrap-t.

    Student's t is used for fewer than 4 prompts or equal lengths. For the upper limits one prompt is added between the
    mean and the longest (halfway for 16 prompts or fewer), because the sample may have missed the tail. No limit
    exceeds ``cap`` (tokens; infinite if unknown). The relative standard error is at least Wilson's for a share of 1.
    With one prompt the standard deviation is taken to be the mean.
    """
    size, value = len(means), float(means.mean())
    deviation = float(means.std(ddof=1)) if size > 1 else value
    deviation = max(deviation, max(value, 1.0) * Z_95 * math.sqrt(size) / 2 / (size + Z_95**2))
    extra = (float(means.max()) - value) * min(0.5, 0.25 + 4 / size)
    raised = value + extra / (size + 1)
    raised_deviation = math.sqrt(deviation**2 + extra**2 * size / (size + 1) / max(size - 1, 1))
    ratios = _studentised(means, deviation, seed) / math.sqrt(size)
    highs = [min(cap, max(value, raised - float(ratio) * raised_deviation)) for ratio in ratios[:2]]
    lows = [max(0.0, min(value, value - float(ratio) * deviation)) for ratio in ratios[2:]]
    estimate = Estimate(value, deviation / math.sqrt(size), lows[1], highs[0], size, num_responses)
    return Limits(estimate, Bounds(lows[0], highs[1]))


def chance_within(value: float, bounds: Bounds, *, budget: float) -> float:
    """Returns the chance that mean tokens are at most ``budget``, given their estimate and its one-sided bounds.

    It is a confidence distribution: one half at ``value``, 5 and 95 % at the bounds, normal on each side.
    """
    reach = bounds.upper - value if budget >= value else value - bounds.lower
    if reach <= 0:
        return 1.0 if budget >= value else 0.0
    z = Z_95_ONE_SIDED * (budget - value) / reach
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def paired(changes: Mapping[str, Floats], *, weights: Weights | None) -> Difference:
    """Returns the mean change (-1 to 1) of the prompts, averaged over tasks.

    Two prompts are added to each task: half a prompt up, half a prompt down, and one unchanged. So a sample without
    disagreement is not taken as certainty. With repeats the half prompts are as large as the observed disagreements.
    """
    shares = task_weights(changes, weights=weights)
    value = centre = variance = freedom = 0.0
    changes = {name: change for name, change in changes.items() if shares[name] > 0}
    for name, change in changes.items():
        size, squares = len(change), float(change @ change)
        pseudo = (squares + 1) / (np.count_nonzero(change) + 1)
        middle = float(change.sum()) / (size + 2)
        task_variance = shares[name] ** 2 * ((squares + pseudo) / (size + 2) - middle**2) / (size + 2)
        value += shares[name] * float(change.mean())
        centre += shares[name] * middle
        variance += task_variance
        freedom += task_variance**2 / max(size - 1, 1)
    error, freedom = math.sqrt(variance), variance**2 / freedom  # Welch & Satterthwaite
    reach = student(0.975, freedom) * error
    low, high = max(-1.0, min(centre - reach, value)), min(1.0, max(centre + reach, value))
    reach = student(0.95, freedom) * error
    lower, upper = max(-1.0, min(centre - reach, value)), min(1.0, max(centre + reach, value))
    return Difference(value, error, low, high, lower, upper, sum(map(len, changes.values())))


def macro(tasks: Mapping[str, Estimate], *, weights: Weights | None) -> Estimate:
    """Returns the weighted mean over tasks; tasks with weight 0 are left out.

    The distance to a limit is the root of the sum of squares of the tasks' weighted distances (MOVER).
    """
    shares = task_weights(tasks, weights=weights)
    tasks = {name: task for name, task in tasks.items() if shares[name] > 0}
    if len(tasks) == 1:
        return next(iter(tasks.values()))
    value = math.fsum(shares[name] * task.value for name, task in tasks.items())
    error = math.hypot(*(shares[name] * task.standard_error for name, task in tasks.items()))
    below = math.hypot(*(shares[name] * (task.value - task.low) for name, task in tasks.items()))
    above = math.hypot(*(shares[name] * (task.high - task.value) for name, task in tasks.items()))
    num_responses = sum(task.num_responses for task in tasks.values())
    return Estimate(
        value, error, value - below, value + above, sum(task.num_prompts for task in tasks.values()), num_responses
    )


def task_weights(tasks: Iterable[str], *, weights: Weights | None) -> Weights:
    """Returns ``weights``, or equal weights if they are ``None``.

    Raises ``InputError`` unless they name all tasks and sum to 1. A task with weight 0 may be missing.
    """
    names = sorted(tasks)
    if weights is None:
        return dict.fromkeys(names, 1 / len(names))
    needed = sorted(name for name, weight in weights.items() if weight != 0 or name in names)
    fits = needed == names and all(weight >= 0 for weight in weights.values())
    if not fits or not math.isclose(math.fsum(weights.values()), 1, abs_tol=1e-9):
        raise InputError(f"weights must name the tasks {', '.join(names)} and sum to 1, seen {dict(weights)}")
    return weights


def number(value: float) -> str:
    """Returns a number of tokens as text, with one decimal below 1,000."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"


def _studentised(means: Floats, deviation: float, seed: int) -> Floats:
    """Returns the 2.5, 5, 95 and 97.5 % quantiles of (mean - truth) / standard error.

    The deviation of a resample is kept above a minimum, and the quantiles are widened for small samples. Both were
    chosen by simulated coverage.
    """
    size = len(means)
    levels = np.array([0.025, 0.05, 0.95, 0.975])
    if size < _FEWEST or np.ptp(means) == 0:
        return np.array([student(float(level), max(size - 1, 1)) for level in levels])
    centred, rng = means - means.mean(), np.random.default_rng(seed)
    ratios = []
    step = max(1, _CHUNK // size)
    for start in range(0, _NUM_RESAMPLES, step):
        drawn = centred[rng.integers(size, size=(min(step, _NUM_RESAMPLES - start), size), dtype=np.int32)]
        shift = drawn.mean(axis=1)
        variance = (np.einsum("ij,ij->i", drawn, drawn) - size * shift**2) / (size - 1)
        ratios.append(shift / np.sqrt(np.maximum(variance, (0.2 * deviation) ** 2)))
    quantiles: Floats = np.quantile(np.concatenate(ratios), levels) * math.sqrt(size * (size + 1) / (size - 3))
    return quantiles


def student(level: float, freedom: float) -> float:
    """Returns the quantile of Student's t with ``freedom`` degrees of freedom."""
    from scipy.special import stdtrit  # type: ignore[import-untyped]  # scipy ships no annotations

    return float(stdtrit(freedom, level))
