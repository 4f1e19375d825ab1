"""The race: whether a schedule is measured further, decided after each rung and, by its tokens, within one.

All schedules answer the same prompts in the same order, and the surrogate compares them with the luck that they share.
"""

from __future__ import annotations

import math
from dataclasses import replace

from autolambda.optimizer.acquisition import is_dominated
from autolambda.optimizer.observations import Observations, leading
from autolambda.optimizer.propose import Aims, fit
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.surrogate import ENDS
from autolambda.schedule import Schedule

OVER_BUDGET, OFF_FRONT, GUARD = "over the budget", "off the front", "breaks a guard"
CERTAIN = 0.975  # the chance of being above the budget, or of breaking a guard, at which a schedule is stopped
NUM_DRAWS = 256
_DEVIATIONS = 3.0  # of a mean of lengths that vary as much as they are long


def most_tokens(num_responses: int, budget: float | None) -> float:
    """The tokens that so many responses may hold before their mean, whatever their luck, is above the budget.

    Running responses count with what they have so far: their sum only grows. Each weighs as its task does.
    """
    if budget is None:
        return math.inf
    return num_responses * budget * (1 + _DEVIATIONS / math.sqrt(num_responses))


def exceeded(num_tokens: float, num_responses: int) -> float:
    """The mean tokens that a schedule surely exceeds whose ``num_responses`` were stopped at so many tokens."""
    return num_tokens / num_responses / (1 + _DEVIATIONS / math.sqrt(num_responses))


def stopped_for(schedule: Schedule, evidence: Observations, settings: SearchSettings, aims: Aims) -> str | None:
    """Why a measured schedule needs no further responses, ``None`` where it may still be the answer.

    The ends are not stopped for a guard: the drop of all others is against the better of them.
    """
    points = leading(evidence.points, num_knots=settings.knots, about=schedule)
    schedules = [point.observation.schedule for point in points]
    draw = fit(replace(evidence, points=points), settings.knots, guards=aims.guards).draw(
        schedules, num_draws=NUM_DRAWS, seed=len(evidence.costs)
    )
    index = schedules.index(schedule)
    if aims.budget is not None and float((draw.tokens[:, index] > aims.budget).mean()) >= CERTAIN:
        return OVER_BUDGET
    if schedule not in ENDS and float(draw.allowed[:, index].mean()) <= 1 - CERTAIN:
        return GUARD
    return OFF_FRONT if is_dominated(draw, index) else None
