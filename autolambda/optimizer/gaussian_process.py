"""A Gaussian process over schedules with known noise: ``y = g(lam) + h(x) + u + e``, where e has a given covariance.

g and h have Matern 5/2 kernels; h has one length scale for each dimension. u is each schedule's own deviation from the
smooth curves, as on a cliff that is steeper than these can be. The hyper-parameters are the most probable ones under
log-normal priors (Rasmussen & Williams 2006, chapters 2, 4 and 5).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular  # type: ignore[import-untyped]  # no annotations
from scipy.optimize import minimize  # type: ignore[import-untyped]
from scipy.special import log_ndtr  # type: ignore[import-untyped]

from autolambda.statistics.estimates import Floats

_JITTER = 1e-8
_CONSTANT = 4.0  # prior variance of the mean level, on standardised outputs
# Normal priors (mean, deviation) of the logs of the hyper-parameters: scale of u, scale and length scale of g, then h.
_PRIORS = ((math.log(0.15), 0.7), (0.0, 0.7), (math.log(0.4), 0.5), (math.log(0.3), 0.7), (math.log(0.6), 0.6))
_OWN, _SCALE_LAM, _REACH_LAM, _SCALE_ALL, _REACH_ALL = range(5)
_MOST_STEPS = 40  # of the optimiser


class GaussianProcess:
    """A Gaussian process with a known noise covariance, at its most probable hyper-parameters."""

    def __init__(self, points: Floats, y: Floats, noise: Floats, *, least_unit: float = 0.3) -> None:
        """Fits the hyper-parameters to ``points`` float64 [n, d], ``y`` [n] and their ``noise`` covariance [n, n]."""
        self._level, self._unit = float(y.mean()), max(float(y.std()), least_unit)
        self._points, self._y, self._noise = points, (y - self._level) / self._unit, noise / self._unit**2
        prior = np.array([*_PRIORS[:_REACH_ALL], *([_PRIORS[_REACH_ALL]] * points.shape[1])])
        active = np.array([*([True] * _REACH_ALL), *(np.ptp(points, axis=0) > 0)])
        squares = (points[:, None, :] - points[None, :, :]) ** 2

        def loss(free: Floats) -> tuple[float, Floats]:
            logs = prior[:, 0].copy()
            logs[active] = free
            value, gradient = self._loss(logs, squares)
            pulls = (logs - prior[:, 0]) / prior[:, 1]
            return value + float(pulls @ pulls) / 2, (gradient + pulls / prior[:, 1])[active]

        start = prior[active, 0]
        reach = 3 * prior[active, 1]
        bounds = np.stack([start - reach, start + reach], axis=1)
        result = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _MOST_STEPS})
        self._logs = prior[:, 0].copy()
        self._logs[active] = result.x
        self._condition()

    def exceed(self, points: Floats, floors: Floats) -> None:
        """Adds lower bounds ``floors`` [m] at ``points`` [m, d], each by the moments of a truncated normal."""
        for at, floor in zip(points, (floors - self._level) / self._unit, strict=True):
            mean, variance = (float(each[0]) for each in self._moments(at[None]))
            deviation = math.sqrt(variance)
            depth = (mean - floor) / deviation
            ratio = math.exp(-depth * depth / 2 - 0.5 * math.log(2 * math.pi) - float(log_ndtr(depth)))
            moved, kept = mean + deviation * ratio, variance * max(1 - ratio * (ratio + depth), 1e-3)
            precision = 1 / kept - 1 / variance
            if precision > 1e-6:  # otherwise the bound says nothing new
                value = (moved / kept - mean / variance) / precision
                size = len(self._y)
                noise = np.zeros((size + 1, size + 1))
                noise[:size, :size], noise[size, size] = self._noise, 1 / precision
                self._points, self._y, self._noise = np.vstack([self._points, at]), np.append(self._y, value), noise
                self._condition()

    def marginal(self, points: Floats) -> tuple[Floats, Floats]:
        """Returns mean and variance at ``points`` [m, d], float64 [m] each."""
        mean, variance = self._moments(points)
        return self._level + self._unit * mean, self._unit**2 * variance

    def draw(self, points: Floats, num_draws: int, rng: np.random.Generator) -> Floats:
        """Returns joint draws at ``points`` [m, d], float64 [num_draws, m]."""
        cross = self._kernel(points, self._points)
        half = solve_triangular(self._factor, cross.T, lower=True)
        covariance = self._kernel(points, points) - half.T @ half
        covariance[np.diag_indices_from(covariance)] += 1e-6
        root = cholesky(covariance, lower=True)
        standard: Floats = cross @ self._weights + rng.standard_normal((num_draws, len(points))) @ root.T
        return self._level + self._unit * standard

    def _moments(self, points: Floats) -> tuple[Floats, Floats]:
        cross = self._kernel(points, self._points)
        half = solve_triangular(self._factor, cross.T, lower=True)
        scales = np.exp(2 * self._logs[[_OWN, _SCALE_LAM, _SCALE_ALL]]).sum() + _CONSTANT
        return cross @ self._weights, np.maximum(scales - np.einsum("ij,ij->j", half, half), 1e-12)

    def _condition(self) -> None:
        covariance = self._kernel(self._points, self._points) + self._noise
        covariance[np.diag_indices_from(covariance)] += _JITTER
        self._factor = cholesky(covariance, lower=True)
        self._weights = cho_solve((self._factor, True), self._y)

    def _kernel(self, left: Floats, right: Floats) -> Floats:
        squares = (left[:, None, :] - right[None, :, :]) ** 2
        lam, rest = _distances(self._logs, squares)
        own, *scales = np.exp(2 * self._logs[[_OWN, _SCALE_LAM, _SCALE_ALL]])
        kernel: Floats = _CONSTANT + scales[0] * _matern(lam)[0] + scales[1] * _matern(rest)[0] + own * _same(squares)
        return kernel

    def _loss(self, logs: Floats, squares: Floats) -> tuple[float, Floats]:
        """Returns the negative log likelihood and its gradient; ``squares`` [n, n, d] are squared distances."""
        own, *scales = np.exp(2 * logs[[_OWN, _SCALE_LAM, _SCALE_ALL]])
        reaches = np.exp(-2 * np.append(logs[_REACH_LAM], logs[_REACH_ALL:]))
        lam, rest = _distances(logs, squares)
        (near_lam, fall_lam), (near_rest, fall_rest) = _matern(lam), _matern(rest)
        same = _same(squares)
        covariance = _CONSTANT + scales[0] * near_lam + scales[1] * near_rest + own * same + self._noise
        covariance[np.diag_indices_from(covariance)] += _JITTER
        factor = cholesky(covariance, lower=True)
        weights = cho_solve((factor, True), self._y)
        value = float(self._y @ weights) / 2 + float(np.log(np.diag(factor)).sum())
        pull = cho_solve((factor, True), np.eye(len(self._y))) - np.outer(weights, weights)
        gradient = np.empty(len(logs))
        gradient[_OWN] = own * float((pull * same).sum())
        gradient[_SCALE_LAM] = scales[0] * float((pull * near_lam).sum())
        gradient[_REACH_LAM] = scales[0] * reaches[0] * float((pull * fall_lam * squares[:, :, 0]).sum()) / 2
        gradient[_SCALE_ALL] = scales[1] * float((pull * near_rest).sum())
        gradient[_REACH_ALL:] = scales[1] * reaches[1:] * np.einsum("ij,ijk->k", pull * fall_rest, squares) / 2
        return value, gradient


def _distances(logs: Floats, squares: Floats) -> tuple[Floats, Floats]:
    """Returns squared distances in units of the length scales: of lam for g, of all features for h."""
    return squares[:, :, 0] * math.exp(-2 * logs[_REACH_LAM]), squares @ np.exp(-2 * logs[_REACH_ALL:])


def _same(squares: Floats) -> Floats:
    """Returns 1 where two points are equal, else 0."""
    same: Floats = (squares.sum(axis=-1) == 0).astype(np.float64)
    return same


def _matern(squares: Floats) -> tuple[Floats, Floats]:
    """Returns Matern 5/2 at squared distances, and minus twice its derivative with respect to them."""
    far = np.sqrt(5 * squares)
    decay = np.exp(-far)
    return (1 + far + far**2 / 3) * decay, (5 / 3) * (1 + far) * decay
