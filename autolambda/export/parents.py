"""The model card's section on how the parents differ: sentences, and tables of steps and of rounded merges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autolambda.merging.difference.values import ParentDifference


def parents_section(difference: ParentDifference) -> Iterator[str]:
    """Yields the lines of the section; with tables unless the parents are float32."""
    yield "## How the parents differ"
    yield ""
    yield " ".join(difference.sentences())
    yield ""
    if not difference.steps:
        return
    yield f"Compared: {difference.basis}. Share of the weights, in %, by steps of {difference.dtype}:"
    yield ""
    yield from _table(difference.step_rows())
    yield ""
    if difference.moved:
        yield "How far a merge rounded to nearest has moved from Instruct (0) to Thinking (1):"
        yield ""
        yield from _table(difference.moved_rows())
        yield ""


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yields a Markdown table; its first row has the titles."""
    yield f"| {' | '.join(rows[0])} |"
    yield "|---" + "|---:" * (len(rows[0]) - 1) + "|"
    for row in rows[1:]:
        yield f"| {' | '.join(row)} |"
