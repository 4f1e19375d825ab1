"""Proposals: which schedule to measure next, and on how many responses.

The ladder comes first: uniform lambdas that find the stages. Then the surrogate proposes, or one of Optuna's samplers.
These take every measurement as exact, so they get it at full size. The surrogate spreads its tokens evenly over the
trials that are left, and may ask for more responses of a measured schedule. It begins with looks far from the uniform
lambdas: a surrogate that knows these alone would stay beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autolambda.optimizer import acquisition
from autolambda.optimizer.aims import Aims, allowance_of, targets_of
from autolambda.optimizer.finalists import HOPELESS, portfolio_of
from autolambda.optimizer.ladder import ladder_proposal, on_the_ladder
from autolambda.optimizer.observations import Observation, Observations, Proposal, StopReason, cost_at, is_new, leading
from autolambda.optimizer.optuna_samplers import ask_optuna
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.space import ENDS, Params, Space, free_params, next_far, to_schedule, uniform_params
from autolambda.optimizer.surrogate import Surrogate, fit
from autolambda.optimizer.token_allowance import TokenAllowance

NUM_DRAWS = 256
LEAD = 0.01  # accuracy over the parents, from which a search uses all its trials
FEW_TRIALS = 10  # at least, if anything at all may be gained
NOTHING = 1e-4  # of accuracy
MOST_LOOK = 512  # responses of one trial after the ladder
NUM_HOPES = 30  # new points that are tried as finalists, by their hope; as many again at random


@dataclass(frozen=True)
class Stop:
    """The search is over. ``gain`` is the expected gain in accuracy of one more trial (share of 1), if known."""

    reason: StopReason
    gain: float | None = None


def propose(observations: Observations, settings: SearchSettings, aims: Aims) -> Proposal | Stop:
    """Returns the next measurement, or why the search is over. Equal arguments give equal results."""
    if observations.num_trials >= settings.trials:
        return Stop("trials")
    if on_the_ladder(observations, settings, aims):
        return ladder_proposal(observations, settings, aims)
    allowance = allowance_of(observations.measured, settings, aims)
    if settings.sampler != "surrogate":
        over = allowance is not None and observations.num_tokens >= allowance.search
        return Stop("tokens") if over else _optuna_proposal(observations, settings, aims)
    assert allowance is not None
    return _look_ahead(_Search(observations, settings, aims, allowance))


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


@dataclass(frozen=True)
class _Search:
    """What a proposal of the surrogate depends on."""

    observations: Observations
    settings: SearchSettings
    aims: Aims
    allowance: TokenAllowance

    @property
    def tokens_left(self) -> float:
        return self.allowance.search - self.observations.num_tokens

    def measurement(
        self, params: Params, *, tokens: float, start: int = 0, gain: float | None = None
    ) -> Proposal | Stop:
        """Returns a measurement of a point with an even part of the tokens, unless too few are left.

        ``tokens`` are its predicted mean tokens, ``start`` are its responses so far.
        """
        cost = cost_at(self.observations.measured, tokens)
        even = self.tokens_left / cost / (self.settings.trials - self.observations.num_trials)  # all looks cost alike
        size = min(max(int(even), self.aims.rungs[0]), MOST_LOOK)
        stop = min(start + size, self.aims.rungs[-1])
        if (stop - start) * cost > self.tokens_left:
            return Stop("tokens", gain)
        return Proposal(dict(params), start, stop)


def _look_ahead(search: _Search) -> Proposal | Stop:
    """Proposes by the surrogate: the finalist that is lacking most, or a Thompson sample, in turn.

    If no merge leads the parents, the search ends when no further finalist is expected to raise the accuracy of the
    answer by ``min_gain``.
    """
    observations, settings, aims = search.observations, search.settings, search.aims
    step = observations.num_trials
    model = fit(observations, settings, guards=aims.guards, cap=aims.max_tokens)
    measured = leading(observations.measured, num_knots=settings.knots, beyond=settings.beyond)
    if far := _far_look(search, model, measured):
        return far
    turn, best = _turn(settings, step), Stop("spaces")
    for space in dict.fromkeys([turn, *settings.spaces]):
        rng = np.random.default_rng([settings.seed, step, len(observations.failed), len(observations.censored)])
        look = _Look(space, model, measured, search, rng)
        if look.pool:
            lack = look.lacking()
            goes_on = lack.lead >= max(LEAD, settings.min_gain) or (step < FEW_TRIALS and lack.gain > NOTHING)
            if lack.gain >= settings.min_gain or (goes_on and space == turn):
                is_filling = lack.gain >= settings.min_gain and (step % 2 == 0 or space != turn)
                return look.proposal(lack.index if is_filling else look.thompson(), lack.gain)
            best = Stop("gain", max(lack.gain, best.gain or 0.0))
    return best


def _far_look(search: _Search, model: Surrogate, measured: Sequence[Observation]) -> Proposal | Stop | None:
    """Proposes the next look far from the uniform lambdas, from the surest merge on the line; ``None`` after the last.

    A surrogate that knows uniform lambdas alone predicts the same far from them, and would stay beside them.
    Where nothing measured may be within the budget, there are no such looks.
    """
    known, settings = search.observations, search.settings
    tried = [each.schedule for some in (known.measured, known.censored) for each in some]
    if (far := next_far([*tried, *map(to_schedule, known.failed)], settings.spaces)) is None:
        return None
    line = [each for each in measured if each.schedule.is_on_line]
    draw = model.draw([each.schedule for each in line], num_draws=NUM_DRAWS, seed=0)
    targets = targets_of(known.measured, search.allowance, search.aims.budget)
    target = targets[len(targets) // 2]  # without a budget, one from the middle of the front
    if acquisition.chances(draw, target).max() < HOPELESS:
        return None
    merges = [index for index, each in enumerate(line) if each.schedule not in ENDS]
    surest = line[merges[acquisition.surest(draw.at(merges), target)]].params if merges else None
    params = {**(surest or uniform_params(0.5, num_knots=settings.knots)), **far}
    tokens = float(model.draw([to_schedule(params)], num_draws=NUM_DRAWS, seed=0).tokens.mean())
    return search.measurement(params, tokens=tokens)


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
        search: _Search,
        rng: np.random.Generator,
    ) -> None:
        self._measured, self._search, self._rng = measured, search, rng
        observations, settings, aims = search.observations, search.settings, search.aims
        self.targets = targets_of(observations.measured, search.allowance, aims.budget)
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
        stopped = {each.schedule for each in observations.censored}
        going = [each.schedule not in stopped and _next_cost(each, aims) <= search.tokens_left for each in measured]
        self.pool = [*np.flatnonzero(going).tolist(), *range(len(measured), len(kept))]

    def lacking(self) -> _Lack:
        """Returns the new point that the finalists lack most; without a budget, the one with the largest gain."""
        search = self._search
        if search.aims.budget is None:
            gains = np.mean([acquisition.expected_gains(self._draw, target) for target in self.targets], axis=0)
            best = max(self.pool, key=lambda index: gains[index])
            return _Lack(best, float(gains[best]), 1.0)
        size = len(self._measured)
        portfolio = portfolio_of(
            self._draw,
            self._schedules,
            search.observations,
            search.settings,
            search.aims,
            search.allowance,
            spent=max(search.allowance.search, float(search.observations.num_tokens)),
        )
        merges = [index for index in range(size) if self._schedules[index] not in ENDS]
        chosen, worth = portfolio.best(merges, search.settings.finalists)
        lead = worth - portfolio.parents
        hopes = acquisition.chances(self._draw, self.targets[0]) * self._draw.accuracy.mean(axis=0)
        new = sorted((index for index in self.pool if index >= size), key=lambda index: -hopes[index])
        # the most hopeful, and some of the rest, whose hope lies in their uncertainty
        tried = [*new[:NUM_HOPES], *self._rng.permutation(new[NUM_HOPES:])[:NUM_HOPES].tolist()]
        chosen = chosen[: search.settings.finalists - 1]
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
        """Returns a measurement of a point, or of more responses of a measured one."""
        start = self._measured[index].num_responses if index < len(self._measured) else 0
        tokens = float(self._draw.tokens[:, index].mean())
        return self._search.measurement(self._params[index], tokens=tokens, start=start, gain=gain)


def _turn(settings: SearchSettings, step: int) -> Space:
    """Returns the first space for every second step, where the finalists are filled; the others in turn between."""
    first, *others = settings.spaces
    return others[step // 2 % len(others)] if others and step % 2 else first


def _next_cost(each: Observation, aims: Aims) -> float:
    """Returns the tokens of the next rung of a schedule; infinite if it is measured at full size."""
    stop = next((rung for rung in aims.rungs if rung > each.num_responses), None)
    return np.inf if stop is None else (stop - each.num_responses) * each.cost
