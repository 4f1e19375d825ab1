"""Confirmation: the finalists on prompts that the search never saw, with fresh seeds, and the verdict for a budget.

The finalists, the order in which they are tested and the number of their responses follow from the search alone,
before anything is confirmed (fixed-sequence testing, see ``pareto.decide``): cheapest first, or with guards the
likeliest first, each at 5 %, so that the chance of any false ``feasible`` stays at 5 %. A guard asks of a finalist that
it is shown, prompt by prompt, to lose no more than it may against either parent: that is an intersection-union test
together with the tokens, at 5 % each, and no parent has to be called the better one by the same data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autolambda.optimizer import acquisition
from autolambda.optimizer.acquisition import Target
from autolambda.optimizer.observations import Observations
from autolambda.optimizer.propose import Aims, allowance_of, fit, targets_of
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.surrogate import PosteriorSamples, Surrogate
from autolambda.statistics.pareto import Objectives, front
from autolambda.statistics.verdict import confirmation_order

NUM_DRAWS = 512
LIKELY = 0.5  # the chance to break no guard from which a schedule may be confirmed where no budget asks for more


@dataclass(frozen=True)
class Plan:
    """Which points are confirmed, in testing order, on how many responses each; and on how many the parents."""

    finalists: tuple[int, ...]
    num_responses: int
    num_parent: int


def plan(evidence: Observations, settings: SearchSettings, aims: Aims, *, model: Surrogate | None = None) -> Plan:
    """The plan for the aims' budget, or for the whole front: indices into the evidence's points.

    With a budget: the most accurate schedule that is sure to be shown within it, one that is expected to be worth the
    risk, and one that is a fifth cheaper and may be as good. Without: an even choice along the predicted front, of
    what rather breaks no guard than one. With guards the parents are confirmed on as many responses as the finalists.
    ``model`` is that of the evidence, where it is fitted already.
    """
    granted = allowance_of(evidence.points, settings, aims)
    if granted is None:  # a ladder without an end: what there is, as far as the slice goes
        return Plan(tuple(range(len(evidence.points)))[: settings.finalists], aims.num_confirm, aims.num_confirm)
    schedules = [point.observation.schedule for point in evidence.points]
    model = model or fit(evidence, settings.knots, guards=aims.guards)
    draw = model.draw(schedules, num_draws=NUM_DRAWS, seed=settings.seed)
    predicted = draw.tokens.mean(axis=0).tolist()
    if aims.budget is None:
        chance = draw.allowed.mean(axis=0)
        scores = [Objectives(*pair) for pair in zip(draw.accuracy.mean(axis=0).tolist(), predicted, strict=True)]
        places = np.flatnonzero(chance >= min(LIKELY, float(chance.max()))).tolist()
        members = front(places, key=lambda index: scores[index])
        chosen = [members[i] for i in _even(len(members), settings.finalists)]
    else:
        target = targets_of(evidence.points, granted, aims.budget)[0]
        chance = acquisition.chances(draw, target)
        chosen = _for_budget(draw, target, margin=settings.margin)[: settings.finalists]
    order = confirmation_order([predicted[index] for index in chosen])
    if aims.guards and aims.budget is not None:
        order = tuple(sorted(order, key=lambda place: -chance[chosen[place]]))
    finalists = tuple(chosen[i] for i in order)
    num_responses = granted.num_final([predicted[index] * evidence.points[index].cost_ratio for index in finalists])
    return Plan(finalists, num_responses, num_responses if aims.guards else granted.num_parent)


def _for_budget(draw: PosteriorSamples, target: Target, *, margin: float) -> list[int]:
    first = acquisition.safe(draw, target)
    others = (acquisition.bold(draw, target, than=first), acquisition.frugal(draw, than=first, margin=margin))
    return list(dict.fromkeys([first, *(index for index in others if index is not None)]))


def _even(count: int, limit: int) -> list[int]:
    """Up to ``limit`` positions spread evenly over ``count``, both ends included."""
    if count <= limit:
        return list(range(count))
    return sorted({round(i * (count - 1) / max(limit - 1, 1)) for i in range(limit)})
