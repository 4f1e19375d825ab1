"""What is true of a search: facts of its case at a budget, and what its answer loses.

All accuracies are shares of 1 here; a loss is in points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from bank import Params, Truth, Truths
from cases import Case

from autolambda.optimizer.space import uniform_params
from autolambda.statistics.estimates import Z_95_ONE_SIDED
from autolambda.statistics.stages import EMERGENCE_AT, SATURATION_AT

NUM_KNOTS = 3
NUM_LAMS, NUM_MODULE_LAMS, NUM_SPLITS = 401, 201, 81  # of the grids on which the best is looked for
NOTHING_LEFT = 0.8  # of the best accuracy is lost without an answer where Instruct is over the budget
OVER_BUDGET = 5.0  # points, lost at least by an answer that is over the budget
WORTH = 0.01  # accuracy over the better parent, from which a merge should be found
SAME_ACCURACY, SAME_TOKENS = 0.005, 0.02  # a trial this near to an earlier one is wasted


@dataclass(frozen=True)
class Facts:
    """The truth of a case at a budget.

    ``best`` is the highest accuracy within the budget, over attention x ffn where the case has it, else over uniform
    lambdas. ``provable`` is the highest of a uniform lambda that half of the rows can be expected to prove: its mean
    tokens with 1.645 expected standard errors are within the budget. ``None`` where there is none.
    """

    best: float | None
    provable: float | None
    instruct: Truth
    thinking: Truth

    def parent(self, name: str) -> Truth:
        """The truth of ``instruct`` or ``thinking``."""
        return {"instruct": self.instruct, "thinking": self.thinking}[name]


def facts_of(case: Case, budget: float) -> Facts:
    """The truth of a case at a budget, kept in memory."""
    uniform, module = _uniform_grid(case), _module_grid(case)
    inside = [truth.accuracy for truth in (*uniform, *module) if truth.mean_tokens <= budget]
    lams = np.linspace(0, 1, NUM_LAMS)
    proven = [
        truth.accuracy
        for lam, truth in zip(lams, uniform, strict=True)
        if truth.mean_tokens <= budget and _expected_bound(case, float(lam), truth) <= budget
    ]
    return Facts(max(inside, default=None), max(proven, default=None), uniform[0], uniform[-1])


@cache
def crossings(case: Case) -> dict[str, float | None]:
    """The lambdas at which the true Think ratio passes emergence and saturation, ``None`` where it does not."""
    ratios = np.maximum.accumulate([truth.think_ratio for truth in _uniform_grid(case)])
    lams = np.linspace(0, 1, NUM_LAMS)
    return {
        name: float(lams[np.argmax(ratios >= level)]) if ratios[0] < level <= ratios[-1] else None
        for name, level in (("emergence", EMERGENCE_AT), ("saturation", SATURATION_AT))
    }


def num_wasted(truths: Truths, places: Sequence[Params]) -> int:
    """The places whose truth is within half a point and 2 % of tokens of an earlier one's."""
    seen: list[Truth] = []
    wasted = 0
    for truth in map(truths.truth, places):
        wasted += any(_same(truth, other) for other in seen)
        seen.append(truth)
    return wasted


def lost_of(facts: Facts, budget: float, *, chosen: Truth | None, parent: str | None) -> float:
    """The points that a search leaves below the best within the budget.

    ``chosen`` is the truth of a merge that is shown to be feasible; ``parent`` is named if it is the answer. Without an
    answer, or with one that is truly over the budget, Instruct remains if it is within the budget; else 80 % of the
    best is lost. An answer over the budget loses at least 5 points. Nothing is lost without an answer where no schedule
    is within the budget.
    """
    answer = chosen if chosen is not None else facts.parent(parent) if parent else None
    least = 0.0
    if answer is not None and answer.mean_tokens > budget:
        answer, least = None, OVER_BUDGET
    if facts.best is None:
        return least
    if answer is None and facts.instruct.mean_tokens <= budget:
        answer = facts.instruct
    left = answer.accuracy if answer is not None else (1 - NOTHING_LEFT) * facts.best
    return max(100 * (facts.best - left), least)


def is_worth_finding(facts: Facts, budget: float) -> bool:
    """Whether a provable merge beats the better parent within the budget by more than 1 point."""
    if facts.provable is None:
        return False
    parents = [truth.accuracy for truth in (facts.instruct, facts.thinking) if truth.mean_tokens <= budget]
    return facts.provable > max(parents, default=-math.inf) + WORTH


def _expected_bound(case: Case, lam: float, truth: Truth) -> float:
    """The mean tokens with the one-sided reach of the expected standard error, from ``num_prompts`` prompts."""
    spread = case.truths.token_spread(uniform_params(lam, num_knots=NUM_KNOTS))
    num = case.num_prompts
    error = math.sqrt(spread.between / num + spread.within / (num * case.confirm_repeats))
    return truth.mean_tokens * (1 + Z_95_ONE_SIDED * error)


@cache
def _uniform_grid(case: Case) -> list[Truth]:
    lams = np.linspace(0, 1, NUM_LAMS).tolist()
    return [case.truths.truth(uniform_params(lam, num_knots=NUM_KNOTS)) for lam in lams]


@cache
def _module_grid(case: Case) -> list[Truth]:
    if not case.has_module:
        return []
    return [
        case.truths.truth({**uniform_params(lam, num_knots=NUM_KNOTS), "split": split})
        for lam in np.linspace(0, 1, NUM_MODULE_LAMS).tolist()
        for split in np.linspace(-1, 1, NUM_SPLITS).tolist()
        if abs(split) / 2 <= min(lam, 1 - lam) + 1e-9
    ]


def _same(one: Truth, other: Truth) -> bool:
    near = abs(one.accuracy - other.accuracy) < SAME_ACCURACY
    return near and abs(math.log(one.mean_tokens / other.mean_tokens)) < SAME_TOKENS
