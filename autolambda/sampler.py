"""Proposals: which schedule to measure next, and on how many responses.

All schedules of a study live in one box: ``lam``; ``split``, by which attention lies above ffn, half of it each way;
``tilt_i``, what the i-th depth knot adds to both; and ``twist_i``, what it adds to the split. A space frees some of
these and holds the others at 0, so that each space starts from all that the ones before it have measured. The ladder
comes first.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, GridSampler, PartialFixedSampler, RandomSampler, TPESampler

from autolambda import acquisition
from autolambda.acquisition import DECIMALS, MAX_TILT, Target
from autolambda.allowance import Allowance, allowance
from autolambda.config import SearchConfig, Space
from autolambda.curve import CurvePoint
from autolambda.ladder import is_known, next_rung
from autolambda.schedule import Profile, Schedule
from autolambda.surrogate import ACCURACY, TOKENS, Draw, Excess, Observation, Surrogate, shared_luck

MIN_DISTANCE = 0.01  # in every parameter: less than that is the same schedule for all that can be measured
DIRECTIONS: tuple[Literal["maximize", "minimize"], ...] = ("maximize", "minimize")  # accuracy, mean_tokens
NUM_DRAWS = 64
NUM_LEVELS = 6  # budgets that stand for the whole front where none was given
NUM_CENTRES = 2  # schedules around which a search looks closely
SHARE_OF_FINALS = 1.5  # finalists that a budget usually gets

StopReason = Literal["trials", "tokens", "gain"]
Params = Mapping[str, float]


@dataclass(frozen=True)
class Point:
    """A schedule with its parameters in the box and all that was measured of it, on its first ``num_responses``."""

    params: Params
    observation: Observation
    num_responses: int

    @property
    def lam(self) -> float | None:
        """The lam of a uniform point, ``None`` for any other."""
        return _uniform_lam(self.params)


@dataclass(frozen=True)
class Evidence:
    """All that a study knows: its points, in the order of their first trials, and what else became of trials.

    ``excesses`` were stopped in mid-response; ``failed`` are the params of trials that could not be measured;
    ``costs`` are the tokens that each trial with a measurement took, in their order.
    """

    points: Sequence[Point] = ()
    excesses: Sequence[Excess] = ()
    failed: Sequence[Params] = ()
    costs: Sequence[int] = ()

    @property
    def num_trials(self) -> int:
        return len(self.costs)

    @property
    def num_tokens(self) -> int:
        return sum(self.costs)


@dataclass(frozen=True)
class Aims:
    """What a search is for. ``rungs`` are the numbers of responses at which a schedule's measurement may pause, the
    last of them the full size; ``num_confirm`` responses to ``num_confirm_prompts`` are that of the confirmation."""

    budget: float | None
    rungs: tuple[int, ...]
    num_confirm: int
    num_confirm_prompts: int


@dataclass(frozen=True)
class Proposal:
    """A schedule's params, and the responses to measure: from the ``start``-th to before the ``stop``-th."""

    params: dict[str, float]
    start: int
    stop: int


@dataclass(frozen=True)
class Stop:
    """The search is over: ``gain`` is what a further look at the best place was expected to bring (share of 1)."""

    reason: StopReason
    gain: float | None = None


def box(num_knots: int) -> dict[str, FloatDistribution]:
    """The parameters of every schedule, with their ranges."""
    bends = {name: FloatDistribution(-MAX_TILT, MAX_TILT) for name in (*_tilts(num_knots), *_twists(num_knots))}
    return {"lam": FloatDistribution(0.0, 1.0), "split": FloatDistribution(-1.0, 1.0), **bends}


def uniform_params(lam: float, *, num_knots: int) -> dict[str, float]:
    """The point of the box that is the uniform ``lam``."""
    return {**dict.fromkeys(box(num_knots), 0.0), "lam": lam}


def to_schedule(params: Params) -> Schedule:
    """The schedule at a point of the box; values leaving [0, 1] are cut off."""
    tilts, twists = ([params[name] for name in sorted(params) if name.startswith(kind)] for kind in ("tilt_", "twist_"))
    twists = twists or [0.0] * len(tilts)  # a study from before there were any
    knots = list(zip(tilts, twists, strict=True)) if any([*tilts, *twists]) else [(0.0, 0.0)]
    attention, ffn = (
        Profile(
            tuple(
                round(min(1.0, max(0.0, params["lam"] + side * (params["split"] + twist) / 2 + tilt)), DECIMALS)
                for tilt, twist in knots
            )
        )
        for side in (1, -1)
    )
    return Schedule.by_depth_and_module(attention, ffn)


def propose(evidence: Evidence, config: SearchConfig, aims: Aims) -> Proposal | Stop:
    """What to measure next, given all that was measured. The same arguments give the same answer."""
    if evidence.num_trials >= config.trials:
        return Stop("trials")
    granted = allowance_of(evidence.points, config, aims)
    if on_the_ladder(evidence, config):
        rung = _rung(evidence, config, aims)
        costs = [point.observation.values[TOKENS] for point in evidence.points]
        if granted and evidence.num_tokens + (rung.stop - rung.start) * max(costs) > granted.search:
            return Stop("tokens")
        return rung
    if config.sampler != "surrogate":
        over = granted is not None and evidence.num_tokens >= granted.search
        return Stop("tokens") if over else Proposal(_ask_optuna(evidence, config, aims), 0, aims.rungs[-1])
    assert granted is not None
    return _look_ahead(evidence, config, aims, granted)


def on_the_ladder(evidence: Evidence, config: SearchConfig) -> bool:
    """Whether the next trial is a rung: until the stages are known or the ladder is at its end."""
    return evidence.num_trials < config.ladder and not is_known(
        [_curve_point(point) for point in evidence.points if point.lam is not None]
    )


def allowance_of(points: Sequence[Point], config: SearchConfig, aims: Aims) -> Allowance | None:
    """The study's tokens, once two uniform lambdas are measured: the outermost stand for the parents."""
    costs = {point.lam: point.observation.values[TOKENS] for point in points if point.lam is not None}
    if len(costs) < 2:
        return None
    ends = costs[min(costs)] + costs[max(costs)]
    return allowance(
        ends,
        num_search=aims.rungs[-1],
        num_confirm=aims.num_confirm,
        num_confirm_prompts=aims.num_confirm_prompts,
        cap=config.max_tokens_generated,
    )


def targets_of(points: Sequence[Point], granted: Allowance, budget: float | None) -> list[Target]:
    """The budget, or levels between the cheapest and the longest point that stand for all budgets."""
    lengths = [point.observation.values[TOKENS] for point in points]
    if budget is not None:
        return [Target(budget, _spread(points, granted, budget))]
    levels = np.geomspace(min(lengths), max(lengths), NUM_LEVELS + 1)[1:]
    return [Target(float(level), _spread(points, granted, float(level))) for level in levels]


def fit(evidence: Evidence, num_knots: int) -> Surrogate:
    """The model of all that was measured."""
    return Surrogate(
        [point.observation for point in evidence.points], num_knots=num_knots, excesses=tuple(evidence.excesses)
    )


def _look_ahead(evidence: Evidence, config: SearchConfig, aims: Aims, granted: Allowance) -> Proposal | Stop:
    """The surrogate's choice among the points that can be measured further and new places."""
    step = evidence.num_trials
    rng = np.random.default_rng([config.seed, step, len(evidence.failed), len(evidence.excesses)])
    model = fit(evidence, config.knots)
    targets = targets_of(evidence.points, granted, aims.budget)
    places = [point.params for point in evidence.points]
    known = model.draw([point.observation.schedule for point in evidence.points], num_draws=NUM_DRAWS, seed=step)
    free = _free(_space(evidence, config, granted), config.knots)
    spans = {name: (span.low, span.high) for name, span in box(config.knots).items()}
    centres = _centres(known, places, targets)
    spent = [*places, *evidence.failed]
    fresh = [
        params
        for params in acquisition.candidates(free, spans, centres, rng)
        if not any(_is_near(params, other) for other in spent)
    ]
    left = granted.search - evidence.num_tokens
    open_points = [point for point in evidence.points if _next_cost(point, aims) <= left]
    pool = [*(point.params for point in open_points), *fresh]
    draw = model.draw([to_schedule(params) for params in pool], num_draws=NUM_DRAWS, seed=step)
    gain = float(np.mean([acquisition.expected_gain(draw, target) for target in targets]))
    if gain < config.min_gain:
        return Stop("gain", gain)
    chosen = _chosen(draw, _target(targets, evidence.points, granted, step, rng), step, rng)
    start = open_points[chosen].num_responses if chosen < len(open_points) else 0
    stop = next(rung for rung in aims.rungs if rung > start)
    if (stop - start) * float(draw.tokens[:, chosen].mean()) > left:
        return Stop("tokens", gain)
    return Proposal(dict(pool[chosen]), start, stop)


def _next_cost(point: Point, aims: Aims) -> float:
    """The tokens that a point's next rung will take; infinite where it is measured at full size."""
    stop = next((rung for rung in aims.rungs if rung > point.num_responses), None)
    return np.inf if stop is None else (stop - point.num_responses) * point.observation.values[TOKENS]


def _chosen(draw: Draw, target: Target, step: int, rng: np.random.Generator) -> int:
    """Every third look goes to the pick itself, which sharpens it; the others to what may be better."""
    if step % 3 == 0:
        return acquisition.safe(draw, target)
    return acquisition.sampled(draw, target, index=int(rng.integers(NUM_DRAWS)))


def _target(
    targets: Sequence[Target], points: Sequence[Point], granted: Allowance, step: int, rng: np.random.Generator
) -> Target:
    """Today's target: the budget, every fourth time some budget below it; without one, any level."""
    if len(targets) > 1:
        return targets[int(rng.integers(len(targets)))]
    if step % 4 != 3:
        return targets[0]
    lowest = min(point.observation.values[TOKENS] for point in points)
    if lowest >= targets[0].budget:
        return targets[0]
    budget = float(rng.uniform(lowest, targets[0].budget))
    return Target(budget, _spread(points, granted, budget))


def _centres(known: Draw, places: Sequence[Params], targets: Sequence[Target]) -> list[Params]:
    """The places around which to look: those picked for the targets, and for one of them in some draw."""
    found = [acquisition.safe(known, target) for target in targets]
    found += [acquisition.sampled(known, targets[-1], index=index) for index in range(NUM_CENTRES)]
    return [places[index] for index in dict.fromkeys(found)][: max(NUM_CENTRES, len(targets))]


def _spread(points: Sequence[Point], granted: Allowance, budget: float) -> float:
    """The relative standard error that the mean tokens of a finalist near the budget will have when confirmed.

    Of the variance of lengths the prompts' own share falls with their number, the rest with that of the responses.
    """
    own = shared_luck([point.observation for point in points], TOKENS)
    near = sorted(points, key=lambda point: abs(point.observation.values[TOKENS] - budget))[:5]
    variances = [
        (point.observation.errors[TOKENS] / point.observation.values[TOKENS]) ** 2
        / (own / len(point.observation.prompts) + (1 - own) / point.num_responses)
        for point in near
    ]
    num_final = granted.num_final([SHARE_OF_FINALS * budget])
    fall = own / min(num_final, granted.num_confirm_prompts) + (1 - own) / num_final
    return float(np.sqrt(np.median(variances) * fall))


def _rung(evidence: Evidence, config: SearchConfig, aims: Aims) -> Proposal:
    """The next uniform lambda; a sampler that does not know the noise has it measured at full size."""
    curve = [(point.lam, point.observation.values[2]) for point in evidence.points if point.lam is not None]
    failed_lams = {lam for params in evidence.failed if (lam := _uniform_lam(params)) is not None}
    size = aims.rungs[0] if config.sampler == "surrogate" else aims.rungs[-1]
    return Proposal(uniform_params(next_rung(curve, failed_lams), num_knots=config.knots), 0, size)


def _curve_point(point: Point) -> CurvePoint:
    assert point.lam is not None
    return CurvePoint(point.lam, point.observation.values[2], len(point.observation.prompts))


def _uniform_lam(params: Params) -> float | None:
    """The lam of a uniform point; a ladder that is lengthened later finds others among the points."""
    return None if any(value for name, value in params.items() if name != "lam") else params["lam"]


def _tilts(num_knots: int) -> list[str]:
    return [f"tilt_{i}" for i in range(num_knots)]


def _twists(num_knots: int) -> list[str]:
    return [f"twist_{i}" for i in range(num_knots)]


def _space(evidence: Evidence, config: SearchConfig, granted: Allowance | None) -> Space:
    """What is left after the ladder, of trials or of tokens, is shared out evenly among the spaces, in their order."""
    done = (evidence.num_trials - config.ladder) / max(config.trials - config.ladder, 1)
    if granted is not None:
        climbed = sum(evidence.costs[: config.ladder])
        done = max(done, (evidence.num_tokens - climbed) / max(granted.search - climbed, 1.0))
    return config.spaces[min(max(int(done * len(config.spaces)), 0), len(config.spaces) - 1)]


def _free(space: Space, num_knots: int) -> list[str]:
    """The parameters that a space frees."""
    return [
        "lam",
        *(["split"] if space in ("module", "both") else []),
        *(_tilts(num_knots) if space in ("depth", "both") else []),
        *(_twists(num_knots) if space == "both" else []),
    ]


def _ask_optuna(evidence: Evidence, config: SearchConfig, aims: Aims) -> dict[str, float]:
    """The proposal of one of Optuna's samplers, which take every measurement as it is, whatever its noise."""
    free = _free(_space(evidence, config, None), config.knots)
    # after a failure the same points must give another point
    entropy = [config.seed, evidence.num_trials, *([len(evidence.failed)] if evidence.failed else [])]
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    if config.sampler == "grid":
        params = _ask_grid(evidence, config, free)
    else:
        params = _ask(evidence.points, config, sampler=_sampler(config.sampler, seed), free=free, budget=aims.budget)
    tried = [*(point.params for point in evidence.points), *evidence.failed]
    if any(_is_near(params, other) for other in tried):  # it would get the same responses again, or fail again
        params = _ask(evidence.points, config, sampler=RandomSampler(seed), free=free, budget=aims.budget)
    return {name: round(value, DECIMALS) for name, value in params.items()}


def _ask(
    points: Sequence[Point],
    config: SearchConfig,
    *,
    sampler: BaseSampler,
    free: Sequence[str],
    budget: float | None,
) -> dict[str, float]:
    """Asks a fresh Optuna sampler, which is told all points as they look for today's budget.

    With a budget the aim is the accuracy, constrained by the tokens; without one both are aims. A study keeps its
    directions and its constraints as they were told, and the budget may change: hence a study in memory.
    """
    directions = list(DIRECTIONS[:1] if budget is not None else DIRECTIONS)
    replay = optuna.create_study(directions=directions, sampler=RandomSampler(seed=0))
    space = box(config.knots)
    held = {name: 0.0 for name in space if name not in free}
    for point in points:
        replay.enqueue_trial({**dict.fromkeys(space, 0.0), **point.params})
        trial = replay.ask(dict(space))
        accuracy, mean_tokens = point.observation.values[ACCURACY], point.observation.values[TOKENS]
        if budget is not None:
            trial.set_constraint("budget", mean_tokens / budget - 1)
        replay.tell(trial, (accuracy, mean_tokens)[: len(directions)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # GPSampler divides 0 by 0 where no place looks better than another, and then goes on with the first
        warnings.filterwarnings("ignore", "invalid value encountered in divide", RuntimeWarning)
        replay.sampler = PartialFixedSampler(held, sampler) if held else sampler
        return dict(replay.ask(dict(space)).params)


def _ask_grid(evidence: Evidence, config: SearchConfig, free: Sequence[str]) -> dict[str, float]:
    """The next point of Optuna's grid over a space: as many values a parameter as the space's share of trials fills."""
    after = max(evidence.num_trials - config.ladder, 0)
    share = max((config.trials - config.ladder) / len(config.spaces), 1.0)
    num_values = max(2, int(share ** (1 / len(free)) + 1e-9))
    space = box(config.knots)
    grid = {name: np.linspace(space[name].low, space[name].high, num_values).tolist() for name in free}
    replay = optuna.create_study(sampler=GridSampler(grid, seed=config.seed))
    params: dict[str, float] = {}
    for _ in range(int(after % share) + 1):
        trial = replay.ask({name: space[name] for name in free})
        replay.tell(trial, 0.0)
        params = dict(trial.params)
    return {**dict.fromkeys(space, 0.0), **params}


def _is_near(one: Params, other: Params) -> bool:
    return all(abs(one[name] - other[name]) < MIN_DISTANCE for name in other)


def _sampler(name: str, seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "gp":
            return GPSampler(seed=seed, n_startup_trials=0)
        if name == "tpe":
            return TPESampler(seed=seed, n_startup_trials=0, multivariate=True)
        return RandomSampler(seed=seed)
