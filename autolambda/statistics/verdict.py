"""The verdict for a budget, from the confirmed responses of the finalists.

It is a fixed-sequence test (Maurer, Hothorn & Lehmacher 1995). The hypotheses ``mean tokens > budget`` are tested at
5 %, one by one in an order stated before the data, up to the first that is not rejected. The chance of any false
rejection stays at 5 % without a correction. With guards each hypothesis is ``too many tokens, or a guard broken``. It
is rejected where each part is at 5 % (an intersection-union test). So nobody has to say first which parent is better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from autolambda.errors import InputError
from autolambda.responses import Graded
from autolambda.statistics.estimates import Difference
from autolambda.statistics.guards import Drop, drop_of, keeps_guards
from autolambda.statistics.metrics import accuracy, mean_tokens, paired_difference, token_bounds


class Verdict(StrEnum):
    """What the confirmation says about a budget."""

    FEASIBLE = "feasible"
    UNCERTAIN = "uncertain"
    INFEASIBLE = "infeasible"


@dataclass(frozen=True)
class Finalist:
    """A confirmed schedule: its accuracy, mean tokens, and the two one-sided 95 % bounds of the latter.

    ``keeps`` says that it is shown to keep every guard, ``breaks`` that it is shown to break one; neither may be.
    """

    accuracy: float
    mean_tokens: float
    tokens_lower: float
    tokens_upper: float
    keeps: bool = True
    breaks: bool = False


@dataclass(frozen=True)
class Decision:
    """Indices into the finalists.

    ``pick`` is the answer and ``best`` the most accurate that passed: both ``None`` unless feasible. ``nearest`` has
    the smallest mean tokens, of those not shown to break a guard if there are any. ``passed`` are those shown to be
    within the budget and to keep every guard.
    """

    verdict: Verdict
    pick: int | None
    best: int | None
    nearest: int
    passed: tuple[int, ...]


def confirmation_order(predicted_tokens: Sequence[float]) -> tuple[int, ...]:
    """The order in which finalists are tested: predicted mean tokens ascending, ties as given.

    To be called, and its result recorded, before the first confirmation response is seen.
    """
    if any(math.isnan(tokens) for tokens in predicted_tokens):
        raise InputError("a finalist without a predicted number of tokens cannot be put in order")
    return tuple(sorted(range(len(predicted_tokens)), key=lambda index: predicted_tokens[index]))


def decide(
    finalists: Sequence[Finalist], *, budget: float, difference_lower: Callable[[int, int], float], margin: float = 0.01
) -> Decision:
    """The verdict over ``finalists``, given in their testing order, and the pick.

    ``difference_lower(i, j)`` is the one-sided 95 % lower bound of the paired difference accuracy i minus accuracy j.
    The most accurate of those that passed is picked, unless a cheaper one is shown to lose less than ``margin``: then
    the cheapest such. A false ``infeasible`` needs a bound of a truly feasible finalist to fail: at most 5 % for each
    constraint, tokens or a guard, at the edge of which it lies. Raises ``InputError`` without finalists.
    """
    if not finalists:
        raise InputError("no finalist to decide on: confirm at least one schedule")
    tokens = [finalist.mean_tokens for finalist in finalists]
    nearest = min(range(len(finalists)), key=lambda i: (finalists[i].breaks, tokens[i]))
    passes = [finalist.tokens_upper <= budget and finalist.keeps for finalist in finalists]
    num_passed = next((i for i, passed in enumerate(passes) if not passed), len(finalists))
    passed = tuple(range(num_passed))
    if not passed:
        fails = all(finalist.tokens_lower > budget or finalist.breaks for finalist in finalists)
        return Decision(Verdict.INFEASIBLE if fails else Verdict.UNCERTAIN, None, None, nearest, passed)
    best = max(passed, key=lambda i: (finalists[i].accuracy, -tokens[i]))
    cheaper = [i for i in passed if tokens[i] < tokens[best] and difference_lower(i, best) > -margin]
    return Decision(Verdict.FEASIBLE, min([*cheaper, best], key=tokens.__getitem__), best, nearest, passed)


def verdict(
    graded: Sequence[Sequence[Graded]],
    *,
    budget: float,
    margin: float,
    weights: Mapping[str, float],
    drops: Sequence[Mapping[str, Drop]] = (),
) -> Decision:
    """The decision for a budget from the confirmed responses of the finalists, in testing order.

    ``drops`` are those of each finalist on the guards, by ``drops_of``; without any there is no guard.
    """
    finalists = []
    for responses, lost in zip(graded, drops or [{} for _ in graded], strict=True):
        bounds = token_bounds(responses, weights=weights)
        right, tokens = accuracy(responses, weights=weights), mean_tokens(responses, weights=weights)
        kept = keeps_guards(lost)
        finalists.append(
            Finalist(right.value, tokens.value, bounds.lower, bounds.upper, kept is not None and kept, kept is False)
        )

    def difference_lower(left: int, right: int) -> float:
        return difference(graded[left], graded[right], weights=weights).lower_bound

    return decide(finalists, budget=budget, difference_lower=difference_lower, margin=margin)


def drops_of(
    graded: Sequence[Graded], parents: Iterable[Sequence[Graded]], *, guards: Mapping[str, float]
) -> dict[str, Drop]:
    """What a schedule loses on each guard task (name -> what it may lose) against the better of the ``parents``.

    Over the responses that it has in common with each of them; a task of which there are none is left unsure.
    """
    parents = list(parents)
    found = {}
    for task, max_drop in guards.items():
        sides = [[each for each in side if each.task == task] for side in (graded, *parents)]
        if all(sides):
            gains = [difference(sides[0], parent, weights={task: 1.0}) for parent in sides[1:]]
            found[task] = drop_of(gains, max_drop=max_drop)
        else:
            found[task] = Drop(0.0, -1.0, 1.0, max_drop, None)
    return found


def difference(left: Sequence[Graded], right: Sequence[Graded], *, weights: Mapping[str, float]) -> Difference:
    """Accuracy of ``left`` minus that of ``right``, over the responses that both have: budgets differ in how many."""
    shared = {each.key for each in left} & {each.key for each in right}
    one, other = ([each for each in side if each.key in shared] for side in (left, right))
    return paired_difference(one, other, weights=weights)
