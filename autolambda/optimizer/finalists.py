"""Chooses the finalists: the schedules to confirm on unseen prompts, their order and their numbers of responses.

The choice depends only on the search and is made before anything is confirmed (see ``statistics/verdict.py``). The
cheapest finalist is tested first; with guards and a budget, the finalist with the highest chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autolambda.optimizer import acquisition
from autolambda.optimizer.acquisition import Target
from autolambda.optimizer.aims import Aims, allowance_of, targets_of
from autolambda.optimizer.observations import Observations
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.surrogate import PosteriorSamples, Surrogate, fit
from autolambda.statistics.pareto import Objectives, front
from autolambda.statistics.verdict import confirmation_order

NUM_DRAWS = 512
LIKELY = 0.5  # chance to break no guard at which a schedule may be confirmed if there is no budget


@dataclass(frozen=True)
class Plan:
    """The finalists in testing order, as indices of the measured schedules; responses per finalist and per parent."""

    finalists: tuple[int, ...]
    num_responses: int
    num_parent: int


def plan(observations: Observations, settings: SearchSettings, aims: Aims, *, model: Surrogate | None = None) -> Plan:
    """Returns the finalists for the budget of ``aims``, or along the whole front without a budget.

    For a budget, the first is the most accurate schedule that is sure to be shown within it. The second has the largest
    expected gain over the first. The third is a fifth cheaper and may be as good. Without a budget, they are spread
    evenly over the predicted front of schedules that probably break no guard. ``model`` is a surrogate that is already
    fitted to the observations.
    """
    allowance = allowance_of(observations.measured, settings, aims)
    if allowance is None:  # only one end of the ladder is measured
        return Plan(tuple(range(len(observations.measured)))[: settings.finalists], aims.num_confirm, aims.num_confirm)
    schedules = [each.schedule for each in observations.measured]
    model = model or fit(observations, settings.knots, guards=aims.guards)
    draw = model.draw(schedules, num_draws=NUM_DRAWS, seed=settings.seed)
    predicted = draw.tokens.mean(axis=0).tolist()
    if aims.budget is None:
        chance = draw.allowed.mean(axis=0)
        scores = [Objectives(*pair) for pair in zip(draw.accuracy.mean(axis=0).tolist(), predicted, strict=True)]
        eligible = np.flatnonzero(chance >= min(LIKELY, float(chance.max()))).tolist()
        members = front(eligible, key=lambda index: scores[index])
        chosen = [members[i] for i in _even(len(members), settings.finalists)]
    else:
        target = targets_of(observations.measured, allowance, aims.budget)[0]
        chance = acquisition.chances(draw, target)
        chosen = _for_budget(draw, target, margin=settings.margin)[: settings.finalists]
    order = confirmation_order([predicted[index] for index in chosen])
    if aims.guards and aims.budget is not None:
        order = tuple(sorted(order, key=lambda i: -chance[chosen[i]]))
    finalists = tuple(chosen[i] for i in order)
    num_responses = allowance.num_final(
        [predicted[index] * observations.measured[index].cost_ratio for index in finalists]
    )
    return Plan(finalists, num_responses, num_responses if aims.guards else allowance.num_parent)


def _for_budget(draw: PosteriorSamples, target: Target, *, margin: float) -> list[int]:
    first = acquisition.surest(draw, target)
    others = (
        acquisition.best_expected(draw, target, than=first),
        acquisition.cheapest_equal(draw, than=first, margin=margin),
    )
    return list(dict.fromkeys([first, *(index for index in others if index is not None)]))


def _even(count: int, limit: int) -> list[int]:
    """Returns up to ``limit`` positions spread evenly over ``count``, both ends included."""
    if count <= limit:
        return list(range(count))
    return sorted({round(i * (count - 1) / max(limit - 1, 1)) for i in range(limit)})
