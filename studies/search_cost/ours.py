"""autolambda's own search, replayed in a world: the decisions are the package's, the responses come from the world."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from bank import Floats, Index, Params, Replay

from autolambda.config import Config, parse_config
from autolambda.optimizer.aims import Aims
from autolambda.optimizer.finalists import plan
from autolambda.optimizer.observations import ACCURACY, TOKENS, Observation, Observations
from autolambda.optimizer.propose import Proposal, Stop, propose
from autolambda.optimizer.racing import Race, Rung, RungOutcome
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.space import Space, to_schedule, uniform_lam, uniform_params
from autolambda.optimizer.surrogate import fit
from autolambda.optimizer.token_allowance import LEAST_FULL
from autolambda.schedule import Schedule
from autolambda.statistics import estimates
from autolambda.statistics.curve import CurvePoint
from autolambda.statistics.estimates import Estimate
from autolambda.statistics.pareto import Objectives, front
from autolambda.statistics.stages import Stages, detect_stages
from autolambda.statistics.verdict import Finalist, Verdict, decide

NUM_KNOTS = 3


@dataclass(frozen=True)
class Setup:
    """A search's setup: its budget, its spaces, the prompts of each slice, their repeats and the share of tokens.

    ``num_rows`` are the rows of the user's file; ``share`` is of the default allowance.
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


@dataclass(frozen=True)
class Outcome:
    """What a search came to. ``seconds`` are those of its own decisions, ``front`` the smoothed one.

    ``chosen`` is the merge that is shown to be within the budget, ``parent`` names a parent that is the answer instead.
    ``accuracy`` and ``mean_tokens`` are claimed for ``reported``: the answer, or the nearest. ``places`` are the
    schedules of all trials in their order, each once.
    """

    num_tokens: int
    search_tokens: int
    num_trials: int
    stop_reason: str
    verdict: Verdict
    chosen: Params | None
    parent: str | None
    likely: dict[str, object] | None
    reported: Params
    accuracy: Estimate
    mean_tokens: Estimate
    stages: Stages
    front: list[Params]
    places: list[Params]
    finalists: list[Params]
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
    """The setup of a user with ``2 * num_prompts`` rows: half of them to search, half to confirm."""
    spaces: tuple[Space, ...] = ("uniform", "module") if has_module else ("uniform",)
    return Setup(budget, spaces, num_prompts, num_prompts, repeats, 2 * num_prompts, confirm_repeats, share, seed)


def allowance(world: Replay, setup: Setup) -> float:
    """The tokens that the study may generate: the cost of both parents at full size, or the share of it."""
    ends = sum(world.bank.truth(uniform_params(lam, num_knots=NUM_KNOTS)).mean_tokens for lam in (0.0, 1.0))
    return setup.share * ends * max(setup.num_search * setup.repeats, LEAST_FULL)


def search(world: Replay, setup: Setup) -> Outcome:
    """Runs the package's search but for engine and database."""
    config, aims = _config(world, setup), _aims(world, setup)
    settings, replay = config.search_settings, _Race(world)
    while True:
        started = time.perf_counter()
        answer = propose(replay.observations, settings, aims)
        replay.seconds += time.perf_counter() - started
        if isinstance(answer, Stop):
            outcome = conclude(world, setup, replay.observations, answer.reason)
            return replace(outcome, seconds=outcome.seconds + replay.seconds)
        replay.race(answer, settings, aims)


def observe(
    world: Replay, setup: Setup, observations: Observations, params: Params, num_responses: int
) -> Observations:
    """Measures a place on the first responses of the search slice."""
    outcomes = world.measure(params, "search", np.arange(num_responses))
    seen = observation(params, to_schedule(params), outcomes, world.prompts("search"))
    return observations.with_measured(seen, cost=int(outcomes[:, 1].sum()))


def conclude(world: Replay, setup: Setup, observations: Observations, stop_reason: str) -> Outcome:
    """Confirms the finalists of any observations, and decides."""
    config, aims, search_tokens = _config(world, setup), _aims(world, setup), world.num_tokens
    started = time.perf_counter()
    agreed = plan(observations, config.search_settings, aims)
    model = fit(observations, NUM_KNOTS)
    seconds = time.perf_counter() - started
    for end in (0.0, 1.0):
        world.measure(uniform_params(end, num_knots=NUM_KNOTS), "confirm", np.arange(agreed.num_parent))
    points = [each.params for each in observations.measured]
    confirmed = [_Confirmed.of(world, points[index], agreed.num_responses) for index in agreed.finalists]

    def difference_lower(one: int, other: int) -> float:
        changes = confirmed[one].right_by_prompt - confirmed[other].right_by_prompt
        return estimates.paired({"": changes}, weights=None).lower_bound

    decision = decide([each.finalist for each in confirmed], budget=setup.budget, difference_lower=difference_lower)
    answer = confirmed[decision.nearest if decision.pick is None else decision.pick]
    lam = uniform_lam(answer.params)
    parent = None if lam is None else {0.0: "instruct", 1.0: "thinking"}.get(lam)
    schedules = [each.schedule for each in observations.measured]
    accuracy, tokens = (model.predict(schedules, output).value for output in (ACCURACY, TOKENS))
    smoothed = front(range(len(points)), key=lambda i: Objectives(float(accuracy[i]), float(tokens[i])))
    curve = [CurvePoint(p.lam, p.values[2], len(p.prompts)) for p in observations.measured if p.lam is not None]
    return Outcome(
        num_tokens=world.num_tokens,
        search_tokens=search_tokens,
        num_trials=observations.num_trials,
        stop_reason=stop_reason,
        verdict=decision.verdict,
        chosen=answer.params if decision.pick is not None and parent is None else None,
        parent=parent if decision.pick is not None else None,
        likely=None,
        reported=answer.params,
        accuracy=answer.accuracy,
        mean_tokens=answer.mean_tokens,
        stages=detect_stages(curve),
        front=[points[i] for i in smoothed],
        places=points,
        finalists=[each.params for each in confirmed],
        seconds=seconds,
    )


def observation(params: Params, schedule: Schedule, outcomes: Floats, num_prompts: int) -> Observation:
    """What the first responses of the search slice say about a schedule."""
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


@dataclass(frozen=True)
class _Confirmed:
    """A confirmed finalist."""

    params: Params
    right_by_prompt: Floats
    accuracy: Estimate
    mean_tokens: Estimate
    finalist: Finalist

    @classmethod
    def of(cls, world: Replay, params: Params, num_responses: int) -> _Confirmed:
        """Measures the first responses of the confirm slice."""
        answers = np.arange(num_responses)
        outcomes = world.measure(params, "confirm", answers)
        means = _by_prompt(outcomes, answers, world.prompts("confirm"))[1]
        limits = estimates.tokens(means[:, 1], num_responses=len(outcomes), cap=world.cap, seed=0)
        right = estimates.share(means[:, 0], num_responses=len(outcomes))
        finalist = Finalist(right.value, limits.estimate.value, limits.bounds.lower, limits.bounds.upper)
        return cls(params, means[:, 0], right, limits.estimate, finalist)


class _Race:
    """A search in a world: its observations, and the seconds of its decisions."""

    def __init__(self, world: Replay) -> None:
        self.observations, self.seconds = Observations(), 0.0
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

    def _measure(self, params: Params, schedule: Schedule, rung: Rung) -> RungOutcome:
        """Takes responses from the world. All run side by side: they are cut when their sum passes the limit."""
        outcomes = self._world.measure(params, "search", np.arange(rung.start, rung.stop))
        num_tokens = int(outcomes[:, 1].sum())
        if num_tokens > rung.max_tokens:
            reached = int(rung.max_tokens)
            self._world.num_tokens -= num_tokens - reached
            return RungOutcome(None, reached, reached)
        known = np.vstack([self._outcomes.get(schedule, np.zeros((0, 3))), outcomes])
        self._outcomes[schedule] = known
        seen = observation(params, schedule, known, self._world.prompts("search"))
        return RungOutcome(seen, num_tokens, num_tokens)


def _config(world: Replay, setup: Setup) -> Config:
    limit = {} if setup.share == 1 else {"max_tokens_generated": max(1, int(allowance(world, setup)))}
    plain = {
        "tasks": [{"name": "arithmetic"}],
        "budget": setup.budget,
        "search": {"spaces": list(setup.spaces), "seed": setup.seed, "knots": NUM_KNOTS, **limit},
    }
    return parse_config(plain)


def _aims(world: Replay, setup: Setup) -> Aims:
    config = _config(world, setup)
    rungs = config.search.rungs_of(setup.num_search * setup.repeats)
    return Aims(setup.budget, rungs, setup.num_confirm * setup.confirm_repeats, setup.num_confirm)


def _by_prompt(outcomes: Floats, index: Index, num_prompts: int) -> tuple[Index, Floats]:
    """The prompts that were asked and their means, float64 [prompts, 3]."""
    place = index % num_prompts
    counts = np.bincount(place, minlength=num_prompts)
    sums = np.stack([np.bincount(place, outcomes[:, i], minlength=num_prompts) for i in range(3)], axis=1)
    asked = np.flatnonzero(counts)
    return asked, sums[asked] / counts[asked, None]
