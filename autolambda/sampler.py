"""Proposals: which schedule to measure next.

All schedules of a study live in one box: a lam for attention, a lam for ffn, and ``tilt_i``, what the i-th depth knot
adds to both. A space frees some of these and holds the rest, so that each space starts from all that the ones before
it have measured. The ladder comes first: uniform lambdas, the ends, then bisections of the steepest rise.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, PartialFixedSampler, RandomSampler, TPESampler

from autolambda.config import SearchConfig, Space
from autolambda.schedule import Profile, Schedule

MAX_TILT = 0.4
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
    lams = {name: FloatDistribution(0.0, 1.0) for name in ("attention", "ffn")}
    return {**lams, **{name: FloatDistribution(-MAX_TILT, MAX_TILT) for name in _tilts(num_knots)}}


def uniform_params(lam: float, *, num_knots: int) -> dict[str, float]:
    """The point of the box that is the uniform ``lam``."""
    return {"attention": lam, "ffn": lam, **dict.fromkeys(_tilts(num_knots), 0.0)}


def to_schedule(params: Mapping[str, float]) -> Schedule:
    """The schedule at a point of the box; values leaving [0, 1] are cut off."""
    tilts = [params[name] for name in sorted(params) if name.startswith("tilt_")]
    if not any(tilts):
        attention, ffn = Profile((params["attention"],)), Profile((params["ffn"],))
    else:
        attention, ffn = (
            Profile(tuple(round(min(1.0, max(0.0, params[name] + tilt)), _DECIMALS) for tilt in tilts))
            for name in ("attention", "ffn")
        )
    return Schedule.by_depth_and_module(attention, ffn)


def propose(points: Sequence[Point], config: SearchConfig, *, budget: float | None) -> dict[str, float]:
    """The next point, given all points measured so far, in their order. The same arguments give the same point."""
    if len(points) < config.ladder:
        return uniform_params(
            next_rung([(p.params["attention"], p.think_ratio) for p in points]), num_knots=config.knots
        )
    space = _space(len(points), config)
    params = _ask(points, config, held=() if space in ("depth", "both") else tuple(_tilts(config.knots)), budget=budget)
    params = {name: round(value, _DECIMALS) for name, value in params.items()}
    if space in ("uniform", "depth"):
        params["ffn"] = params["attention"]
    return params


def next_rung(curve: Sequence[tuple[float, float]]) -> float:
    """The next uniform lambda from (lam, think_ratio) pairs: 0, 1, then the middle of the steepest rise.

    A gap counts by its rise and, a quarter as much, by its width, so that no part of the range stays unseen.
    """
    seen = {lam for lam, _ in curve}
    for end in (0.0, 1.0):
        if end not in seen:
            return end
    ordered = sorted(curve)
    gaps = [
        (abs(b[1] - a[1]) + (b[0] - a[0]) / 4, -a[0], (a[0] + b[0]) / 2)
        for a, b in itertools.pairwise(ordered)
    ]
    return max(gap for gap in gaps if gap[2] not in seen)[2]


def _tilts(num_knots: int) -> list[str]:
    return [f"tilt_{i}" for i in range(num_knots)]


def _space(num_measured: int, config: SearchConfig) -> Space:
    """The trials after the ladder are shared out evenly among the spaces, in their order."""
    after, total = num_measured - config.ladder, max(config.trials - config.ladder, 1)
    return config.spaces[min(after * len(config.spaces) // total, len(config.spaces) - 1)]


def _ask(
    points: Sequence[Point], config: SearchConfig, *, held: Sequence[str], budget: float | None
) -> dict[str, float]:
    """Asks a fresh, freshly seeded Optuna sampler, which is told all points with the constraint of today's budget.

    Optuna keeps a trial's constraint as it was told, and a study's budget may change: hence a study in memory.
    """
    replay = optuna.create_study(directions=list(DIRECTIONS), sampler=RandomSampler(seed=0))
    space = box(config.knots)
    for point in points:
        replay.enqueue_trial(dict(point.params))
        trial = replay.ask(dict(space))
        if budget is not None:
            trial.set_constraint("budget", point.mean_tokens / budget - 1)
        replay.tell(trial, (point.accuracy, point.mean_tokens))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = _sampler(config, num_measured=len(points))
        replay.sampler = PartialFixedSampler(dict.fromkeys(held, 0.0), sampler) if held else sampler
        return dict(replay.ask(dict(space)).params)


def _sampler(config: SearchConfig, *, num_measured: int) -> BaseSampler:
    seed = int(np.random.SeedSequence([config.seed, num_measured]).generate_state(1)[0])
    if config.sampler == "gp":
        return GPSampler(seed=seed, n_startup_trials=0)
    if config.sampler == "tpe":
        return TPESampler(seed=seed, n_startup_trials=0, multivariate=True)
    return RandomSampler(seed=seed)
