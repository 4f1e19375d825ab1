"""What is said of a schedule with a scale or a third parent beside the best one on the line between the parents."""

from __future__ import annotations

from collections.abc import Iterator

from autolambda.coefficients import EXTRAPOLATES
from autolambda.report.answer.phrases import Sentence, answers, titled, who
from autolambda.report.report import Report
from autolambda.statistics.words import lead, points


def beyond_sentences(report: Report) -> Iterator[Sentence]:
    """Yields whether going beyond the line is shown to be better, and that a pick extrapolates."""
    if found := report.beyond:
        if found.is_shown:
            least = f"at least {points(found.difference.lower_bound)} with 95 % confidence"
            change = f"{lead(found.difference.value, None)} ({least})"
            line = f"{who(found.line)} {answers(found.line)}"
            said = (
                f"{titled(found.result)} is shown to be better than the best merge on the line between the parents, "
                f"{line}: {change}."
            )
        else:
            margin = f"lead the best merge on the line between the parents by {points(report.config.confirm.margin)}"
            by_parent = f"be shown to be better than {who(found.line)} too"
            needed = by_parent if found.line.parent else f"{margin} and be shown to be better"
            change = lead(found.difference.value, found.difference)
            said = (
                f"{titled(found.result)} {answers(found.result)}, but it must {needed}. It is {change}, so the answer "
                "stays on the line."
            )
        yield Sentence((said,))
    elif report.best and report.best.schedule.further:
        yield Sentence(("It was not compared with a merge on the line: none was confirmed within the budget.",))
    if report.best and report.best.schedule.extrapolates:
        yield Sentence((f"{EXTRAPOLATES[0].upper()}{EXTRAPOLATES[1:]}.",))


def front_sentences(report: Report) -> Iterator[Sentence]:
    """Yields that the merges beyond the line are not tested if no budget was given."""
    if any(each.schedule.further for each in report.front):
        yield Sentence(
            (
                "The front holds merges beyond the line between the parents. "
                "Without a budget, none is tested against the best merge on it.",
            )
        )
