"""Optuna's own samplers as users know them, asked for one point at a time."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, PartialFixedSampler, RandomSampler, TPESampler

from autolambda.optimizer.observations import Observations, Point, is_tried
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.space import DECIMALS, box
from autolambda.optimizer.surrogate import ACCURACY, TOKENS

DIRECTIONS: tuple[Literal["maximize", "minimize"], ...] = ("maximize", "minimize")  # accuracy, mean_tokens
MOST_TRIES = 64


def distributions(num_knots: int) -> dict[str, FloatDistribution]:
    """The box in Optuna's words."""
    return {name: FloatDistribution(low, high) for name, (low, high) in box(num_knots).items()}


def ask_optuna(
    evidence: Observations, settings: SearchSettings, *, free: Sequence[str], budget: float | None
) -> dict[str, float] | None:
    """The next point by ``settings.sampler``, with the parameters that are not ``free`` at 0.

    Where that one was tried, another at random; ``None`` where those were tried too: the space is used up.
    """
    # after a failure the same points must give another point
    entropy = [settings.seed, evidence.num_trials, *([len(evidence.failed)] if evidence.failed else [])]
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    params = _ask(evidence.points, settings, sampler=_sampler(settings.sampler, seed), free=free, budget=budget)
    for again in range(MOST_TRIES):  # a tried one would get the same responses again, or fail again
        params = {name: round(value, DECIMALS) for name, value in params.items()}
        if not is_tried(params, evidence):
            return params
        params = _ask(evidence.points, settings, sampler=RandomSampler(seed + again), free=free, budget=budget)
    return None


def _ask(
    points: Sequence[Point],
    settings: SearchSettings,
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
    space = distributions(settings.knots)
    held = {name: 0.0 for name in space if name not in free}
    for point in points:
        accuracy, mean_tokens = point.observation.values[ACCURACY], point.observation.values[TOKENS]
        told = optuna.trial.create_trial(
            params={**dict.fromkeys(space, 0.0), **point.params},
            distributions=dict(space),
            values=(accuracy, mean_tokens)[: len(directions)],
            constraints=None if budget is None else {"budget": mean_tokens / budget - 1},
        )
        replay.add_trial(told)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # GPSampler divides 0 by 0 where no place looks better than another, and then goes on with the first
        warnings.filterwarnings("ignore", "invalid value encountered in divide", RuntimeWarning)
        replay.sampler = PartialFixedSampler(held, sampler) if held else sampler
        return dict(replay.ask(dict(space)).params)


def _sampler(name: str, seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "gp":
            return GPSampler(seed=seed, n_startup_trials=0)
        return TPESampler(seed=seed, n_startup_trials=0, multivariate=True)
