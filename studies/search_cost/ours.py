"""autolambda's own search, replayed in a world: the decisions are the package's, the responses come from the bank."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field

import numpy as np
from bank import Floats, Params, World
from numpy.typing import NDArray

from autolambda.config import Config
from autolambda.optimizer.finalists import plan
from autolambda.optimizer.observations import Observations, Point
from autolambda.optimizer.propose import Aims, Stop, fit, on_the_ladder, propose
from autolambda.optimizer.racing import exceeded, most_tokens, stopped_for
from autolambda.optimizer.space import to_schedule, uniform_params
from autolambda.optimizer.surrogate import ACCURACY, TOKENS, CensoredTrial, Observation
from autolambda.statistics import estimates
from autolambda.statistics.estimates import Estimate
from autolambda.statistics.pareto import Objectives, front
from autolambda.statistics.stages import CurvePoint, Stages, detect_stages
from autolambda.statistics.verdict import Finalist, Verdict, decide

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Outcome:
    """What a search came to. ``seconds`` are those of its own decisions, ``front`` the smoothed one."""

    num_tokens: int
    search_tokens: int
    num_trials: int
    num_stopped: int
    stop_reason: str
    verdict: Verdict
    chosen: Params
    accuracy: Estimate
    mean_tokens: Estimate
    stages: Stages
    front: list[Params]
    seconds: float


@dataclass
class _Progress:
    points: dict[tuple[float, ...], tuple[Params, Floats]] = field(default_factory=dict)
    censored: list[CensoredTrial] = field(default_factory=list)
    costs: list[int] = field(default_factory=list)
    num_stopped: int = 0


def search(world: World, config: Config, *, full: int, num_confirm: int) -> Outcome:
    """The whole of ``driver.search.search`` but for engine and database. ``full`` responses are the full size."""
    aims = Aims(config.budget, config.search.rungs_of(full), num_confirm, min(num_confirm, world.num_prompts))
    made, seconds = _Progress(), 0.0
    while True:
        started = time.perf_counter()
        answer = propose(_evidence(world, made), config.search_settings, aims)
        seconds += time.perf_counter() - started
        if isinstance(answer, Stop):
            break
        seconds += _race(world, made, config, aims, answer.params, answer.start, answer.stop)
    return _confirm(world, made, config, aims, answer, seconds)


def _race(world: World, made: _Progress, config: Config, aims: Aims, params: Params, start: int, stop: int) -> float:
    """One trial; the seconds that its decisions took."""
    on_ladder = on_the_ladder(_evidence(world, made), config.search_settings, aims)
    key, schedule = tuple(params.values()), to_schedule(params)
    bounds = [start, *(rung for rung in aims.rungs if start < rung < stop), stop]
    before, cost, seconds = made.points.get(key, (params, np.zeros((0, 3))))[1], 0, 0.0
    for low, high in itertools.pairwise(bounds):
        limit = np.inf if on_ladder else most_tokens(high - low, config.budget)
        outcomes = world.measure(params, "search", np.arange(low, high))
        lengths = outcomes[:, 1]
        if lengths.sum() > limit:  # all run side by side: they are cut where their sum passes the limit
            reached = int(limit)
            world.num_tokens -= int(lengths.sum()) - reached
            made.censored.append(CensoredTrial(schedule, exceeded(reached, high - low)))
            made.costs.append(cost + reached)
            made.num_stopped += 1
            return seconds
        cost += int(lengths.sum())
        before = np.vstack([before, outcomes])
        made.points[key] = (params, before)
        if not on_ladder:
            started = time.perf_counter()
            made.costs.append(cost)
            why = stopped_for(schedule, _evidence(world, made), config.search_settings, aims)
            made.costs.pop()
            seconds += time.perf_counter() - started
            if why:
                made.num_stopped += 1
                break
    made.costs.append(cost)
    return seconds


def _confirm(world: World, made: _Progress, config: Config, aims: Aims, stop: Stop, seconds: float) -> Outcome:
    evidence, search_tokens = _evidence(world, made), world.num_tokens
    started = time.perf_counter()
    agreed = plan(evidence, config.search_settings, aims)
    model = fit(evidence, config.search.knots)
    seconds += time.perf_counter() - started
    for lam in (0.0, 1.0):
        world.measure(uniform_params(lam, num_knots=config.search.knots), "confirm", np.arange(agreed.num_parent))
    finalists, means = [], []
    for index in agreed.finalists:
        answers = np.arange(agreed.num_responses)
        outcomes = world.measure(evidence.points[index].params, "confirm", answers)
        by_prompt = _by_prompt(outcomes, answers, world.num_prompts)[1]
        limits = estimates.tokens(by_prompt[:, 1], num_responses=len(outcomes), cap=np.inf, seed=0)
        right = estimates.share(by_prompt[:, 0], num_responses=len(outcomes))
        finalists.append(Finalist(right.value, limits.estimate.value, limits.bounds.lower, limits.bounds.upper))
        means.append((by_prompt[:, 0], right, limits.estimate))

    def difference_lower(one: int, other: int) -> float:
        return estimates.paired({"": means[one][0] - means[other][0]}, weights=None).lower_bound

    assert config.budget is not None
    decision = decide(finalists, budget=config.budget, difference_lower=difference_lower, margin=config.confirm.margin)
    pick = decision.nearest if decision.pick is None else decision.pick
    points = [point.params for point in evidence.points]
    schedules = [point.observation.schedule for point in evidence.points]
    accuracy, tokens = (model.predict(schedules, output).value for output in (ACCURACY, TOKENS))
    smoothed = front(range(len(points)), key=lambda i: Objectives(float(accuracy[i]), float(tokens[i])))
    curve = [
        CurvePoint(p.lam, p.observation.values[2], len(p.observation.prompts))
        for p in evidence.points
        if p.lam is not None
    ]
    return Outcome(
        world.num_tokens,
        search_tokens,
        evidence.num_trials,
        made.num_stopped,
        stop.reason,
        decision.verdict,
        points[agreed.finalists[pick]],
        means[pick][1],
        means[pick][2],
        detect_stages(curve),
        [points[i] for i in smoothed],
        seconds,
    )


def _evidence(world: World, made: _Progress) -> Observations:
    points = []
    for params, outcomes in made.points.values():
        prompts, means = _by_prompt(outcomes, np.arange(len(outcomes)), world.num_prompts)
        right, thought = (estimates.share(means[:, i], num_responses=len(outcomes)) for i in (0, 2))
        mean = float(means[:, 1].mean())
        error = max(float(means[:, 1].std(ddof=1)) / len(means) ** 0.5, 0.01 * mean)
        observation = Observation(
            to_schedule(params),
            (right.value, mean, thought.value),
            (right.standard_error, error, thought.standard_error),
            prompts,
            means - means.mean(axis=0),
        )
        points.append(Point(params, observation, len(outcomes)))
    return Observations(points, tuple(made.censored), (), tuple(made.costs))


def _by_prompt(outcomes: Floats, index: Index, num_prompts: int) -> tuple[Index, Floats]:
    """The prompts that were asked and their means, float64 [prompts, 3]."""
    place = index % num_prompts
    counts = np.bincount(place, minlength=num_prompts)
    sums = np.stack([np.bincount(place, outcomes[:, i], minlength=num_prompts) for i in range(3)], axis=1)
    asked = np.flatnonzero(counts)
    return asked, sums[asked] / counts[asked, None]
