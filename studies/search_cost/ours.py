"""autolambda's own search, replayed in a world: the decisions are the package's, the responses come from the bank."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from bank import Floats, Params, World
from numpy.typing import NDArray

from autolambda.config import Config
from autolambda.optimizer.aims import Aims
from autolambda.optimizer.finalists import plan
from autolambda.optimizer.observations import ACCURACY, TOKENS, Observation, Observations
from autolambda.optimizer.propose import Proposal, Stop, propose
from autolambda.optimizer.racing import Race, Rung, RungOutcome
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.space import to_schedule, uniform_params
from autolambda.optimizer.surrogate import fit
from autolambda.schedule import Schedule
from autolambda.statistics import estimates
from autolambda.statistics.curve import CurvePoint
from autolambda.statistics.estimates import Estimate
from autolambda.statistics.pareto import Objectives, front
from autolambda.statistics.stages import Stages, detect_stages
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


def search(world: World, config: Config, *, full: int, num_confirm: int) -> Outcome:
    """Runs the package's search but for engine and database. ``full`` responses are the full size."""
    settings = config.search_settings
    aims = Aims(config.budget, config.search.rungs_of(full), num_confirm, min(num_confirm, world.num_prompts))
    replay = _Replay(world)
    while True:
        started = time.perf_counter()
        answer = propose(replay.observations, settings, aims)
        replay.seconds += time.perf_counter() - started
        if isinstance(answer, Stop):
            return _confirm(world, replay, config, aims, answer)
        replay.race(answer, settings, aims)


class _Replay:
    """A search in a world: its observations, the trials that were stopped, and the seconds of its decisions."""

    def __init__(self, world: World) -> None:
        self.observations, self.num_stopped, self.seconds = Observations(), 0, 0.0
        self._world = world
        self._outcomes: dict[Schedule, Floats] = {}

    def race(self, proposal: Proposal, settings: SearchSettings, aims: Aims) -> None:
        """Races one trial with the package's own race."""
        schedule, measuring = to_schedule(proposal.params), 0.0
        started = time.perf_counter()
        race = Race(schedule, proposal.start, proposal.stop, self.observations, settings, aims)
        for rung in race:
            began = time.perf_counter()
            outcome = self._measure(proposal.params, schedule, rung)
            measuring += time.perf_counter() - began
            race.tell(outcome)
        self.seconds += time.perf_counter() - started - measuring
        self.observations = race.observations
        self.num_stopped += race.stopped is not None

    def _measure(self, params: Params, schedule: Schedule, rung: Rung) -> RungOutcome:
        """Takes responses from the bank. All run side by side: they are cut when their sum passes the limit."""
        outcomes = self._world.measure(params, "search", np.arange(rung.start, rung.stop))
        num_tokens = int(outcomes[:, 1].sum())
        if num_tokens > rung.max_tokens:
            reached = int(rung.max_tokens)
            self._world.num_tokens -= num_tokens - reached
            return RungOutcome(None, reached, reached)
        known = np.vstack([self._outcomes.get(schedule, np.zeros((0, 3))), outcomes])
        self._outcomes[schedule] = known
        return RungOutcome(observation(params, schedule, known, self._world.num_prompts), num_tokens, num_tokens)


def _confirm(world: World, replay: _Replay, config: Config, aims: Aims, stop: Stop) -> Outcome:
    observations, search_tokens = replay.observations, world.num_tokens
    started = time.perf_counter()
    agreed = plan(observations, config.search_settings, aims)
    model = fit(observations, config.search.knots)
    replay.seconds += time.perf_counter() - started
    for lam in (0.0, 1.0):
        world.measure(uniform_params(lam, num_knots=config.search.knots), "confirm", np.arange(agreed.num_parent))
    finalists, means = [], []
    for index in agreed.finalists:
        answers = np.arange(agreed.num_responses)
        outcomes = world.measure(observations.measured[index].params, "confirm", answers)
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
    points = [each.params for each in observations.measured]
    schedules = [each.schedule for each in observations.measured]
    accuracy, tokens = (model.predict(schedules, output).value for output in (ACCURACY, TOKENS))
    smoothed = front(range(len(points)), key=lambda i: Objectives(float(accuracy[i]), float(tokens[i])))
    curve = [CurvePoint(p.lam, p.values[2], len(p.prompts)) for p in observations.measured if p.lam is not None]
    return Outcome(
        world.num_tokens,
        search_tokens,
        observations.num_trials,
        replay.num_stopped,
        stop.reason,
        decision.verdict,
        points[agreed.finalists[pick]],
        means[pick][1],
        means[pick][2],
        detect_stages(curve),
        [points[i] for i in smoothed],
        replay.seconds,
    )


def observation(params: Params, schedule: Schedule, outcomes: Floats, num_prompts: int) -> Observation:
    prompts, means = _by_prompt(outcomes, np.arange(len(outcomes)), num_prompts)
    right, thought = (estimates.share(means[:, i], num_responses=len(outcomes)) for i in (0, 2))
    mean = float(means[:, 1].mean())
    error = max(float(means[:, 1].std(ddof=1)) / len(means) ** 0.5, 0.01 * mean)
    return Observation(
        schedule,
        (right.value, mean, thought.value),
        (right.standard_error, error, thought.standard_error),
        prompts,
        means - means.mean(axis=0),
        params,
        len(outcomes),
    )


def _by_prompt(outcomes: Floats, index: Index, num_prompts: int) -> tuple[Index, Floats]:
    """The prompts that were asked and their means, float64 [prompts, 3]."""
    place = index % num_prompts
    counts = np.bincount(place, minlength=num_prompts)
    sums = np.stack([np.bincount(place, outcomes[:, i], minlength=num_prompts) for i in range(3)], axis=1)
    asked = np.flatnonzero(counts)
    return asked, sums[asked] / counts[asked, None]
