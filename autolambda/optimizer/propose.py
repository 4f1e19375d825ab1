"""Proposals: which schedule to measure next, and on how many responses.

The ladder comes first: uniform lambdas that find the stages. Then the surrogate proposes, or one of Optuna's samplers.
These take every measurement as exact, so they get it at full size. The surrogate spreads its tokens evenly over the
trials that are left, and may ask for more responses of a measured schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from autolambda.optimizer import acquisition
from autolambda.optimizer.aims import Aims, allowance_of, targets_of
from autolambda.optimizer.finalists import portfolio_of
from autolambda.optimizer.ladder import LADDER_SHARE, is_known, next_lambda
from autolambda.optimizer.observations import THINK, Observation, Observations, cost_at, is_new, leading
from autolambda.optimizer.optuna_samplers import ask_optuna
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.space import ENDS, Space, free_params, is_between, to_schedule, uniform_lam, uniform_params
from autolambda.optimizer.surrogate import Surrogate, fit
from autolambda.optimizer.token_allowance import TokenAllowance
from autolambda.statistics.curve import CurvePoint

NUM_DRAWS = 256
LEAD = 0.01  # accuracy over the parents, from which a search uses all its trials
FEW_TRIALS = 10  # at least, if anything at all may be gained
NOTHING = 1e-4  # of accuracy
MOST_LOOK = 512  # responses of one trial after the ladder
NUM_HOPES = 30  # new points that are tried as finalists, by their hope; as many again at random

StopReason = Literal["trials", "tokens", "gain", "spaces"]


@dataclass(frozen=True)
class Proposal:
    """The params of a schedule, and which of its responses to measure: ``start`` to ``stop`` (exclusive)."""

    params: dict[str, float]
    start: int
    stop: int


@dataclass(frozen=True)
class Stop:
    """The search is over. ``gain`` is the expected gain in accuracy of one more trial (share of 1), if known."""

    reason: StopReason
    gain: float | None = None


def propose(observations: Observations, settings: SearchSettings, aims: Aims) -> Proposal | Stop:
    """Returns the next measurement, or why the search is over. Equal arguments give equal results."""
    if observations.num_trials >= settings.trials:
        return Stop("trials")
    allowance = allowance_of(observations.measured, settings, aims)
    if _is_on_ladder(observations, settings, allowance):
        return _ladder_proposal(observations, settings, aims)
    if settings.sampler != "surrogate":
        over = allowance is not None and observations.num_tokens >= allowance.search
        return Stop("tokens") if over else _optuna_proposal(observations, settings, aims)
    assert allowance is not None
    return _look_ahead(observations, settings, aims, allowance)


def on_the_ladder(observations: Observations, settings: SearchSettings, aims: Aims) -> bool:
    """Returns whether the next trial belongs to the ladder."""
    return _is_on_ladder(observations, settings, allowance_of(observations.measured, settings, aims))


def _is_on_ladder(observations: Observations, settings: SearchSettings, allowance: TokenAllowance | None) -> bool:
    """The ladder ends when the stages are known, or when its trials or its tokens are spent."""
    over = allowance is not None and observations.num_tokens > LADDER_SHARE * allowance.search
    if over or observations.num_trials >= settings.ladder:
        return False
    return not is_known([_curve_point(each) for each in _between(observations)])


def _optuna_proposal(observations: Observations, settings: SearchSettings, aims: Aims) -> Proposal | Stop:
    """Proposes a new schedule by one of Optuna's samplers, to be measured at full size.

    It comes from the first space that is not used up, beginning with the current one.
    """
    turn = observations.num_trials % len(settings.spaces)
    for space in (*settings.spaces[turn:], *settings.spaces[:turn]):
        params = ask_optuna(observations, settings, free=free_params(space, settings.knots), budget=aims.budget)
        if params is not None:
            return Proposal(params, 0, aims.rungs[-1])
    return Stop("spaces")


def _look_ahead(
    observations: Observations, settings: SearchSettings, aims: Aims, allowance: TokenAllowance
) -> Proposal | Stop:
    """Proposes by the surrogate: the finalist that is lacking most, or a Thompson sample, in turn.

    If no merge leads the parents, the search ends when no further finalist is expected to raise the accuracy of the
    answer by ``min_gain``.
    """
    step = observations.num_trials
    model = fit(observations, settings, guards=aims.guards, cap=aims.max_tokens)
    measured = leading(observations.measured, num_knots=settings.knots, beyond=settings.beyond)
    turn = _turn(settings, step)
    best = Stop("spaces")
    for space in dict.fromkeys([turn, *settings.spaces]):
        rng = np.random.default_rng([settings.seed, step, len(observations.failed), len(observations.censored)])
        look = _Look(space, model, measured, observations, settings, aims, allowance, rng)
        if look.pool:
            lack = look.lacking()
            goes_on = lack.lead >= max(LEAD, settings.min_gain) or (step < FEW_TRIALS and lack.gain > NOTHING)
            if lack.gain >= settings.min_gain or (goes_on and space == turn):
                is_filling = lack.gain >= settings.min_gain and (step % 2 == 0 or space != turn)
                return look.proposal(lack.index if is_filling else look.thompson(), lack.gain)
            best = Stop("gain", max(lack.gain, best.gain or 0.0))
    return best


@dataclass(frozen=True)
class _Lack:
    """The new point that the finalists lack most, by its index in a look.

    ``gain`` is by how much it would raise the accuracy of the answer, ``lead`` how far the answer is above the parents
    (shares of 1). Without a budget there are no parents to lead, and the lead counts as 1.
    """

    index: int
    gain: float
    lead: float


class _Look:
    """One look ahead: the measured schedules and the new points, with joint posterior samples of all."""

    def __init__(
        self,
        space: Space,
        model: Surrogate,
        measured: Sequence[Observation],
        observations: Observations,
        settings: SearchSettings,
        aims: Aims,
        allowance: TokenAllowance,
        rng: np.random.Generator,
    ) -> None:
        self._measured, self._observations, self._settings = measured, observations, settings
        self._aims, self._allowance, self._rng = aims, allowance, rng
        self.targets = targets_of(observations.measured, allowance, aims.budget)
        step, params_of = observations.num_trials, [each.params for each in measured]
        known = model.draw([each.schedule for each in measured], num_draws=NUM_DRAWS, seed=step)
        centres = acquisition.centres(known, params_of, self.targets)
        points = acquisition.candidates(free_params(space, settings.knots), settings.ranges, centres, rng)
        new = [params for params in points if is_new(params, observations)]
        self._schedules = [*(each.schedule for each in measured), *map(to_schedule, new)]
        draw = model.draw(self._schedules, num_draws=NUM_DRAWS, seed=step)
        kept = [*range(len(measured)), *(len(measured) + i for i in acquisition.distinct(draw, len(measured)))]
        self._draw = draw.at(kept)
        self._schedules = [self._schedules[index] for index in kept]
        self._params = [*params_of, *(new[index - len(measured)] for index in kept[len(measured) :])]
        left = allowance.search - observations.num_tokens
        stopped = {each.schedule for each in observations.censored}
        self.pool = [
            *(i for i, each in enumerate(measured) if _next_cost(each, aims) <= left and each.schedule not in stopped),
            *range(len(measured), len(kept)),
        ]

    def lacking(self) -> _Lack:
        """Returns the new point that the finalists lack most; without a budget, the one with the largest gain."""
        if self._aims.budget is None:
            gains = np.mean([acquisition.expected_gains(self._draw, target) for target in self.targets], axis=0)
            best = max(self.pool, key=lambda index: gains[index])
            return _Lack(best, float(gains[best]), 1.0)
        size = len(self._measured)
        portfolio = portfolio_of(
            self._draw,
            self._schedules,
            self._observations,
            self._settings,
            self._aims,
            self._allowance,
            spent=max(self._allowance.search, float(self._observations.num_tokens)),
        )
        merges = [index for index in range(size) if self._schedules[index] not in ENDS]
        chosen, worth = portfolio.best(merges, self._settings.finalists)
        lead = worth - portfolio.parents
        hopes = acquisition.chances(self._draw, self.targets[0]) * self._draw.accuracy.mean(axis=0)
        new = sorted((index for index in self.pool if index >= size), key=lambda index: -hopes[index])
        # the most hopeful, and some of the rest, whose hope lies in their uncertainty
        tried = [*new[:NUM_HOPES], *self._rng.permutation(new[NUM_HOPES:])[:NUM_HOPES].tolist()]
        chosen = chosen[: self._settings.finalists - 1]
        gains = {index: portfolio.value([*chosen, index]) - worth for index in tried}
        if not gains:
            return _Lack(self.pool[0], 0.0, lead)
        best = max(gains, key=lambda index: gains[index])
        return _Lack(best, max(gains[best], 0.0), lead)

    def thompson(self) -> int:
        """Returns the best point of the pool in one posterior sample."""
        target = self.targets[int(self._rng.integers(len(self.targets)))]
        within = self._draw.at(self.pool)
        index: int = self.pool[acquisition.thompson(within, target, index=int(self._rng.integers(NUM_DRAWS)))]
        return index

    def proposal(self, index: int, gain: float) -> Proposal | Stop:
        """Returns a measurement of a point with an even part of the tokens, unless too few are left."""
        start = self._measured[index].num_responses if index < len(self._measured) else 0
        left = self._allowance.search - self._observations.num_tokens
        cost = cost_at(self._observations.measured, float(self._draw.tokens[:, index].mean()))
        even = left / cost / (self._settings.trials - self._observations.num_trials)  # all looks cost alike
        size = min(max(int(even), self._aims.rungs[0]), MOST_LOOK)
        stop = min(start + size, self._aims.rungs[-1])
        if (stop - start) * cost > left:
            return Stop("tokens", gain)
        return Proposal(dict(self._params[index]), start, stop)


def _turn(settings: SearchSettings, step: int) -> Space:
    """Returns the first space for every second step, where the finalists are filled; the others in turn between."""
    first, *others = settings.spaces
    return others[step // 2 % len(others)] if others and step % 2 else first


def _next_cost(each: Observation, aims: Aims) -> float:
    """Returns the tokens of the next rung of a schedule; infinite if it is measured at full size."""
    stop = next((rung for rung in aims.rungs if rung > each.num_responses), None)
    return np.inf if stop is None else (stop - each.num_responses) * each.cost


def _ladder_proposal(observations: Observations, settings: SearchSettings, aims: Aims) -> Proposal:
    """Proposes the next uniform lambda, up to the first rung for the surrogate, else at full size."""
    curve = [(point.lam, point.think_ratio) for point in map(_curve_point, _between(observations))]
    failed_lams = {lam for params in observations.failed if (lam := uniform_lam(params)) is not None}
    size = aims.rungs[0] if settings.sampler == "surrogate" else aims.rungs[-1]
    return Proposal(uniform_params(next_lambda(curve, failed_lams), num_knots=settings.knots), 0, size)


def _between(observations: Observations) -> list[Observation]:
    """Returns the uniform schedules from one parent to the other, which the ladder is about."""
    return [each for each in observations.measured if is_between(each.lam)]


def _curve_point(each: Observation) -> CurvePoint:
    assert each.lam is not None
    return CurvePoint(each.lam, each.values[THINK], len(each.prompts))
