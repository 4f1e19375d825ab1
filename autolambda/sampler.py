"""Proposals: which schedule to measure next.

All schedules of a study live in one box: ``lam``; ``split``, by which attention lies above ffn, half of it each way;
and ``tilt_i``, what the i-th depth knot adds to both. A space frees some of these and holds the others at 0, so that
each space starts from all that the ones before it have measured. The ladder comes first: uniform lambdas, the ends,
then bisections of the steepest rise.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, PartialFixedSampler, RandomSampler, TPESampler

from autolambda.config import SearchConfig, Space
from autolambda.schedule import Profile, Schedule

MAX_TILT = 0.4
MIN_DISTANCE = 0.01  # in every parameter: less than that is the same schedule for all that can be measured
DIRECTIONS: tuple[Literal["maximize", "minimize"], ...] = ("maximize", "minimize")  # accuracy, mean_tokens
_DECIMALS = 4


@dataclass(frozen=True)
class Point:
    """A measured schedule: its parameters in the box and what it gave."""

    params: Mapping[str, float]
    accuracy: float
    mean_tokens: float
    think_ratio: float


def box(num_knots: int) -> dict[str, FloatDistribution]:
    """The parameters of every schedule, with their ranges."""
    tilts = {name: FloatDistribution(-MAX_TILT, MAX_TILT) for name in _tilts(num_knots)}
    return {"lam": FloatDistribution(0.0, 1.0), "split": FloatDistribution(-1.0, 1.0), **tilts}


def uniform_params(lam: float, *, num_knots: int) -> dict[str, float]:
    """The point of the box that is the uniform ``lam``."""
    return {"lam": lam, "split": 0.0, **dict.fromkeys(_tilts(num_knots), 0.0)}


def to_schedule(params: Mapping[str, float]) -> Schedule:
    """The schedule at a point of the box; values leaving [0, 1] are cut off."""
    tilts = [params[name] for name in sorted(params) if name.startswith("tilt_")]
    knots = tilts if any(tilts) else [0.0]
    attention, ffn = (
        Profile(tuple(round(min(1.0, max(0.0, params["lam"] + half + tilt)), _DECIMALS) for tilt in knots))
        for half in (params["split"] / 2, -params["split"] / 2)
    )
    return Schedule.by_depth_and_module(attention, ffn)


def propose(
    points: Sequence[Point],
    config: SearchConfig,
    *,
    budget: float | None,
    failed: Sequence[Mapping[str, float]] = (),
) -> dict[str, float]:
    """The next point, given all points measured so far, in their order. The same arguments give the same point.

    ``failed`` are the params of trials that could not be measured: they are not proposed again.
    """
    if len(points) < config.ladder:
        curve = [(lam, point.think_ratio) for point in points if (lam := _uniform_lam(point.params)) is not None]
        failed_lams = {lam for params in failed if (lam := _uniform_lam(params)) is not None}
        return uniform_params(next_rung(curve, failed_lams), num_knots=config.knots)
    held = _held(_space(len(points), config), config.knots)
    # after a failure the same points must give another point
    entropy = [config.seed, len(points), *([len(failed)] if failed else [])]
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    params = _ask(points, config, sampler=_sampler(config.sampler, seed), held=held, budget=budget)
    tried = [*(point.params for point in points), *failed]
    if any(_is_near(params, other) for other in tried):  # it would get the same responses again, or fail again
        params = _ask(points, config, sampler=RandomSampler(seed), held=held, budget=budget)
    return {name: round(value, _DECIMALS) for name, value in params.items()}


def next_rung(curve: Sequence[tuple[float, float]], failed: Collection[float] = ()) -> float:
    """The next uniform lambda from (lam, think_ratio) pairs: 0, 1, then the middle of the steepest rise.

    A gap counts by its rise and, a quarter as much, by its width, so that no part of the range stays unseen. ``failed``
    lambdas are passed over: the gap beside an end that failed counts by its width alone, and a middle that failed gives
    way to the middle of its lower half.
    """
    seen = {lam for lam, _ in curve}
    failed = set(failed) - seen
    ends = [end for end in (0.0, 1.0) if end not in seen]
    for end in ends:
        if end not in failed:
            return end
    # beside an end that failed no rise is known: its neighbour's ratio makes it 0
    ratios = [ratio for _, ratio in sorted(curve)] or [0.0]
    ordered = sorted([*curve, *((end, ratios[-1 if end else 0]) for end in ends)])
    gaps = [
        (abs(b[1] - a[1]) + (b[0] - a[0]) / 4, -a[0], _middle(a[0], b[0], failed))
        for a, b in itertools.pairwise(ordered)
    ]
    return max(gap for gap in gaps if gap[2] not in seen)[2]


def _middle(low: float, high: float, failed: Collection[float]) -> float:
    """The middle, or the middle of the lower half where that failed, and so on."""
    while (middle := (low + high) / 2) in failed:
        high = middle
    return middle


def _uniform_lam(params: Mapping[str, float]) -> float | None:
    """The lam of a uniform point; a ladder that is lengthened later finds others among the points."""
    return None if any(value for name, value in params.items() if name != "lam") else params["lam"]


def _tilts(num_knots: int) -> list[str]:
    return [f"tilt_{i}" for i in range(num_knots)]


def _space(num_measured: int, config: SearchConfig) -> Space:
    """The trials after the ladder are shared out evenly among the spaces, in their order."""
    after, total = num_measured - config.ladder, max(config.trials - config.ladder, 1)
    return config.spaces[min(after * len(config.spaces) // total, len(config.spaces) - 1)]


def _held(space: Space, num_knots: int) -> list[str]:
    """The parameters that a space holds at 0."""
    return [
        *(["split"] if space in ("uniform", "depth") else []),
        *(_tilts(num_knots) if space in ("uniform", "module") else []),
    ]


def _ask(
    points: Sequence[Point],
    config: SearchConfig,
    *,
    sampler: BaseSampler,
    held: Sequence[str],
    budget: float | None,
) -> dict[str, float]:
    """Asks a fresh Optuna sampler, which is told all points as they look for today's budget.

    With a budget the aim is the accuracy, constrained by the tokens; without one both are aims. A study keeps its
    directions and its constraints as they were told, and the budget may change: hence a study in memory.
    """
    directions = list(DIRECTIONS[:1] if budget is not None else DIRECTIONS)
    replay = optuna.create_study(directions=directions, sampler=RandomSampler(seed=0))
    space = box(config.knots)
    for point in points:
        replay.enqueue_trial(dict(point.params))
        trial = replay.ask(dict(space))
        if budget is not None:
            trial.set_constraint("budget", point.mean_tokens / budget - 1)
        replay.tell(trial, (point.accuracy, point.mean_tokens)[: len(directions)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # GPSampler divides 0 by 0 where no place looks better than another, and then goes on with the first
        warnings.filterwarnings("ignore", "invalid value encountered in divide", RuntimeWarning)
        replay.sampler = PartialFixedSampler(dict.fromkeys(held, 0.0), sampler) if held else sampler
        return dict(replay.ask(dict(space)).params)


def _is_near(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return all(abs(one[name] - other[name]) < MIN_DISTANCE for name in other)


def _sampler(name: str, seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "gp":
            return GPSampler(seed=seed, n_startup_trials=0)
        if name == "tpe":
            return TPESampler(seed=seed, n_startup_trials=0, multivariate=True)
        return RandomSampler(seed=seed)
