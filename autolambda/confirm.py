"""Confirmation: the finalists on prompts that the search never saw, with fresh seeds, and the verdict for a budget.

The finalists, the order in which they are tested and the number of their responses follow from the search alone,
before anything is confirmed (fixed-sequence testing, see ``pareto.decide``): cheapest first, each at 5 %, so that the
chance of any false ``feasible`` stays at 5 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autolambda import acquisition
from autolambda.acquisition import Target
from autolambda.config import Config
from autolambda.evidence import Evidence
from autolambda.metrics import Difference, accuracy, mean_tokens, paired_difference, token_bounds
from autolambda.pareto import Decision, Finalist, Score, confirmation_order, decide, front
from autolambda.responses import Graded
from autolambda.sampler import Aims, allowance_of, fit, targets_of
from autolambda.surrogate import Draw

NUM_DRAWS = 512


@dataclass(frozen=True)
class Plan:
    """Which points are confirmed, in testing order, on how many responses each; and on how many the parents."""

    finalists: tuple[int, ...]
    num_responses: int
    num_parent: int


def plan(evidence: Evidence, config: Config, aims: Aims) -> Plan:
    """The plan for the aims' budget, or for the whole front: indices into the evidence's points.

    With a budget: the most accurate schedule that is sure to be shown within it, one that is expected to be worth the
    risk, and one that is a fifth cheaper and may be as good. Without: an even choice along the predicted front.
    """
    granted = allowance_of(evidence.points, config.search, aims)
    if granted is None:  # a ladder without an end: what there is, as far as the slice goes
        return Plan(tuple(range(len(evidence.points)))[: config.confirm.finalists], aims.num_confirm, aims.num_confirm)
    schedules = [point.observation.schedule for point in evidence.points]
    draw = fit(evidence, config.search.knots).draw(schedules, num_draws=NUM_DRAWS, seed=config.search.seed)
    predicted = draw.tokens.mean(axis=0).tolist()
    if aims.budget is None:
        scores = [Score(*pair) for pair in zip(draw.accuracy.mean(axis=0).tolist(), predicted, strict=True)]
        members = front(range(len(schedules)), key=lambda index: scores[index])
        chosen = [members[i] for i in _even(len(members), config.confirm.finalists)]
    else:
        target = targets_of(evidence.points, granted, aims.budget)[0]
        chosen = _for_budget(draw, target, margin=config.confirm.margin)[: config.confirm.finalists]
    order = confirmation_order([predicted[index] for index in chosen])
    finalists = tuple(chosen[i] for i in order)
    return Plan(finalists, granted.num_final([predicted[index] for index in finalists]), granted.num_parent)


def _for_budget(draw: Draw, target: Target, *, margin: float) -> list[int]:
    first = acquisition.safe(draw, target)
    others = (acquisition.bold(draw, target, than=first), acquisition.frugal(draw, than=first, margin=margin))
    return list(dict.fromkeys([first, *(index for index in others if index is not None)]))


def verdict(
    graded: Sequence[Sequence[Graded]], *, budget: float, margin: float, weights: Mapping[str, float]
) -> Decision:
    """The decision for a budget from the confirmed responses of the finalists, in testing order."""
    finalists = []
    for responses in graded:
        bounds = token_bounds(responses, weights=weights)
        right, tokens = accuracy(responses, weights=weights), mean_tokens(responses, weights=weights)
        finalists.append(Finalist(right.value, tokens.value, bounds.lower, bounds.upper))

    def difference_lower(left: int, right: int) -> float:
        return difference(graded[left], graded[right], weights=weights).lower_bound

    return decide(finalists, budget=budget, difference_lower=difference_lower, margin=margin)


def difference(left: Sequence[Graded], right: Sequence[Graded], *, weights: Mapping[str, float]) -> Difference:
    """Accuracy of ``left`` minus that of ``right``, over the responses that both have: budgets differ in how many."""
    keys = [{(each.task, each.sample_id, each.repeat) for each in side} for side in (left, right)]
    shared = keys[0] & keys[1]
    one, other = (
        [each for each in side if (each.task, each.sample_id, each.repeat) in shared] for side in (left, right)
    )
    return paired_difference(one, other, weights=weights)


def _even(count: int, limit: int) -> list[int]:
    """Up to ``limit`` positions spread evenly over ``count``, both ends included."""
    if count <= limit:
        return list(range(count))
    return sorted({round(i * (count - 1) / max(limit - 1, 1)) for i in range(limit)})
