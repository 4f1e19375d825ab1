"""Proposes one point at a time by Optuna's TPE or GP sampler."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, PartialFixedSampler, RandomSampler, TPESampler

from autolambda.optimizer.observations import ACCURACY, TOKENS, Observation, Observations, is_tried
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.space import DECIMALS, Range

DIRECTIONS: tuple[Literal["maximize", "minimize"], ...] = ("maximize", "minimize")  # accuracy, mean_tokens
MOST_TRIES = 64


def distributions(ranges: Mapping[str, Range]) -> dict[str, FloatDistribution]:
    """Returns the search space as Optuna's distributions."""
    return {name: FloatDistribution(low, high) for name, (low, high) in ranges.items()}


def ask_optuna(
    observations: Observations, settings: SearchSettings, *, free: Sequence[str], budget: float | None
) -> dict[str, float] | None:
    """Returns the next point by ``settings.sampler``. The parameters that are not ``free`` are 0.

    If that point was tried before, another random one is drawn. ``None`` means that the space is used up.
    """
    # after a failure, equal observations must give another point
    entropy = [settings.seed, observations.num_trials, *([len(observations.failed)] if observations.failed else [])]
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    params = _ask(observations.measured, settings, sampler=_sampler(settings.sampler, seed), free=free, budget=budget)
    for again in range(MOST_TRIES):  # a tried point would get the same responses again, or fail again
        params = {name: round(value, DECIMALS) for name, value in params.items()}
        if not is_tried(params, observations):
            return params
        params = _ask(observations.measured, settings, sampler=RandomSampler(seed + again), free=free, budget=budget)
    return None


def _ask(
    measured: Sequence[Observation],
    settings: SearchSettings,
    *,
    sampler: BaseSampler,
    free: Sequence[str],
    budget: float | None,
) -> dict[str, float]:
    """Asks an Optuna sampler in a study that holds all observations for the current budget.

    With a budget the objective is accuracy, constrained by tokens. Without one both are objectives. Each call makes
    a new study in memory, because the budget may change, but a study's directions and constraints cannot.
    """
    directions = list(DIRECTIONS[:1] if budget is not None else DIRECTIONS)
    replay = optuna.create_study(directions=directions, sampler=RandomSampler(seed=0))
    space = distributions(settings.ranges)
    fixed = {name: 0.0 for name in space if name not in free}
    for each in measured:
        accuracy, mean_tokens = each.values[ACCURACY], each.values[TOKENS]
        trial = optuna.trial.create_trial(
            params={name: each.params.get(name, 0.0) for name in space},
            distributions=dict(space),
            values=(accuracy, mean_tokens)[: len(directions)],
            constraints=None if budget is None else {"budget": mean_tokens / budget - 1},
        )
        replay.add_trial(trial)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # GPSampler divides 0 by 0 if all points look equally good, and then takes the first one
        warnings.filterwarnings("ignore", "invalid value encountered in divide", RuntimeWarning)
        replay.sampler = PartialFixedSampler(fixed, sampler) if fixed else sampler
        return dict(replay.ask(dict(space)).params)


def _sampler(name: str, seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "gp":
            return GPSampler(seed=seed, n_startup_trials=0)
        return TPESampler(seed=seed, n_startup_trials=0, multivariate=True)
