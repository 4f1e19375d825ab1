"""Proposals: which schedule to measure next, and on how many responses.

The ladder comes first: uniform lambdas that find the stages. Then the surrogate proposes, or one of Optuna's samplers.
These take every measurement as exact, so they get it at full size. The surrogate starts with few responses and may ask
for more, up to the next rung. A rung is a number of responses at which a measurement may pause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from autolambda.optimizer import acquisition
from autolambda.optimizer.acquisition import Target
from autolambda.optimizer.aims import Aims, allowance_of, spread_at, targets_of
from autolambda.optimizer.ladder import is_known, next_lambda
from autolambda.optimizer.observations import (
    THINK,
    TOKENS,
    Observation,
    Observations,
    cost_at,
    is_tried,
    leading,
)
from autolambda.optimizer.optuna_samplers import ask_optuna
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.space import Params, Space, free_params, ranges, to_schedule, uniform_lam, uniform_params
from autolambda.optimizer.surrogate import PosteriorSamples, Surrogate, fit
from autolambda.optimizer.token_allowance import TokenAllowance
from autolambda.statistics.curve import CurvePoint

NUM_DRAWS = 64
NUM_CENTRES = 2  # schedules around which new ones are proposed
LADDER_SHARE = 0.5  # of the tokens of the search

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
    return not is_known([_curve_point(each) for each in observations.measured if each.lam is not None])


def _optuna_proposal(observations: Observations, settings: SearchSettings, aims: Aims) -> Proposal | Stop:
    """Proposes a new schedule by one of Optuna's samplers, to be measured at full size.

    It comes from the first space that is not used up, beginning with the current one.
    """
    turn = settings.spaces.index(_space(observations, settings, None))
    for space in (*settings.spaces[turn:], *settings.spaces[:turn]):
        params = ask_optuna(observations, settings, free=free_params(space, settings.knots), budget=aims.budget)
        if params is not None:
            return Proposal(params, 0, aims.rungs[-1])
    return Stop("spaces")


def _look_ahead(
    observations: Observations, settings: SearchSettings, aims: Aims, allowance: TokenAllowance
) -> Proposal | Stop:
    """Proposes by the surrogate, in the first space with enough expected gain, beginning with the current one."""
    model = fit(observations, settings.knots, guards=aims.guards)
    turn = settings.spaces.index(_space(observations, settings, allowance))
    gains = []
    for space in settings.spaces[turn:]:
        answer = _look_into(space, model, observations, settings, aims, allowance)
        if not isinstance(answer, Stop) or answer.reason == "tokens":
            return answer
        gains += [answer.gain] if answer.gain is not None else []
    return Stop("gain", max(gains)) if gains else Stop("spaces")


def _look_into(
    space: Space,
    model: Surrogate,
    observations: Observations,
    settings: SearchSettings,
    aims: Aims,
    allowance: TokenAllowance,
) -> Proposal | Stop:
    """Proposes a measured schedule to measure further, or a new point of the space."""
    step = observations.num_trials
    rng = np.random.default_rng([settings.seed, step, len(observations.failed), len(observations.censored)])
    targets = targets_of(observations.measured, allowance, aims.budget)
    measured = leading(observations.measured, num_knots=settings.knots)
    params_of = [each.params for each in measured]
    known = model.draw([each.schedule for each in measured], num_draws=NUM_DRAWS, seed=step)
    centres = _centres(known, params_of, targets)
    new = acquisition.candidates(free_params(space, settings.knots), ranges(settings.knots), centres, rng)
    left = allowance.search - observations.num_tokens
    stopped = {each.schedule for each in observations.censored}
    unfinished = [each for each in measured if _next_cost(each, aims) <= left and each.schedule not in stopped]
    pool = [*(each.params for each in unfinished), *(params for params in new if not is_tried(params, observations))]
    if not pool:
        return Stop("spaces")
    draw = model.draw([to_schedule(params) for params in pool], num_draws=NUM_DRAWS, seed=step)
    gain = float(np.mean([acquisition.expected_gain(draw, target) for target in targets]))
    if gain < settings.min_gain:
        return Stop("gain", gain)
    chosen = _chosen(draw, _target(targets, observations.measured, allowance, step, rng), step, rng)
    start = unfinished[chosen].num_responses if chosen < len(unfinished) else 0
    stop = next(rung for rung in aims.rungs if rung > start)
    if (stop - start) * cost_at(observations.measured, float(draw.tokens[:, chosen].mean())) > left:
        return Stop("tokens", gain)
    return Proposal(dict(pool[chosen]), start, stop)


def _next_cost(each: Observation, aims: Aims) -> float:
    """Returns the tokens of the next rung of a schedule; infinite if it is measured at full size."""
    stop = next((rung for rung in aims.rungs if rung > each.num_responses), None)
    return np.inf if stop is None else (stop - each.num_responses) * each.cost


def _chosen(draw: PosteriorSamples, target: Target, step: int, rng: np.random.Generator) -> int:
    """Returns the index of the proposal: in every third trial the current pick, else a Thompson sample."""
    if step % 3 == 0:
        return acquisition.surest(draw, target)
    return acquisition.thompson(draw, target, index=int(rng.integers(NUM_DRAWS)))


def _target(
    targets: Sequence[Target],
    measured: Sequence[Observation],
    allowance: TokenAllowance,
    step: int,
    rng: np.random.Generator,
) -> Target:
    """Returns the budget's target, every fourth time a random one below it; without a budget, a random level."""
    if len(targets) > 1:
        return targets[int(rng.integers(len(targets)))]
    if step % 4 != 3:
        return targets[0]
    lowest = min(each.values[TOKENS] for each in measured)
    if lowest >= targets[0].budget:
        return targets[0]
    budget = float(rng.uniform(lowest, targets[0].budget))
    return Target(budget, spread_at(measured, allowance, budget))


def _centres(known: PosteriorSamples, params_of: Sequence[Params], targets: Sequence[Target]) -> list[Params]:
    """Returns the points around which to propose new ones: the targets' picks, and Thompson samples of the last."""
    indices = [acquisition.surest(known, target) for target in targets]
    indices += [acquisition.thompson(known, targets[-1], index=index) for index in range(NUM_CENTRES)]
    return [params_of[index] for index in dict.fromkeys(indices)][: max(NUM_CENTRES, len(targets))]


def _ladder_proposal(observations: Observations, settings: SearchSettings, aims: Aims) -> Proposal:
    """Proposes the next uniform lambda, up to the first rung for the surrogate, else at full size."""
    curve = [(each.lam, each.values[THINK]) for each in observations.measured if each.lam is not None]
    failed_lams = {lam for params in observations.failed if (lam := uniform_lam(params)) is not None}
    size = aims.rungs[0] if settings.sampler == "surrogate" else aims.rungs[-1]
    return Proposal(uniform_params(next_lambda(curve, failed_lams), num_knots=settings.knots), 0, size)


def _curve_point(each: Observation) -> CurvePoint:
    assert each.lam is not None
    return CurvePoint(each.lam, each.values[THINK], len(each.prompts))


def _space(observations: Observations, settings: SearchSettings, allowance: TokenAllowance | None) -> Space:
    """Returns the current space. Each space in turn gets an equal share of the trials or tokens after the ladder."""
    done = (observations.num_trials - settings.ladder) / max(settings.trials - settings.ladder, 1)
    if allowance is not None:
        climbed = sum(observations.costs[: settings.ladder])
        done = max(done, (observations.num_tokens - climbed) / max(allowance.search - climbed, 1.0))
    return settings.spaces[min(max(int(done * len(settings.spaces)), 0), len(settings.spaces) - 1)]
