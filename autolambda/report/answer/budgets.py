"""What other budgets would give, from what is measured: the confirmed merges, else the estimates of the search.

It is no verdict: a budget gets one when its own picks are confirmed (``autolambda confirm``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autolambda.report.report import Report
from autolambda.report.results import ScheduleResult

NUM_BUDGETS = 16
NUM_STEPS = 100  # of the slider
SPREAD = 8.0  # from this ratio of the longest to the shortest budget on, the steps are equal ratios


@dataclass(frozen=True)
class BudgetAnswer:
    """The result to take for a budget (mean tokens); ``None`` if all need more."""

    budget: float
    result: ScheduleResult | None


def candidates(report: Report) -> tuple[ScheduleResult, ...]:
    """Returns each schedule and parent once, with its best numbers: confirmed, else estimated over all trials."""
    parents = [each for each in report.parents.values() if each and each.confirmed]
    confirmed = {each.trial for each in report.confirmed} | {each.trial for each in parents}
    ends = {each.parent for each in parents}
    rest = [each for each in report.smoothed if each.trial not in confirmed and each.parent not in ends]
    own = [each for each in report.confirmed if each.parent not in ends]
    return tuple(sorted((*parents, *own, *rest), key=lambda each: each.score.mean_tokens))


def answer_at(report: Report, budget: float) -> BudgetAnswer:
    """Returns the most accurate candidate whose 95 % interval of mean tokens is within ``budget``.

    An estimate must lead every confirmed candidate by ``confirm.margin``. The report's own budget keeps its pick.
    """
    if budget == report.budget and report.best:
        return BudgetAnswer(budget, report.best)
    margin = report.config.confirm.margin
    within = [each for each in candidates(report) if each.measured.mean_tokens.high <= budget]
    within = [each for each in within if each.guards in (None, "kept")]
    best = max(within, key=lambda each: each.score.accuracy - (0 if each.confirmed else margin), default=None)
    return BudgetAnswer(budget, best)


def some_budgets(report: Report) -> tuple[BudgetAnswer, ...]:
    """Returns the answers to up to about 16 budgets: each answer once, at its lowest budget, and the report's own."""
    found: list[BudgetAnswer] = []
    for budget in _budgets(report, NUM_BUDGETS, digits=2):
        each = answer_at(report, budget)
        if each.result and (not found or each.result is not found[-1].result or budget == report.budget):
            found.append(each)
    return tuple(found)


def slider(report: Report) -> tuple[BudgetAnswer, ...]:
    """Returns the answers at the steps of the page's slider."""
    return tuple(answer_at(report, budget) for budget in _budgets(report, NUM_STEPS, digits=3))


def _budgets(report: Report, num: int, *, digits: int) -> Sequence[float]:
    """Returns rounded budgets in ascending order, from the shortest candidate to just above the longest."""
    highs = [each.measured.mean_tokens.high for each in candidates(report)]
    low, high = max(min(highs), 1.0), max(highs)
    space = np.geomspace if high > SPREAD * low else np.linspace
    rounded = {float(f"{each:.{digits}g}") for each in space(low, high, num).tolist()}
    top = float(f"{high:.{digits}g}")
    rounded.add(top if top >= high else top + 10 ** (np.floor(np.log10(top)) - digits + 1))
    return sorted(rounded | ({report.budget} if report.budget is not None else set()))
