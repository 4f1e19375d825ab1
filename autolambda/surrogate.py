"""A noise-aware model of accuracy, mean tokens and Think ratio over schedules.

Each output is a Gaussian process of its own on its own scale (log-odds, log tokens), ``y = g(lam) + h(schedule) + e``
(Rasmussen & Williams 2006, chapters 2 and 5). The noise is known, not learnt: ``Cov(e_s, e_t) = se_s se_t (rho O_st +
(1 - rho) [s = t])``, where ``O_st`` is the overlap of the prompts of two trials and ``rho`` the luck that they share on
them, estimated from the prompts that trials have in common.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular  # type: ignore[import-untyped]  # no annotations
from scipy.optimize import minimize  # type: ignore[import-untyped]
from scipy.special import expit, log_ndtr, logit  # type: ignore[import-untyped]

from autolambda.schedule import Schedule

Floats = NDArray[np.float64]

ACCURACY, TOKENS, THINK = OUTPUTS = range(3)
_Z = 1.959963984540054  # two-sided 95 %
_JITTER = 1e-8
_CONSTANT = 4.0  # variance of the unknown level, on standardised outputs
# Normal priors (mean, deviation) of the logs of the hyper-parameters: scale and reach of g, then of h.
_PRIORS = ((0.0, 0.7), (math.log(0.4), 0.5), (math.log(0.3), 0.7), (math.log(0.6), 0.6))
_MOST_STEPS = 40  # of the optimiser


@dataclass(frozen=True)
class Observation:
    """What was measured of a schedule.

    ``values`` and ``errors`` are accuracy, mean tokens and Think ratio with their standard errors. ``prompts`` int64
    [n] are the numbers of the prompts that were asked, ``luck`` float64 [n, 3] by how much each prompt's means deviate
    from their task's.
    """

    schedule: Schedule
    values: tuple[float, float, float]
    errors: tuple[float, float, float]
    prompts: NDArray[np.int64]
    luck: Floats


@dataclass(frozen=True)
class Excess:
    """All that is known of a trial that was stopped in mid-response: its mean is above so many tokens."""

    schedule: Schedule
    tokens: float


@dataclass(frozen=True)
class Band:
    """A prediction on the natural scale: the median with its central 95 %, float64 [schedules] each."""

    value: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Draw:
    """Joint draws from the posterior, float64 [draws, schedules] each."""

    accuracy: Floats
    tokens: Floats


class Surrogate:
    """The three processes, fitted. The same observations give the same model."""

    def __init__(self, observations: Sequence[Observation], *, num_knots: int, excesses: Sequence[Excess] = ()) -> None:
        """Fits the hyper-parameters: about 20 ms for 25 observations, a second for 200 in 12 dimensions."""
        self._num_knots = num_knots
        places = self._places([each.schedule for each in observations])
        luck = _luck(observations)
        values, errors = (np.array([getattr(each, name) for each in observations]) for name in ("values", "errors"))
        self._processes = []
        for output in OUTPUTS:
            y, deviation = _scaled(output, values[:, output], errors[:, output])
            noise = np.outer(deviation, deviation) * _shared(luck[:, :, output])
            self._processes.append(Process(places, y, noise))
        if excesses:
            floors = np.log([each.tokens for each in excesses])
            self._processes[TOKENS].exceed(self._places([each.schedule for each in excesses]), floors)

    def predict(self, schedules: Sequence[Schedule], output: int) -> Band:
        """One output at the schedules, without the noise of a measurement."""
        mean, variance = self._processes[output].marginal(self._places(schedules))
        reach = _Z * np.sqrt(variance)
        natural = _NATURAL[output]
        return Band(natural(mean), natural(mean - reach), natural(mean + reach))

    def draw(self, schedules: Sequence[Schedule], *, num_draws: int, seed: int) -> Draw:
        """Accuracy and mean tokens of all the schedules together, drawn from the posterior."""
        places, rng = self._places(schedules), np.random.default_rng(seed)
        drawn = [self._processes[output].draw(places, num_draws, rng) for output in (ACCURACY, TOKENS)]
        return Draw(*(_NATURAL[output](each) for output, each in zip((ACCURACY, TOKENS), drawn, strict=True)))

    def _places(self, schedules: Sequence[Schedule]) -> Floats:
        return np.array([place(schedule, num_knots=self._num_knots) for schedule in schedules])


class Process:
    """A Gaussian process with a known covariance of the noise; the hyper-parameters are the most probable ones."""

    def __init__(self, places: Floats, y: Floats, noise: Floats) -> None:
        """``places`` float64 [n, d], ``y`` [n], ``noise`` [n, n]."""
        self._level, self._unit = float(y.mean()), max(float(y.std()), 0.3)
        self._places, self._y, self._noise = places, (y - self._level) / self._unit, noise / self._unit**2
        prior = np.array([*_PRIORS[:3], *([_PRIORS[3]] * places.shape[1])])
        active = np.array([True, True, True, *(np.ptp(places, axis=0) > 0)])
        squares = (places[:, None, :] - places[None, :, :]) ** 2

        def loss(free: Floats) -> tuple[float, Floats]:
            logs = prior[:, 0].copy()
            logs[active] = free
            value, gradient = self._loss(logs, squares)
            pulls = (logs - prior[:, 0]) / prior[:, 1]
            return value + float(pulls @ pulls) / 2, (gradient + pulls / prior[:, 1])[active]

        start = prior[active, 0]
        reach = 3 * prior[active, 1]
        bounds = np.stack([start - reach, start + reach], axis=1)
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _MOST_STEPS})
        self._logs = prior[:, 0].copy()
        self._logs[active] = found.x
        self._condition()

    def exceed(self, places: Floats, floors: Floats) -> None:
        """Takes in that the output is above ``floors`` [m] at ``places``: each by the moments of the cut normal."""
        for at, floor in zip(places, (floors - self._level) / self._unit, strict=True):
            mean, variance = (float(each[0]) for each in self._moments(at[None]))
            deviation = math.sqrt(variance)
            depth = (mean - floor) / deviation
            ratio = math.exp(-depth * depth / 2 - 0.5 * math.log(2 * math.pi) - float(log_ndtr(depth)))
            moved, kept = mean + deviation * ratio, variance * max(1 - ratio * (ratio + depth), 1e-3)
            precision = 1 / kept - 1 / variance
            if precision > 1e-6:  # else it was expected
                value = (moved / kept - mean / variance) / precision
                size = len(self._y)
                noise = np.zeros((size + 1, size + 1))
                noise[:size, :size], noise[size, size] = self._noise, 1 / precision
                self._places, self._y, self._noise = np.vstack([self._places, at]), np.append(self._y, value), noise
                self._condition()

    def marginal(self, places: Floats) -> tuple[Floats, Floats]:
        """Mean and variance at ``places`` [m, d], float64 [m] each."""
        mean, variance = self._moments(places)
        return self._level + self._unit * mean, self._unit**2 * variance

    def draw(self, places: Floats, num_draws: int, rng: np.random.Generator) -> Floats:
        """Joint draws at ``places`` [m, d], float64 [num_draws, m]."""
        cross = self._kernel(places, self._places)
        half = solve_triangular(self._factor, cross.T, lower=True)
        covariance = self._kernel(places, places) - half.T @ half
        covariance[np.diag_indices_from(covariance)] += 1e-6
        root = cholesky(covariance, lower=True)
        standard: Floats = cross @ self._weights + rng.standard_normal((num_draws, len(places))) @ root.T
        return self._level + self._unit * standard

    def _moments(self, places: Floats) -> tuple[Floats, Floats]:
        cross = self._kernel(places, self._places)
        half = solve_triangular(self._factor, cross.T, lower=True)
        scales = np.exp(2 * self._logs[[0, 2]]).sum() + _CONSTANT
        return cross @ self._weights, np.maximum(scales - np.einsum("ij,ij->j", half, half), 1e-12)

    def _condition(self) -> None:
        covariance = self._kernel(self._places, self._places) + self._noise
        covariance[np.diag_indices_from(covariance)] += _JITTER
        self._factor = cholesky(covariance, lower=True)
        self._weights = cho_solve((self._factor, True), self._y)

    def _kernel(self, left: Floats, right: Floats) -> Floats:
        squares = (left[:, None, :] - right[None, :, :]) ** 2
        lam, rest = _distances(self._logs, squares)
        scales = np.exp(2 * self._logs[[0, 2]])
        kernel: Floats = _CONSTANT + scales[0] * _matern(lam)[0] + scales[1] * _matern(rest)[0]
        return kernel

    def _loss(self, logs: Floats, squares: Floats) -> tuple[float, Floats]:
        """The negative log likelihood and its gradient; ``squares`` [n, n, d] are squared distances."""
        scales, reaches = np.exp(2 * logs[[0, 2]]), np.exp(-2 * np.append(logs[1], logs[3:]))
        lam, rest = _distances(logs, squares)
        (near_lam, fall_lam), (near_rest, fall_rest) = _matern(lam), _matern(rest)
        covariance = _CONSTANT + scales[0] * near_lam + scales[1] * near_rest + self._noise
        covariance[np.diag_indices_from(covariance)] += _JITTER
        factor = cholesky(covariance, lower=True)
        weights = cho_solve((factor, True), self._y)
        value = float(self._y @ weights) / 2 + float(np.log(np.diag(factor)).sum())
        pull = cho_solve((factor, True), np.eye(len(self._y))) - np.outer(weights, weights)
        gradient = np.empty(len(logs))
        gradient[0] = scales[0] * float((pull * near_lam).sum())
        gradient[1] = scales[0] * reaches[0] * float((pull * fall_lam * squares[:, :, 0]).sum()) / 2
        gradient[2] = scales[1] * float((pull * near_rest).sum())
        gradient[3:] = scales[1] * reaches[1:] * np.einsum("ij,ijk->k", pull * fall_rest, squares) / 2
        return value, gradient


def place(schedule: Schedule, *, num_knots: int) -> Floats:
    """Where a schedule lies, float64 [2 + 2 num_knots], the first two for a pair by module.

    Its mean lam; how far attention lies above ffn; at each depth knot how far the mean of both lies above the first
    number, and the difference of both above the second.
    """
    attention, ffn = (
        np.array([profile.at(knot, num_knots) for knot in range(num_knots)])
        for profile in (schedule.attention, schedule.ffn)
    )
    middle, split = (attention + ffn) / 2, attention - ffn
    found: Floats = np.array([middle.mean(), split.mean(), *(middle - middle.mean()), *(split - split.mean())])
    return np.where(np.abs(found) < 1e-12, 0.0, found)


def _scaled(output: int, values: Floats, errors: Floats) -> tuple[Floats, Floats]:
    """Values and standard errors on the output's own scale (delta method).

    Shares are drawn towards one half by as much as half a response on either side at their effective sample size
    would, so that 0 and 1 are finite.
    """
    if output == TOKENS:
        return np.log(values), errors / values
    size = np.maximum(np.maximum(values * (1 - values), 1e-4) / errors**2, 1.0)
    drawn = (values * size + 0.5) / (size + 1)
    return logit(drawn), 1 / np.sqrt((size + 1) * drawn * (1 - drawn))


def _luck(observations: Sequence[Observation]) -> Floats:
    """The luck of all, float64 [n, prompts, 3], NaN where a prompt was not asked."""
    found = np.full((len(observations), max(int(each.prompts.max()) for each in observations) + 1, 3), np.nan)
    for row, each in zip(found, observations, strict=True):
        row[each.prompts] = each.luck
    return found


def shared_luck(observations: Sequence[Observation], output: int) -> float:
    """How much of the spread over prompts is that of the prompts themselves, whoever answers: 0 to 0.95.

    The correlation of the trials' luck over the prompts that they have in common, averaged over their pairs.
    """
    return _correlation(_luck(observations)[:, :, output])[0]


def _shared(luck: Floats) -> Floats:
    """The correlation of the trials' errors, float64 [n, n], from [n, prompts]."""
    rho, together = _correlation(luck)
    counts = np.diag(together)
    overlap: Floats = together / np.sqrt(np.outer(counts, counts))
    return rho * overlap + (1 - rho) * np.eye(len(luck))


def _correlation(luck: Floats) -> tuple[float, Floats]:
    """The shared luck of trials [n, prompts], and how many prompts each two of them have in common [n, n]."""
    asked = ~np.isnan(luck)
    filled = np.where(asked, luck, 0.0)
    deviations = np.sqrt((filled**2).sum(axis=1) / asked.sum(axis=1))
    standard = filled / np.maximum(deviations, 1e-12)[:, None]
    together: Floats = asked.astype(np.float64) @ asked.T
    above = np.triu_indices(len(luck), k=1)
    pairs = float(together[above].sum())
    rho = float((standard @ standard.T)[above].sum()) / pairs if pairs else 0.0
    return min(max(rho, 0.0), 0.95), together


def _distances(logs: Floats, squares: Floats) -> tuple[Floats, Floats]:
    """Squared distances in units of the reaches: of lam for g, of all for h."""
    return squares[:, :, 0] * math.exp(-2 * logs[1]), squares @ np.exp(-2 * logs[3:])


def _matern(squares: Floats) -> tuple[Floats, Floats]:
    """Matern 5/2 at squared distances, and minus twice its slope by them."""
    far = np.sqrt(5 * squares)
    decay = np.exp(-far)
    return (1 + far + far**2 / 3) * decay, (5 / 3) * (1 + far) * decay


def _exp(values: Floats) -> Floats:
    found: Floats = np.exp(values)
    return found


def _expit(values: Floats) -> Floats:
    found: Floats = expit(values)
    return found


_NATURAL: dict[int, Callable[[Floats], Floats]] = {ACCURACY: _expit, TOKENS: _exp, THINK: _expit}
