"""Confirmation: the finalists on prompts that the search never saw, with fresh seeds, and the verdict for a budget.

The finalists and the order in which they are tested follow from the search alone, before anything is confirmed
(fixed-sequence testing, see ``pareto.decide``): cheapest first, each at 5 %, so that the chance of any false
``feasible`` stays at 5 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autolambda.entry import Entry
from autolambda.metrics import accuracy, mean_tokens, paired_difference, token_bounds
from autolambda.pareto import Decision, Finalist, confirmation_order, decide, front
from autolambda.responses import Graded
from autolambda.schedule import Schedule


def choose_finalists(candidates: Sequence[Entry], *, budget: float | None, limit: int) -> list[Entry]:
    """Up to ``limit`` candidates to confirm, in testing order: mean tokens ascending.

    With a budget: half of the places go to the most accurate whose tokens are below it with their upper bound (they
    can be proven), the others to the most accurate whose mean is below it (they may be better). Where none is, the
    cheapest. Without a budget: an even choice along the front. Of equal schedules the first counts.
    """
    first: dict[Schedule, Entry] = {}
    for candidate in candidates:
        first.setdefault(candidate.schedule, candidate)
    candidates = list(first.values())
    if budget is None:
        members = front(candidates, key=lambda c: c.score)
        chosen = [members[i] for i in _even(len(members), limit)]
    else:
        safe = _best([c for c in candidates if c.measured.mean_tokens.high <= budget])
        within = _best([c for c in candidates if c.measured.mean_tokens.value <= budget])
        chosen = safe[: (limit + 1) // 2]
        chosen += [c for c in within if c not in chosen][: limit - len(chosen)]
        if not chosen:
            chosen = sorted(candidates, key=lambda c: c.score.mean_tokens)[: (limit + 1) // 2]
    order = confirmation_order([c.score.mean_tokens for c in chosen])
    return [chosen[i] for i in order]


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
        return paired_difference(graded[left], graded[right], weights=weights).lower_bound

    return decide(finalists, budget=budget, difference_lower=difference_lower, margin=margin)


def _best(candidates: Sequence[Entry]) -> list[Entry]:
    return sorted(candidates, key=lambda c: (-c.score.accuracy, c.score.mean_tokens))


def _even(count: int, limit: int) -> list[int]:
    """Up to ``limit`` positions spread evenly over ``count``, both ends included."""
    if count <= limit:
        return list(range(count))
    return sorted({round(i * (count - 1) / max(limit - 1, 1)) for i in range(limit)})
