"""autolambda's own search, replayed in a world: the decisions are the package's, the responses come from the world.

``conclude`` is the package's whole confirmation. Every strategy gets it, so that a comparison is one of searches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from bank import Replay

from autolambda.config import ConfirmConfig, SearchConfig, parse_config
from autolambda.optimizer.aims import Aims, allowance_of
from autolambda.optimizer.finalists import plan
from autolambda.optimizer.ladder import paced
from autolambda.optimizer.observations import ACCURACY, THINK, TOKENS, Observation, Observations, part_of
from autolambda.optimizer.propose import Stop, propose
from autolambda.optimizer.racing import Race, Rung, RungOutcome, exceeded
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.space import Params, Space, to_schedule, uniform_params
from autolambda.optimizer.surrogate import fit
from autolambda.optimizer.token_allowance import LEAST_FULL
from autolambda.schedule import Schedule
from autolambda.statistics import estimates
from autolambda.statistics.curve import CurvePoint
from autolambda.statistics.estimates import Estimate, Floats
from autolambda.statistics.pace import Pace
from autolambda.statistics.pareto import Objectives, front
from autolambda.statistics.stages import Stages, detect_stages
from autolambda.statistics.verdict import Confirmed, decide
from autolambda.tasks.slices import LEAST_SEARCHED, MOST_REPEATS

NUM_KNOTS = 3
PARENTS = {"instruct": 0.0, "thinking": 1.0}


@dataclass(frozen=True)
class Setup:
    """What a user gives: a budget and a file of ``num_rows``; and what follows from it.

    ``share`` is the part of the default allowance that may be spent.
    """

    budget: float
    spaces: tuple[Space, ...]
    num_search: int
    num_confirm: int
    repeats: int
    num_rows: int
    confirm_repeats: int
    share: float
    seed: int

    @property
    def settings(self) -> SearchSettings:
        """The package's defaults, in the spaces that the world knows."""
        search = {"spaces": list(self.spaces), "seed": self.seed}
        config = parse_config({"tasks": [{"name": "arithmetic"}], "budget": self.budget, "search": search})
        return config.search_settings


@dataclass(frozen=True)
class Outcome:
    """What a search came to.

    ``chosen`` is the proven merge, if it is the answer; ``parent`` names a parent that is. The claims ``accuracy`` and
    ``mean_tokens`` are about ``reported``. ``places`` are the measured schedules in order, ``front`` the smoothed one.
    """

    num_tokens: int
    search_tokens: int
    num_trials: int
    verdict: str
    chosen: Params | None
    parent: str | None
    likely: dict[str, Any] | None
    accuracy: Estimate
    mean_tokens: Estimate
    reported: Params
    stages: Stages
    front: list[Params]
    places: list[Params]
    finalists: list[Params]
    num_final: int
    stop_reason: str
    seconds: float


def setup_of(
    *,
    num_prompts: int,
    repeats: int,
    confirm_repeats: int,
    budget: float,
    has_module: bool,
    share: float,
    seed: int,
) -> Setup:
    """Splits a file of ``2 * num_prompts`` rows as the package does."""
    num_rows = 2 * num_prompts
    num_confirm = min(max(round(num_rows * ConfirmConfig().share), 1), num_rows - 1)
    num_search = num_rows - num_confirm
    spaces: tuple[Space, ...] = ("uniform", "module") if has_module else ("uniform",)
    return Setup(
        budget,
        spaces,
        num_search,
        num_confirm,
        max(repeats, math.ceil(LEAST_SEARCHED / num_search)),
        num_rows,
        max(confirm_repeats, MOST_REPEATS),
        share,
        seed,
    )


def allowance(world: Replay, setup: Setup) -> float:
    """Returns the tokens that the study may spend, by the true tokens of both ends."""
    ends = sum(world.bank.truth(uniform_params(lam, num_knots=NUM_KNOTS)).mean_tokens for lam in PARENTS.values())
    return setup.share * ends * max(setup.num_rows / 2, LEAST_FULL)


class _Rules:
    """The package's settings and aims in a setup."""

    def __init__(self, world: Replay, setup: Setup) -> None:
        num_final = setup.num_confirm * setup.confirm_repeats
        rungs = SearchConfig().rungs_of(setup.num_search * setup.repeats)
        cap = int(allowance(world, setup))
        self.settings = replace(setup.settings, max_tokens_generated=cap)
        self.aims = Aims(setup.budget, rungs, num_final, setup.num_confirm, max_tokens=world.cap)


def search(world: Replay, setup: Setup, *, pace_of: Callable[[], Pace | None] = lambda: None) -> Outcome:
    """Runs the package's search but for engine and database, and concludes it. ``pace_of`` is as in ``explore``."""
    explored = explore(world, setup, pace_of=pace_of)
    return conclude(world, setup, explored.observations, explored.stop_reason, seconds=explored.seconds)


@dataclass(frozen=True)
class Explored:
    """The observations of a search, why it ended, and the seconds of its decisions."""

    observations: Observations
    stop_reason: str
    seconds: float


def explore(world: Replay, setup: Setup, *, pace_of: Callable[[], Pace | None] = lambda: None) -> Explored:
    """Runs the trials of the package's search.

    ``pace_of`` returns the engine's pace once it is known; the first rung then grows as in the package.
    """
    rules, observations, known, seconds = _Rules(world, setup), Observations(), {}, 0.0
    while True:
        started = time.perf_counter()
        allowed = allowance_of(observations.measured, rules.settings, rules.aims)
        pace = pace_of()
        aims = paced(rules.aims, pace, allowed) if pace and allowed else rules.aims
        answer = propose(observations, rules.settings, aims)
        if isinstance(answer, Stop):
            return Explored(observations, answer.reason, seconds + time.perf_counter() - started)
        schedule, measuring = to_schedule(answer.params), 0.0
        race = Race(schedule, answer.start, answer.stop, observations, rules.settings, aims)
        for rung in race:
            began = time.perf_counter()
            outcome = _measure(world, setup, answer.params, answer.start, rung, known)
            measuring += time.perf_counter() - began
            race.tell(outcome)
        observations = race.observations
        seconds += time.perf_counter() - started - measuring


def observe(
    world: Replay, setup: Setup, observations: Observations, params: Params, num_responses: int
) -> Observations:
    """Measures a schedule on the first responses of the search slice."""
    outcomes = world.measure(params, "search", np.arange(num_responses))
    seen = observation(params, to_schedule(params), outcomes, setup.num_search)
    return observations.with_measured(seen, cost=int(outcomes[:, TOKENS].sum()))


def _measure(
    world: Replay, setup: Setup, params: Params, start: int, rung: Rung, known: dict[Schedule, Floats]
) -> RungOutcome:
    """Takes a rung's responses, in a race from ``start``. They are cut when their sum passes the limit."""
    schedule = to_schedule(params)
    before = known.get(schedule, np.zeros((0, 3)))
    outcomes = world.measure(params, "search", np.arange(rung.start, rung.stop))
    num_tokens = int(outcomes[:, TOKENS].sum())
    if num_tokens > rung.max_tokens:
        reached = int(rung.max_tokens)
        world.num_tokens -= num_tokens - reached
        floor = exceeded(before[start:, TOKENS].sum() + reached, rung.stop - start)
        return RungOutcome(None, reached, floor)
    known[schedule] = np.vstack([before, outcomes])
    return RungOutcome(observation(params, schedule, known[schedule], setup.num_search), num_tokens)


def conclude(
    world: Replay, setup: Setup, observations: Observations, stop_reason: str, *, seconds: float = 0.0
) -> Outcome:
    """Confirms the finalists of any observations, with both parents, and decides."""
    rules, search_tokens, started = _Rules(world, setup), world.num_tokens, time.perf_counter()
    model = fit(observations, rules.settings, cap=world.cap)
    agreed = plan(observations, rules.settings, rules.aims, model=model)
    points = [each.params for each in observations.measured]
    schedules = [each.schedule for each in observations.measured]
    accuracy, tokens = (model.predict(schedules, output).value for output in (ACCURACY, TOKENS))
    seconds += time.perf_counter() - started
    smoothed = front(range(len(points)), key=lambda i: Objectives(float(accuracy[i]), float(tokens[i])))
    parents = {
        name: _confirmed(world, setup, uniform_params(lam, num_knots=NUM_KNOTS), size)
        for (name, lam), size in zip(PARENTS.items(), agreed.num_parents, strict=True)
    }
    finalists = []
    for index in agreed.finalists:
        finalists.append(_confirmed(world, setup, points[index], agreed.num_responses))
        if finalists[-1].confirmed.tokens_upper > setup.budget:
            break
    decision = decide(
        [each.confirmed for each in finalists],
        budget=setup.budget,
        difference_lower=lambda one, other: _difference(finalists[one], finalists[other]),
        margin=rules.settings.margin,
        scores=agreed.combined([each.confirmed.accuracy for each in finalists]),
        parents={name: each.confirmed for name, each in parents.items()},
        uniform=[i for i, each in enumerate(finalists) if to_schedule(each.params).lam is not None],
    )
    pick = decision.nearest if decision.pick is None else decision.pick
    answer = finalists[pick] if decision.parent is None else parents[decision.parent]
    likely = None
    if decision.likely is not None:
        likely = {
            "params": dict(finalists[decision.likely].params),
            "chance": finalists[decision.likely].confirmed.chance,
        }
    curve = [CurvePoint(p.lam, p.values[THINK], len(p.prompts)) for p in observations.measured if p.lam is not None]
    return Outcome(
        world.num_tokens,
        search_tokens,
        observations.num_trials,
        str(decision.verdict),
        finalists[pick].params if decision.pick is not None and decision.parent is None else None,
        decision.parent,
        likely,
        answer.accuracy,
        answer.mean_tokens,
        answer.params,
        detect_stages(curve),
        [points[i] for i in smoothed],
        points,
        [each.params for each in finalists],
        agreed.num_responses,
        stop_reason,
        seconds,
    )


@dataclass(frozen=True)
class _Finalist:
    """A confirmed schedule: its numbers for the decision, and its accuracy by prompt."""

    params: Params
    confirmed: Confirmed
    accuracy: Estimate
    mean_tokens: Estimate
    by_prompt: Floats


def _confirmed(world: Replay, setup: Setup, params: Params, num_responses: int) -> _Finalist:
    outcomes = world.measure(params, "confirm", np.arange(num_responses))
    place = np.arange(num_responses) % setup.num_confirm
    counts = np.bincount(place)
    right, lengths = (np.bincount(place, outcomes[:, i]) / counts for i in (ACCURACY, TOKENS))
    accuracy = estimates.share(right, num_responses=num_responses)
    limits = estimates.tokens(lengths, num_responses=num_responses, cap=world.cap, seed=0)
    tokens = limits.estimate
    bounds = limits.bounds
    chance = estimates.chance_within(tokens.value, bounds, budget=setup.budget)
    confirmed = Confirmed(accuracy.value, tokens.value, bounds.lower, bounds.upper, chance=chance)
    return _Finalist(params, confirmed, accuracy, tokens, right)


def _difference(one: _Finalist, other: _Finalist) -> float:
    size = min(len(one.by_prompt), len(other.by_prompt))
    return estimates.paired({"": one.by_prompt[:size] - other.by_prompt[:size]}, weights=None).lower_bound


def observation(params: Params, schedule: Schedule, outcomes: Floats, num_prompts: int) -> Observation:
    place = np.arange(len(outcomes)) % num_prompts
    counts = np.bincount(place)
    means = np.stack([np.bincount(place, outcomes[:, i]) for i in range(3)], axis=1) / counts[:, None]
    right, thought = (estimates.share(means[:, i], num_responses=len(outcomes)) for i in (ACCURACY, THINK))
    mean = float(means[:, TOKENS].mean())
    error = max(float(means[:, TOKENS].std(ddof=1)) / len(means) ** 0.5, 0.01 * mean)
    modes = []
    for is_thinking in (False, True):
        mine = (outcomes[:, THINK] > 0) == is_thinking
        modes.append(part_of(place[mine], outcomes[mine, :2], np.ones(int(mine.sum()))))
    return Observation(
        schedule,
        (right.value, mean, thought.value),
        (right.standard_error, error, thought.standard_error),
        np.arange(len(means)),
        means - means.mean(axis=0),
        params,
        len(outcomes),
        direct=modes[0],
        thinking=modes[1],
    )
