"""From one number a prompt to an estimate with a standard error and intervals.

The prompt is the unit that varies: SE^2 = var(prompt means) / num_prompts. Shares get Wilson's interval (1927) at the
effective sample size of Korn & Graubard (1998), mean tokens the bootstrap-t (Efron & Tibshirani 1993, ch. 12), paired
differences the two added prompts of Agresti & Min (2005); several tasks are combined by MOVER (Zou & Donner 2008).
No interval has zero width.
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
SURE = 0.95  # the chance from which something that is not confirmed yet counts as sure
_NUM_RESAMPLES = 1000
_CHUNK = 100_000  # resampled prompts held at a time: they stay in the cache
_FEWEST = 4  # prompts for a bootstrap


@dataclass(frozen=True)
class Estimate:
    """A metric with its standard error and 95 % interval; ``low <= value <= high``, the standard error is above 0."""

    value: float
    standard_error: float
    low: float
    high: float
    num_prompts: int
    num_responses: int


@dataclass(frozen=True)
class Bounds:
    """A lower and an upper bound, each one-sided at 95 %."""

    lower: float
    upper: float


@dataclass(frozen=True)
class Limits:
    """An estimate with its two-sided interval, and its one-sided bounds."""

    estimate: Estimate
    bounds: Bounds


@dataclass(frozen=True)
class Difference:
    """A paired difference with its 95 % interval; ``lower_bound`` and ``upper_bound`` are one-sided at 95 %."""

    value: float
    standard_error: float
    low: float
    high: float
    lower_bound: float
    upper_bound: float
    num_prompts: int


def share(means: Floats, *, num_responses: int) -> Estimate:
    """The mean of each prompt's share (0 to 1), with Wilson's interval at the effective sample size.

    The clustered variance is blended with that of wholly dependent repeats, which weighs as much as one prompt that
    holds the rarer outcome: with no such prompt nothing is known about the dependence.
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
    """The middle of Wilson's 95 % interval of a share ``value`` (0 to 1) among ``size``, and its half-width."""
    square = Z_95**2 / size
    middle = (value + square / 2) / (1 + square)
    return middle, math.sqrt(square * (value * (1 - value) + square / 4)) / (1 + square)


def tokens(means: Floats, *, num_responses: int, cap: float, seed: int) -> Limits:
    """The mean of each prompt's mean length: bootstrap-t, or Student's t for fewer than 4 prompts or equal lengths.

    Above, one prompt is added halfway between the mean and the longest: the sample may have missed the tail. No limit
    passes ``cap`` (tokens; infinite if unknown). The deviation is at least that of an all-correct share, and with one
    prompt it is the mean itself.
    """
    size, value = len(means), float(means.mean())
    deviation = float(means.std(ddof=1)) if size > 1 else value
    deviation = max(deviation, max(value, 1.0) * Z_95 * math.sqrt(size) / 2 / (size + Z_95**2))
    extra = (float(means.max()) - value) / 2
    raised = value + extra / (size + 1)
    raised_deviation = math.sqrt(deviation**2 + extra**2 * size / (size + 1) / max(size - 1, 1))
    ratios = _studentised(means, deviation, seed) / math.sqrt(size)
    highs = [min(cap, max(value, raised - float(ratio) * raised_deviation)) for ratio in ratios[:2]]
    lows = [max(0.0, min(value, value - float(ratio) * deviation)) for ratio in ratios[2:]]
    estimate = Estimate(value, deviation / math.sqrt(size), lows[1], highs[0], size, num_responses)
    return Limits(estimate, Bounds(lows[0], highs[1]))


def paired(changes: Mapping[str, Floats], *, weights: Weights | None) -> Difference:
    """The mean change (-1 to 1) of each task's prompts, averaged over tasks.

    Two prompts are added to each task, half a one up, half a one down, and one unchanged, so that no disagreement is
    not certainty. With repeats the half prompts are as large as the disagreements seen.
    """
    shares = task_weights(changes, weights=weights)
    value = centre = variance = freedom = 0.0
    changes = {name: change for name, change in changes.items() if shares[name] > 0}
    for name, change in changes.items():
        size, squares = len(change), float(change @ change)
        pseudo = (squares + 1) / (np.count_nonzero(change) + 1)
        middle = float(change.sum()) / (size + 2)
        part = shares[name] ** 2 * ((squares + pseudo) / (size + 2) - middle**2) / (size + 2)
        value += shares[name] * float(change.mean())
        centre += shares[name] * middle
        variance += part
        freedom += part**2 / max(size - 1, 1)
    error, freedom = math.sqrt(variance), variance**2 / freedom  # Welch & Satterthwaite
    reach = student(0.975, freedom) * error
    low, high = max(-1.0, min(centre - reach, value)), min(1.0, max(centre + reach, value))
    reach = student(0.95, freedom) * error
    lower, upper = max(-1.0, min(centre - reach, value)), min(1.0, max(centre + reach, value))
    return Difference(value, error, low, high, lower, upper, sum(map(len, changes.values())))


def macro(tasks: Mapping[str, Estimate], *, weights: Weights | None) -> Estimate:
    """The weighted mean over tasks; a limit lies the root of the summed squares of the tasks' weighted reaches away.

    A task that weighs nothing plays no part in it.
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
    """``weights`` checked against the tasks, or equal ones. Raises ``InputError`` unless they name all and sum to 1.

    A task that weighs nothing may be missing.
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
    """A number of tokens, with a decimal where it is small."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"


def _studentised(means: Floats, deviation: float, seed: int) -> Floats:
    """The 2.5, 5, 95 and 97.5 % quantiles of (mean - truth) / standard error.

    Resamples are kept from a vanishing deviation, and stretched for small samples: both chosen by simulated coverage.
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
    """The quantile of Student's t with ``freedom`` degrees of freedom."""
    from scipy.special import stdtrit  # type: ignore[import-untyped]  # scipy ships no annotations

    return float(stdtrit(freedom, level))
