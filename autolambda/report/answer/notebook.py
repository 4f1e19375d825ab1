"""A report in a notebook: the answer and its front, as HTML and as Markdown. Text from files is escaped in both."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from autolambda.report.answer.about import in_short
from autolambda.report.answer.phrases import Sentence, who
from autolambda.report.report import Report
from autolambda.report.results import ScheduleResult
from autolambda.statistics.words import percent_of, tokens_of

HEAD = ("", "merge", "accuracy", "mean tokens", "stage")


def as_html(report: Report, sentences: Sequence[Sentence]) -> str:
    """Returns the answer and the front as HTML without styles of its own."""
    said = "".join(
        f"<p>{html.escape(each.text)}{f': <code>{html.escape(each.command)}</code>' if each.command else ''}</p>"
        for each in sentences
    )
    head = "".join(f"<th>{name}</th>" for name in HEAD)
    rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in _rows(report))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<p><b>{html.escape(report.study)}</b>: {html.escape(in_short(report))}</p>{said}{table}"


def as_markdown(report: Report, sentences: Sequence[Sentence]) -> str:
    """Returns the answer and the front as Markdown."""
    said = [_plain(each.text) + (f": `{each.command}`" if each.command else "") for each in sentences]
    rows = [" | ".join(("", *map(_plain, row), "")).strip() for row in _rows(report)]
    table = [" | ".join(("", *HEAD, "")).strip(), "|" + "---|" * len(HEAD), *rows]
    return "\n\n".join([f"**{_plain(report.study)}**: {_plain(in_short(report))}", *said, "\n".join(table)])


def _rows(report: Report) -> Iterator[tuple[str, ...]]:
    """Yields the parents and the front, fewest tokens first; an arrow marks the pick."""
    parents = [each for each in report.parents.values() if each]
    rest = [each for each in report.front if each.parent not in {parent.parent for parent in parents}]
    for each in sorted((*parents, *rest), key=lambda each: each.score.mean_tokens):
        yield "→" if report.is_pick(each) else "", _name(each), *_numbers(each)


def _name(result: ScheduleResult) -> str:
    return f"the {result.parent.capitalize()} model" if result.parent else who(result)


def _numbers(result: ScheduleResult) -> tuple[str, str, str]:
    return percent_of(result.measured.accuracy), tokens_of(result.measured.mean_tokens), str(result.stage)


def _plain(text: str) -> str:
    """Escapes what Markdown reads as markup."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)
