"""A noise-aware model of accuracy, mean tokens and Think ratio over schedules.

Each output is a Gaussian process on a log-odds or log scale. Its noise is known and not learnt:
``Cov(e_s, e_t) = se_s se_t (rho O_st + (1 - rho) [s = t])``. ``O_st`` is the overlap of the prompts of s and t.
``rho`` is the prompt correlation: schedules that answer the same prompts share a random effect of each prompt. It is
estimated from the prompts that they have in common. The accuracy on each guard task is another process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit  # type: ignore[import-untyped]  # scipy ships no annotations

from autolambda.optimizer.gaussian_process import GaussianProcess
from autolambda.optimizer.observations import (
    ACCURACY,
    MOST_POINTS,
    OUTPUTS,
    THINK,
    TOKENS,
    CensoredTrial,
    GuardObservation,
    Observation,
    Observations,
    leading,
)
from autolambda.optimizer.space import ENDS, features
from autolambda.schedule import Schedule
from autolambda.statistics.estimates import Z_95, Floats

Guards = tuple[tuple[str, float], ...]  # guard tasks, each with the accuracy (share of 1) that may be lost on it


@dataclass(frozen=True)
class Band:
    """A prediction on the natural scale: the median and its central 95 % interval, float64 [schedules] each."""

    value: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class PosteriorSamples:
    """Joint draws from the posterior, float64 [draws, schedules] each.

    ``allowed`` bool [draws, schedules] says whether a schedule breaks no guard. On each guard task it is compared with
    the better of lambda 0 and lambda 1 in the same draw.
    """

    accuracy: Floats
    tokens: Floats
    allowed: NDArray[np.bool_]


class Surrogate:
    """The fitted processes. Equal observations give equal models."""

    def __init__(
        self,
        observations: Sequence[Observation],
        *,
        num_knots: int,
        censored: Sequence[CensoredTrial] = (),
        guards: Guards = (),
    ) -> None:
        """Fits the hyper-parameters: about 20 ms for 25 observations, one second for 200 in 12 dimensions."""
        self._num_knots = num_knots
        points = self._features([each.schedule for each in observations])
        effects = _effects([(each.prompts, each.prompt_effects) for each in observations])
        values, errors = (np.array([getattr(each, name) for each in observations]) for name in ("values", "errors"))
        self._processes = []
        for output in OUTPUTS:
            y, deviation = _scaled(output, values[:, output], errors[:, output])
            noise = np.outer(deviation, deviation) * _error_correlation(effects[:, :, output])
            self._processes.append(GaussianProcess(points, y, noise))
        self._guards = [
            (max_drop, self._guard([(each, each.guards[name]) for each in observations if name in each.guards]))
            for name, max_drop in guards
            if any(name in each.guards for each in observations)
        ]
        if censored:
            floors = np.log([each.tokens for each in censored])
            self._processes[TOKENS].exceed(self._features([each.schedule for each in censored]), floors)

    def predict(self, schedules: Sequence[Schedule], output: int) -> Band:
        """Predicts one output at the schedules, without measurement noise."""
        mean, variance = self._processes[output].marginal(self._features(schedules))
        reach = Z_95 * np.sqrt(variance)
        natural = _NATURAL[output]
        return Band(natural(mean), natural(mean - reach), natural(mean + reach))

    def draw(self, schedules: Sequence[Schedule], *, num_draws: int, seed: int) -> PosteriorSamples:
        """Draws accuracy, mean tokens and ``allowed`` jointly at all schedules."""
        points, rng = self._features(schedules), np.random.default_rng(seed)
        drawn = [self._processes[output].draw(points, num_draws, rng) for output in (ACCURACY, TOKENS)]
        accuracy, tokens = (_NATURAL[output](each) for output, each in zip((ACCURACY, TOKENS), drawn, strict=True))
        return PosteriorSamples(accuracy, tokens, self._allowed(schedules, num_draws, rng))

    def _guard(self, seen: Sequence[tuple[Observation, GuardObservation]]) -> GaussianProcess:
        """Fits the accuracy on a guard task to the observations that hold prompts of it."""
        values, errors = (np.array([getattr(each, name) for _, each in seen]) for name in ("value", "error"))
        y, deviation = _scaled(ACCURACY, values, errors)
        effects = _effects([(each.prompts, each.prompt_effects[:, None]) for _, each in seen])
        noise = np.outer(deviation, deviation) * _error_correlation(effects[:, :, 0])
        return GaussianProcess(self._features([observation.schedule for observation, _ in seen]), y, noise)

    def _allowed(self, schedules: Sequence[Schedule], num_draws: int, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Draws lambda 0 and 1 only once, so that neither is compared with another draw of itself."""
        allowed = np.ones((num_draws, len(schedules)), dtype=np.bool_)
        if self._guards:
            every = [*schedules, *(end for end in ENDS if end not in schedules)]
            ends = [every.index(end) for end in ENDS]
            points = self._features(every)
            for max_drop, process in self._guards:
                drawn = _NATURAL[ACCURACY](process.draw(points, num_draws, rng))
                better = drawn[:, ends].max(axis=1, keepdims=True)
                allowed &= drawn[:, : len(schedules)] >= better - max_drop
        return allowed

    def _features(self, schedules: Sequence[Schedule]) -> Floats:
        return np.array([features(schedule, num_knots=self._num_knots) for schedule in schedules])


def fit(observations: Observations, num_knots: int, *, guards: Guards = ()) -> Surrogate:
    """Fits a surrogate to the leading observations and the latest censored trials."""
    censored = observations.censored[-MOST_POINTS // 2 :]
    measured = leading(observations.measured, num_knots=num_knots)
    return Surrogate(measured, num_knots=num_knots, censored=censored, guards=guards)


def _scaled(output: int, values: Floats, errors: Floats) -> tuple[Floats, Floats]:
    """Returns values and standard errors on the scale of the output (delta method).

    Shares are moved towards one half, as if half a right and half a wrong response were added. So 0 and 1 stay finite.
    The effective sample size follows from the error, which is never below Wilson's: z / 2 / (n + z^2) at 0 and 1.
    """
    if output == TOKENS:
        return np.log(values), errors / values
    size = np.maximum(values * (1 - values) / errors**2, Z_95 / 2 / errors - Z_95**2)
    size = np.maximum(size, 1.0)
    drawn = (values * size + 0.5) / (size + 1)
    return logit(drawn), 1 / np.sqrt((size + 1) * drawn * (1 - drawn))


def _effects(seen: Sequence[tuple[NDArray[np.int64], Floats]]) -> Floats:
    """Returns all prompt effects, float64 [n, prompts, outputs]. NaN marks a prompt that a schedule did not answer."""
    table = np.full((len(seen), max(int(prompts.max()) for prompts, _ in seen) + 1, seen[0][1].shape[1]), np.nan)
    for row, (prompts, effects) in zip(table, seen, strict=True):
        row[prompts] = effects
    return table


def prompt_correlation(observations: Sequence[Observation], output: int) -> float:
    """Returns the share of the spread over prompts that schedules have in common, 0 to 0.95.

    It is the correlation of the prompt effects of two schedules on their common prompts, averaged over all pairs.
    """
    return _correlation(_effects([(each.prompts, each.prompt_effects) for each in observations])[:, :, output])[0]


def _error_correlation(effects: Floats) -> Floats:
    """Returns the correlation of the errors, float64 [n, n], from the prompt effects [n, prompts]."""
    rho, together = _correlation(effects)
    counts = np.diag(together)
    overlap: Floats = together / np.sqrt(np.outer(counts, counts))
    return rho * overlap + (1 - rho) * np.eye(len(effects))


def _correlation(effects: Floats) -> tuple[float, Floats]:
    """Returns the prompt correlation from [n, prompts], and the number of common prompts of each pair [n, n]."""
    asked = ~np.isnan(effects)
    filled = np.where(asked, effects, 0.0)
    deviations = np.sqrt((filled**2).sum(axis=1) / asked.sum(axis=1))
    standard = filled / np.maximum(deviations, 1e-12)[:, None]
    together: Floats = asked.astype(np.float64) @ asked.T
    above = np.triu_indices(len(effects), k=1)
    pairs = float(together[above].sum())
    rho = float((standard @ standard.T)[above].sum()) / pairs if pairs else 0.0
    return min(max(rho, 0.0), 0.95), together


_NATURAL: dict[int, Callable[[Floats], Floats]] = {ACCURACY: expit, TOKENS: np.exp, THINK: expit}
