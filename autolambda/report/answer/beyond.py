"""What is said of a schedule with a scale or a third parent beside the best one on the line between the parents."""

from __future__ import annotations

from collections.abc import Iterator

from autolambda.coefficients import EXTRAPOLATES
from autolambda.report.answer.phrases import Sentence, answers, titled, who
from autolambda.report.report import Report
from autolambda.statistics.words import lead


def beyond_sentences(report: Report) -> Iterator[Sentence]:
    """Yields whether going beyond the line is shown to be better, and that a pick extrapolates."""
    if found := report.beyond:
        line = f"{who(found.line)} {answers(found.line)}"
        change = lead(found.difference.value, found.difference)
        if found.is_shown:
            yield Sentence(
                (f"Shown to be better than the best merge on the line between the parents, {line}: {change}.",)
            )
        else:
            yield Sentence(
                (
                    f"{titled(found.result)} {answers(found.result)}, but it is not shown to be better than the best "
                    f"merge on the line between the parents ({change}), so the answer stays on the line.",
                )
            )
    if report.best and report.best.schedule.extrapolates:
        yield Sentence((f"{EXTRAPOLATES[0].upper()}{EXTRAPOLATES[1:]}.",))
