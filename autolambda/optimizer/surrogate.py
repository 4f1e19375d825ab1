"""A noise-aware model of accuracy, mean tokens and Think ratio over schedules.

Accuracy and mean tokens are mixtures over the modes of the responses: ``E[x] = pi E[x | thinking] + (1 - pi) E[x |
direct]`` with the Think ratio pi. A cliff lies in pi alone, so the modes' curves are smooth and need few measurements.
The logit of pi, and the accuracy and log tokens of each mode, are Gaussian processes. Their noise is known:
``Cov(e_s, e_t) = se_s se_t (rho O_st + (1 - rho) [s = t])``. ``O_st`` is the overlap of the prompts of s and t.
``rho`` is the prompt correlation: schedules that answer the same prompts share a random effect of each prompt. It is
estimated from the prompts that they have in common. The accuracy on each guard task is another process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit  # type: ignore[import-untyped]  # scipy ships no annotations

from autolambda.optimizer.gaussian_process import GaussianProcess
from autolambda.optimizer.observations import (
    ACCURACY,
    MODES,
    MOST_POINTS,
    THINK,
    TOKENS,
    CensoredTrial,
    Observation,
    Observations,
    PartObservation,
    leading,
)
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.space import ENDS, features
from autolambda.schedule import Schedule
from autolambda.statistics.estimates import Z_95, Floats

_BAND_DRAWS = 512
_LEAST_UNITS = (0.06, 0.3, 0.3)  # of accuracy, log tokens and logit Think ratio: the least scale of a curve
_POOLED_SIZE = 30.0  # prompts: the weight of the mean variance in each schedule's own
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

    def at(self, indices: Sequence[int]) -> PosteriorSamples:
        """Returns the draws of some of the schedules."""
        return PosteriorSamples(self.accuracy[:, indices], self.tokens[:, indices], self.allowed[:, indices])


@dataclass(frozen=True)
class _Seen:
    """One output of one schedule: its value, its standard error, and the prompt effects float64 [prompts]."""

    schedule: Schedule
    value: float
    error: float
    prompts: NDArray[np.int64]
    effects: Floats

    @classmethod
    def of(cls, each: Observation, part: Observation | PartObservation, output: int) -> _Seen:
        """Returns an output of an observation, or of a ``part`` of it."""
        effects = part.prompt_effects[:, output]
        return cls(each.schedule, part.values[output], part.errors[output], part.prompts, effects)


class Surrogate:
    """The fitted processes. Equal observations give equal models."""

    def __init__(
        self,
        observations: Sequence[Observation],
        *,
        num_knots: int,
        beyond: bool = False,
        censored: Sequence[CensoredTrial] = (),
        guards: Guards = (),
        cap: float = math.inf,
    ) -> None:
        """Fits the hyper-parameters. No predicted response is longer than ``cap`` tokens."""
        self._num_knots, self._beyond, self._cap = num_knots, beyond, cap
        self._think = self._process(THINK, [_Seen.of(each, each, THINK) for each in observations])
        modes = [[(each, side) for each in observations if (side := getattr(each, name))] for name in MODES]
        if not all(modes):  # all responses are of one mode
            modes = [[(each, each) for each in observations]]
        self._modes = [
            [self._process(output, [_Seen.of(*pair, output) for pair in mode]) for output in (ACCURACY, TOKENS)]
            for mode in modes
        ]
        self._guards = [
            (max_drop, self._process(ACCURACY, seen))
            for name, max_drop in guards
            if (seen := [_Seen.of(each, each.guards[name], 0) for each in observations if name in each.guards])
        ]
        for trial in censored:
            self._exceed(trial)

    def _process(self, output: int, seen: Sequence[_Seen]) -> GaussianProcess:
        values, errors = (np.array([getattr(each, name) for each in seen]) for name in ("value", "error"))
        sizes = np.array([len(each.prompts) for each in seen], dtype=np.float64)
        y, deviation = _scaled(output, values, errors, sizes)
        effects = _effects([(each.prompts, each.effects) for each in seen])
        noise = np.outer(deviation, deviation) * _error_correlation(effects)
        points = self._features([each.schedule for each in seen])
        return GaussianProcess(points, y, noise, least_unit=_LEAST_UNITS[output])

    def _exceed(self, trial: CensoredTrial) -> None:
        """Adds a lower bound on the mean tokens of a schedule, as a bound of the Think ratio or of a mode's tokens."""
        at = self._features([trial.schedule])
        medians = [float(np.exp(mode[TOKENS].marginal(at)[0][0])) for mode in self._modes]
        if trial.tokens >= medians[-1] or len(medians) == 1:
            self._modes[-1][TOKENS].exceed(at, np.log([trial.tokens]))
        elif trial.tokens > medians[0]:
            ratio = (trial.tokens - medians[0]) / (medians[1] - medians[0])
            self._think.exceed(at, logit(np.array([ratio])))

    def predict(self, schedules: Sequence[Schedule], output: int) -> Band:
        """Predicts one output at the schedules, without measurement noise."""
        if output == THINK:
            mean, variance = self._think.marginal(self._features(schedules))
            reach = Z_95 * np.sqrt(variance)
            return Band(expit(mean), expit(mean - reach), expit(mean + reach))
        draw = self.draw(schedules, num_draws=_BAND_DRAWS, seed=0)
        drawn = draw.accuracy if output == ACCURACY else draw.tokens
        low, middle, high = np.quantile(drawn, (0.025, 0.5, 0.975), axis=0)
        return Band(middle, low, high)

    def draw(self, schedules: Sequence[Schedule], *, num_draws: int, seed: int) -> PosteriorSamples:
        """Draws accuracy, mean tokens and ``allowed`` jointly at all schedules."""
        points, rng = self._features(schedules), np.random.default_rng(seed)
        modes = []
        for right, length in self._modes:
            drawn = np.clip(right.draw(points, num_draws, rng), 0.0, 1.0)
            modes.append((drawn, np.minimum(np.exp(length.draw(points, num_draws, rng)), self._cap)))
        if len(modes) == 1:
            accuracy, tokens = modes[0]
        else:
            think = expit(self._think.draw(points, num_draws, rng))
            accuracy, tokens = ((1 - think) * modes[0][out] + think * modes[1][out] for out in (ACCURACY, TOKENS))
        return PosteriorSamples(accuracy, tokens, self._allowed(schedules, num_draws, rng))

    def _allowed(self, schedules: Sequence[Schedule], num_draws: int, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Draws lambda 0 and 1 only once, so that neither is compared with another draw of itself."""
        allowed = np.ones((num_draws, len(schedules)), dtype=np.bool_)
        if self._guards:
            every = [*schedules, *(end for end in ENDS if end not in schedules)]
            ends = [every.index(end) for end in ENDS]
            points = self._features(every)
            for max_drop, process in self._guards:
                drawn = np.clip(process.draw(points, num_draws, rng), 0.0, 1.0)
                better = drawn[:, ends].max(axis=1, keepdims=True)
                allowed &= drawn[:, : len(schedules)] >= better - max_drop
        return allowed

    def _features(self, schedules: Sequence[Schedule]) -> Floats:
        return np.array([features(schedule, num_knots=self._num_knots, beyond=self._beyond) for schedule in schedules])


def fit(
    observations: Observations, settings: SearchSettings, *, guards: Guards = (), cap: float = math.inf
) -> Surrogate:
    """Fits a surrogate to the leading observations and the latest censored trials."""
    censored = observations.censored[-MOST_POINTS // 2 :]
    measured = leading(observations.measured, num_knots=settings.knots, beyond=settings.beyond)
    return Surrogate(
        measured, num_knots=settings.knots, beyond=settings.beyond, censored=censored, guards=guards, cap=cap
    )


def _scaled(output: int, values: Floats, errors: Floats, sizes: Floats) -> tuple[Floats, Floats]:
    """Returns values and standard errors on the scale of the output: accuracy itself, log tokens, logit Think ratio.

    Own variances are pooled over schedules, because a lucky value often has too small an error. ``sizes`` are the
    numbers of prompts. Think ratios are moved towards one half, as if half a response of each kind were added. So 0 and
    1 stay finite. The effective sample size follows from the error, which is never below Wilson's: z / 2 / (n + z^2).
    """
    if output == ACCURACY:
        return values, _pooled(errors, sizes)
    if output == TOKENS:
        return np.log(values), _pooled(errors / values, sizes)
    size = np.maximum(values * (1 - values) / errors**2, Z_95 / 2 / errors - Z_95**2)
    size = np.maximum(size, 1.0)
    drawn = (values * size + 0.5) / (size + 1)
    return logit(drawn), 1 / np.sqrt((size + 1) * drawn * (1 - drawn))


def _pooled(errors: Floats, sizes: Floats) -> Floats:
    """Returns standard errors whose variances per prompt lean on their mean over all schedules."""
    variances = errors**2 * sizes
    mean = np.average(variances, weights=sizes)
    pooled: Floats = np.sqrt((sizes * variances + _POOLED_SIZE * mean) / (sizes + _POOLED_SIZE) / sizes)
    return pooled


def _effects(seen: Sequence[tuple[NDArray[np.int64], Floats]]) -> Floats:
    """Returns all prompt effects, float64 [n, prompts]. NaN marks a prompt that a schedule did not answer."""
    table = np.full((len(seen), max(int(prompts.max()) for prompts, _ in seen) + 1), np.nan)
    for row, (prompts, effects) in zip(table, seen, strict=True):
        row[prompts] = effects
    return table


def prompt_correlation(observations: Sequence[Observation], output: int) -> float:
    """Returns the share of the spread over prompts that schedules have in common, 0 to 0.95.

    It is the correlation of the prompt effects of two schedules on their common prompts, averaged over all pairs.
    """
    return _correlation(_effects([(each.prompts, each.prompt_effects[:, output]) for each in observations]))[0]


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
