"""What is said of the baselines: other ways to a merge, on the prompts of the confirmation."""

from __future__ import annotations

from collections.abc import Iterator

from autolambda.errors import printable
from autolambda.report.answer.phrases import Sentence
from autolambda.report.report import Report
from autolambda.statistics.words import percent_of, tokens_of


def baseline_sentences(report: Report) -> Iterator[Sentence]:
    """Yields the numbers of each baseline. The cap on Thinking has sentences of its own."""
    for name, result in report.baselines.items():
        if report.cap is None or result is not report.cap.result:
            measured = result.measured
            yield Sentence(
                (
                    f"Baseline {printable(name)}: {percent_of(measured.accuracy)} right "
                    f"with {tokens_of(measured.mean_tokens)}.",
                )
            )
