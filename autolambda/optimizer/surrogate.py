"""A noise-aware model of accuracy, mean tokens and Think ratio over schedules.

Each output is a Gaussian process of its own, on its own scale (log-odds, log tokens), whose noise is known and not
learnt: ``Cov(e_s, e_t) = se_s se_t (rho O_st + (1 - rho) [s = t])``. ``O_st`` is the overlap of the prompts of two
schedules, and ``rho`` the luck that schedules share on a prompt, estimated from the prompts that they have in common.
The accuracy on each guard task is one further process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit  # type: ignore[import-untyped]  # scipy ships no annotations

from autolambda.optimizer.gaussian_process import Floats, GaussianProcess
from autolambda.schedule import Schedule
from autolambda.statistics.estimates import Z_95

ACCURACY, TOKENS, THINK = OUTPUTS = range(3)
ENDS = (Schedule.uniform(0.0), Schedule.uniform(1.0))  # what stands for the parents in a search


Guards = tuple[tuple[str, float], ...]  # guard tasks, each with the accuracy (share of 1) that may be lost on it


@dataclass(frozen=True)
class Guarded:
    """The accuracy on a guard task with its standard error; ``prompts`` and ``luck`` [n] as in an ``Observation``."""

    value: float
    error: float
    prompts: NDArray[np.int64]
    luck: Floats


@dataclass(frozen=True)
class Observation:
    """What was measured of a schedule.

    ``values`` and ``errors`` are accuracy, mean tokens and Think ratio with their standard errors. ``prompts`` int64
    [n] are the numbers of the prompts that were asked, ``luck`` float64 [n, 3] by how much each prompt's means deviate
    from their task's, in the measure in which it counts. None of them is of a guard task: those are in ``guards``.
    """

    schedule: Schedule
    values: tuple[float, float, float]
    errors: tuple[float, float, float]
    prompts: NDArray[np.int64]
    luck: Floats
    guards: Mapping[str, Guarded] = field(default_factory=dict)


@dataclass(frozen=True)
class CensoredTrial:
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
class PosteriorSamples:
    """Joint draws from the posterior, float64 [draws, schedules] each.

    ``allowed`` bool [draws, schedules] says whether a schedule breaks no guard: whether on each guard task it loses no
    more against the better end, lambda 0 or 1 in the same draw, than it may.
    """

    accuracy: Floats
    tokens: Floats
    allowed: NDArray[np.bool_]


class Surrogate:
    """The three processes, fitted. The same observations give the same model."""

    def __init__(
        self,
        observations: Sequence[Observation],
        *,
        num_knots: int,
        censored: Sequence[CensoredTrial] = (),
        guards: Guards = (),
    ) -> None:
        """Fits the hyper-parameters: about 20 ms for 25 observations, a second for 200 in 12 dimensions."""
        self._num_knots = num_knots
        places = self._places([each.schedule for each in observations])
        luck = _luck([(each.prompts, each.luck) for each in observations])
        values, errors = (np.array([getattr(each, name) for each in observations]) for name in ("values", "errors"))
        self._processes = []
        for output in OUTPUTS:
            y, deviation = _scaled(output, values[:, output], errors[:, output])
            noise = np.outer(deviation, deviation) * _shared(luck[:, :, output])
            self._processes.append(GaussianProcess(places, y, noise))
        self._guards = [
            (max_drop, self._guard([(each, each.guards[name]) for each in observations if name in each.guards]))
            for name, max_drop in guards
            if any(name in each.guards for each in observations)
        ]
        if censored:
            floors = np.log([each.tokens for each in censored])
            self._processes[TOKENS].exceed(self._places([each.schedule for each in censored]), floors)

    def predict(self, schedules: Sequence[Schedule], output: int) -> Band:
        """One output at the schedules, without the noise of a measurement."""
        mean, variance = self._processes[output].marginal(self._places(schedules))
        reach = Z_95 * np.sqrt(variance)
        natural = _NATURAL[output]
        return Band(natural(mean), natural(mean - reach), natural(mean + reach))

    def draw(self, schedules: Sequence[Schedule], *, num_draws: int, seed: int) -> PosteriorSamples:
        """Accuracy, mean tokens and what the guards allow of all the schedules together, drawn from the posterior."""
        places, rng = self._places(schedules), np.random.default_rng(seed)
        drawn = [self._processes[output].draw(places, num_draws, rng) for output in (ACCURACY, TOKENS)]
        accuracy, tokens = (_NATURAL[output](each) for output, each in zip((ACCURACY, TOKENS), drawn, strict=True))
        return PosteriorSamples(accuracy, tokens, self._allowed(schedules, num_draws, rng))

    def _guard(self, seen: Sequence[tuple[Observation, Guarded]]) -> GaussianProcess:
        """The process of the accuracy on a guard task, from the observations that asked a prompt of it."""
        values, errors = (np.array([getattr(each, name) for _, each in seen]) for name in ("value", "error"))
        y, deviation = _scaled(ACCURACY, values, errors)
        luck = _luck([(each.prompts, each.luck[:, None]) for _, each in seen])
        noise = np.outer(deviation, deviation) * _shared(luck[:, :, 0])
        return GaussianProcess(self._places([observation.schedule for observation, _ in seen]), y, noise)

    def _allowed(self, schedules: Sequence[Schedule], num_draws: int, rng: np.random.Generator) -> NDArray[np.bool_]:
        """An end among the schedules is not drawn twice: the better one must lose nothing against itself."""
        allowed = np.ones((num_draws, len(schedules)), dtype=np.bool_)
        if self._guards:
            every = [*schedules, *(end for end in ENDS if end not in schedules)]
            ends = [every.index(end) for end in ENDS]
            places = self._places(every)
            for max_drop, process in self._guards:
                drawn = _expit(process.draw(places, num_draws, rng))
                better = drawn[:, ends].max(axis=1, keepdims=True)
                allowed &= drawn[:, : len(schedules)] >= better - max_drop
        return allowed

    def _places(self, schedules: Sequence[Schedule]) -> Floats:
        return np.array([place(schedule, num_knots=self._num_knots) for schedule in schedules])


@functools.lru_cache(maxsize=1 << 16)  # more than a study has: all are asked for again at each decision
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
    would, so that 0 and 1 are finite. The size is what the error says, which is never below Wilson's: that of a share
    of 0 or 1 is z / 2 / (n + z^2).
    """
    if output == TOKENS:
        return np.log(values), errors / values
    size = np.maximum(values * (1 - values) / errors**2, Z_95 / 2 / errors - Z_95**2)
    size = np.maximum(size, 1.0)
    drawn = (values * size + 0.5) / (size + 1)
    return logit(drawn), 1 / np.sqrt((size + 1) * drawn * (1 - drawn))


def _luck(seen: Sequence[tuple[NDArray[np.int64], Floats]]) -> Floats:
    """The luck of all, float64 [n, prompts, outputs], NaN where a prompt was not asked."""
    found = np.full((len(seen), max(int(prompts.max()) for prompts, _ in seen) + 1, seen[0][1].shape[1]), np.nan)
    for row, (prompts, luck) in zip(found, seen, strict=True):
        row[prompts] = luck
    return found


def prompt_correlation(observations: Sequence[Observation], output: int) -> float:
    """How much of the spread over prompts is that of the prompts themselves, whoever answers: 0 to 0.95.

    The correlation of the trials' luck over the prompts that they have in common, averaged over their pairs.
    """
    return _correlation(_luck([(each.prompts, each.luck) for each in observations])[:, :, output])[0]


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


def _exp(values: Floats) -> Floats:
    found: Floats = np.exp(values)
    return found


def _expit(values: Floats) -> Floats:
    found: Floats = expit(values)
    return found


_NATURAL: dict[int, Callable[[Floats], Floats]] = {ACCURACY: _expit, TOKENS: _exp, THINK: _expit}
