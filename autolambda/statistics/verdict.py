"""The verdict for a budget, from the confirmed responses of the finalists.

It is a fixed-sequence test (Maurer, Hothorn & Lehmacher 1995). The hypotheses ``mean tokens > budget`` are tested at
5 %, in an order that is fixed before the data, up to the first that is not rejected. The chance of any false rejection
stays at 5 % without a correction. With guards each hypothesis is ``too many tokens, or a guard broken``. It is rejected
if each part is rejected at 5 % (an intersection-union test). So the better parent need not be known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from autolambda.errors import InputError
from autolambda.responses import Graded
from autolambda.statistics.estimates import chance_within
from autolambda.statistics.guards import Drop, drop_of, keeps_guards
from autolambda.statistics.metrics import accuracy, difference, mean_tokens, token_bounds

LIKELY = 0.8  # chance to be within the budget at which an unproven pick is named
LEAST_PROMPTS = 20  # in the confirmation, for any claim
# Simulated coverage of the upper bound of mean tokens, where one response in eight is ten times as long (a merge that
# begins to think): 75 % with 5 prompts, 78 % with 10, 84 % with 16, 90 % with 20, 95 % with 30. It should be 95 %.
NO_DROPS: Mapping[str, Drop] = MappingProxyType({})


class Verdict(StrEnum):
    """The result of the confirmation for a budget."""

    FEASIBLE = "feasible"
    UNCERTAIN = "uncertain"
    INFEASIBLE = "infeasible"


@dataclass(frozen=True)
class Confirmed:
    """A confirmed schedule: its accuracy, its mean tokens, and two one-sided 95 % bounds of the mean tokens.

    ``keeps`` is true if it is shown to keep every guard, ``breaks`` if it is shown to break one. Both may be false.
    ``chance`` is the chance that its mean tokens are within the budget. ``is_enough`` says whether at least
    ``LEAST_PROMPTS`` prompts were answered; with fewer nothing is shown.
    """

    accuracy: float
    mean_tokens: float
    tokens_lower: float
    tokens_upper: float
    keeps: bool = True
    breaks: bool = False
    chance: float = 0.0
    is_enough: bool = True

    def passes(self, budget: float) -> bool:
        """Returns whether it is shown to be within the budget and to keep every guard."""
        return self.is_enough and self.tokens_upper <= budget and self.keeps

    def fails(self, budget: float) -> bool:
        """Returns whether it is shown to be over the budget or to break a guard."""
        return self.is_enough and (self.tokens_lower > budget or self.breaks)


@dataclass(frozen=True)
class Decision:
    """Indices into the finalists.

    ``passed`` are the finalists shown to be within the budget and to keep every guard. ``best`` is the most accurate of
    them and ``pick`` is the answer; both are ``None`` unless a finalist passed. ``uniform`` is the most accurate of
    them with one lambda for all weights. It replaces ``passed_over`` as ``best`` if that is expected to lead by less
    than the margin. ``beyond`` is the most accurate of them if it reads a further model, and ``line`` the most accurate
    of the others. ``rival`` is the parent that alone keeps ``beyond`` from being ``best``. All three are ``None``
    unless ``beyond`` has a line or a rival beside it. ``parent`` names the parent that is the answer instead, because
    no merge is more accurate. ``nearest`` has the smallest mean tokens, if possible among the finalists that are not
    shown to break a guard. ``likely`` is more accurate than the answer and within the budget with a chance of at least
    ``LIKELY``, but not proven.
    """

    verdict: Verdict
    pick: int | None
    best: int | None
    nearest: int
    passed: tuple[int, ...]
    parent: str | None = None
    likely: int | None = None
    uniform: int | None = None
    passed_over: int | None = None
    beyond: int | None = None
    line: int | None = None
    rival: str | None = None


def confirmation_order(predicted_tokens: Sequence[float]) -> tuple[int, ...]:
    """Returns the order in which finalists are tested: ascending predicted mean tokens, ties as given.

    Call it and store its result before the first response of the confirmation is seen. Raises ``InputError`` for a
    prediction that is not a number.
    """
    if any(math.isnan(tokens) for tokens in predicted_tokens):
        raise InputError("a finalist without a predicted number of tokens cannot be put in order")
    return tuple(sorted(range(len(predicted_tokens)), key=lambda index: predicted_tokens[index]))


def decide(
    finalists: Sequence[Confirmed],
    *,
    budget: float,
    difference_lower: Callable[[int, int | str], float],
    margin: float = 0.01,
    scores: Sequence[float] | None = None,
    parents: Mapping[str, Confirmed] = MappingProxyType({}),
    uniform: Collection[int] = (),
    beyond: Collection[int] = (),
) -> Decision:
    """Returns the verdict and the pick. ``finalists`` are in testing order, at least up to the first failure.

    ``difference_lower(i, j)`` is the one-sided 95 % lower bound of the paired difference accuracy i minus accuracy j;
    j may name a parent. The best is the finalist that passed with the highest of the ``scores`` (by default the
    confirmed accuracies). ``uniform`` are the finalists with one lambda for all weights. The best of these is preferred
    to another best whose score is less than ``margin`` higher, because it is simpler. Those ``beyond`` the line between
    the parents must be shown to be better, with a lower bound above 0, than each parent that is shown within the
    budget, and than the best merge on the line, which they must lead by ``margin``. The pick is the best, or the
    cheapest finalist shown to lose less than ``margin``. A parent that is shown within the budget is the answer instead
    if its accuracy is at least the best's score. A false ``infeasible`` requires that a bound of a truly feasible
    finalist fails. For a finalist at the limit of a constraint (tokens or a guard) the chance is at most 5 % per
    constraint. With fewer than ``LEAST_PROMPTS`` prompts the verdict is ``uncertain``. Raises ``InputError``
    without finalists.
    """
    if not finalists:
        raise InputError("no finalist to decide on: confirm at least one schedule")
    scores = [finalist.accuracy for finalist in finalists] if scores is None else scores
    tokens = [finalist.mean_tokens for finalist in finalists]
    nearest = min(range(len(finalists)), key=lambda i: (finalists[i].breaks, tokens[i]))
    num_passed = next((i for i, each in enumerate(finalists) if not each.passes(budget)), len(finalists))
    passed = tuple(range(num_passed))
    within = {name: each for name, each in parents.items() if each.passes(budget)}
    parent = max(within, key=lambda name: (within[name].accuracy, -within[name].mean_tokens), default=None)
    most = max(passed, key=lambda i: (scores[i], -tokens[i]), default=None)
    plain = max(set(passed) & set(uniform), key=lambda i: (scores[i], -tokens[i]), default=None)
    straight = tuple(i for i in passed if i not in beyond)
    line = max(straight, key=lambda i: (scores[i], -tokens[i]), default=None)
    far, eligible, rival = most if most in beyond else None, passed, None
    if far is not None:
        margins = {i: math.inf if line is None else scores[i] - scores[line] for i in passed if i in beyond}
        leads = [i for i in margins if margins[i] >= margin and (line is None or difference_lower(i, line) > 0)]
        unbeaten = {i: [name for name in within if difference_lower(i, name) <= 0] for i in leads}
        shown = tuple(i for i in leads if not unbeaten[i])
        most, eligible = (far, shown) if far in shown else (line, straight)
        rival = next(iter(unbeaten.get(far, ())), None)
    best, pick, reached = most, None, -1.0
    if most is not None and best is not None:
        if plain is not None and scores[most] - scores[plain] < margin:
            best, eligible = plain, tuple(i for i in passed if i in uniform)
        cheaper = [i for i in eligible if tokens[i] < tokens[best] and difference_lower(i, most) > -margin]
        pick = min([*cheaper, best], key=tokens.__getitem__)
        reached = scores[best]
    if parent is not None and within[parent].accuracy < reached:
        parent = None
    if parent is not None:
        reached = within[parent].accuracy
    probable = [each.is_enough and each.chance >= LIKELY for each in finalists]
    bold = [i for i in range(num_passed, len(finalists)) if probable[i] and scores[i] > reached]
    likely = max(bold, key=lambda i: scores[i], default=None)
    if pick is None and parent is None:
        fails = all(finalist.fails(budget) for finalist in finalists)
        return Decision(Verdict.INFEASIBLE if fails else Verdict.UNCERTAIN, None, None, nearest, passed, likely=likely)
    passed_over = most if best != most else None
    beside = (far, line, rival) if far is not None and (line, rival) != (None, None) else (None, None, None)
    return Decision(Verdict.FEASIBLE, pick, best, nearest, passed, parent, likely, plain, passed_over, *beside)


def confirmed_of(
    graded: Sequence[Graded], *, budget: float, weights: Mapping[str, float], drops: Mapping[str, Drop] = NO_DROPS
) -> Confirmed:
    """Returns the numbers of a confirmed schedule. ``drops`` are its losses on the guard tasks, if there are any."""
    bounds, tokens = token_bounds(graded, weights=weights), mean_tokens(graded, weights=weights)
    kept = keeps_guards(drops)
    return Confirmed(
        accuracy(graded, weights=weights).value,
        tokens.value,
        bounds.lower,
        bounds.upper,
        keeps=kept is True,
        breaks=kept is False,
        chance=chance_within(tokens.value, bounds, budget=budget),
        is_enough=tokens.num_prompts >= LEAST_PROMPTS,
    )


def verdict(
    graded: Sequence[Sequence[Graded]],
    *,
    budget: float,
    margin: float,
    weights: Mapping[str, float],
    drops: Sequence[Mapping[str, Drop]] = (),
    parents: Mapping[str, Confirmed] = MappingProxyType({}),
    own: Mapping[str, Sequence[Graded]] = MappingProxyType({}),
    combined: Callable[[Sequence[float]], Sequence[float]] = list,
    uniform: Collection[int] = (),
    beyond: Collection[int] = (),
) -> Decision:
    """Returns the decision for a budget from the confirmed responses of the finalists, in testing order.

    ``drops`` holds the result of ``drops_of`` for each finalist; it is empty without guards. ``parents`` are Instruct
    and Thinking under their own templates, and ``own`` their responses. ``combined`` turns confirmed accuracies into
    the scores of ``decide``, and ``uniform`` and ``beyond`` are passed to it.
    """
    finalists = [
        confirmed_of(responses, budget=budget, weights=weights, drops=lost)
        for responses, lost in zip(graded, drops or [NO_DROPS for _ in graded], strict=True)
    ]

    def difference_lower(left: int, right: int | str) -> float:
        other = own[right] if isinstance(right, str) else graded[right]
        return difference(graded[left], other, weights=weights).lower_bound

    return decide(
        finalists,
        budget=budget,
        difference_lower=difference_lower,
        margin=margin,
        scores=combined([finalist.accuracy for finalist in finalists]),
        parents=parents,
        uniform=uniform,
        beyond=beyond,
    )


def drops_of(
    graded: Sequence[Graded], parents: Iterable[Sequence[Graded]], *, guards: Mapping[str, float]
) -> dict[str, Drop]:
    """Returns a schedule's loss of accuracy on each guard task against the better of the ``parents``.

    ``guards`` map a task to the accuracy that may be lost. The schedule and a parent are compared on
    the responses that both have. A task is neither kept nor broken if the schedule or a parent has no responses to it.
    """
    parents = list(parents)
    drops = {}
    for task, max_drop in guards.items():
        sides = [[each for each in side if each.task == task] for side in (graded, *parents)]
        if all(sides):
            gains = [difference(sides[0], parent, weights={task: 1.0}) for parent in sides[1:]]
            drops[task] = drop_of(gains, max_drop=max_drop)
        else:
            drops[task] = Drop(0.0, -1.0, 1.0, max_drop, None)
    return drops
