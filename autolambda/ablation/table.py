"""The paper's studies on a pair as tables: for the terminal (rich), as JSON and as CSV.

A row takes about 100 columns. On a narrower screen (from about 72), each number stands above its interval. Only JSON
and CSV include the interval of the truncated share.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pandas
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from autolambda.ablation.results import Ablation, Result
from autolambda.errors import printable
from autolambda.report.json_csv import FILE_WIDTH, write_text
from autolambda.report.results import stage
from autolambda.statistics.estimates import Estimate, number

UNLIMITED = 10_000  # columns


def write_ablations(ablations: Sequence[Ablation], *, form: str, out: Path | None, console: Console) -> None:
    """Prints the ablations as ``table``, ``json`` or ``csv``, or writes them to ``out``. Raises ``OutputError``."""
    if form == "table" and out is None:
        console.print(ablations_view(ablations))
        return
    texts = {"table": ablations_text, "json": ablations_json, "csv": ablations_csv}
    write_text(texts[form](ablations), out=out, console=console)


def ablations_view(ablations: Sequence[Ablation]) -> RenderableType:
    """Returns a table for each study."""
    if not ablations:
        return Text("no row is complete yet")
    note = "Shares in percent, mean tokens a response, 95 % intervals. Differences are paired, in points of accuracy."
    return Group(*(part for each in ablations for part in (_View(each), Text())), Text(note, style="dim"))


def ablations_text(ablations: Sequence[Ablation]) -> str:
    """Returns the tables of the terminal without colours."""
    file = io.StringIO()
    Console(file=file, width=FILE_WIDTH, color_system=None).print(ablations_view(ablations))
    return file.getvalue()


def ablations_json(ablations: Sequence[Ablation]) -> str:
    """Returns one JSON object: study name to a list of rows, references first."""
    return json.dumps({each.name: [result.to_dict() for result in each.results] for each in ablations}, indent=2) + "\n"


def ablations_csv(ablations: Sequence[Ablation]) -> str:
    """Returns all rows without repeated references; schedules are JSON."""
    rows = [
        {"study": each.name, **result.to_dict(), "schedule": result.row.schedule.key}
        for each in ablations
        for result in each.results
        if not result.is_reference
    ]
    return str(pandas.DataFrame(rows).to_csv(index=False))


class _View:
    """A table of a study that fits the width of the screen."""

    def __init__(self, ablation: Ablation) -> None:
        self._ablation = ablation

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = _table(self._ablation, between=" ")
        if console.measure(table, options=options.update_width(UNLIMITED)).maximum > options.max_width:
            table = _table(self._ablation, between="\n")
        yield table


def _table(ablation: Ablation, *, between: str) -> Table:
    """``between`` separates a number from its interval."""
    table = Table(
        title=ablation.title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False
    )
    table.add_column("")
    with_cut = any(result.measured.truncated_ratio.value > 0 for result in ablation.results)
    for name in ("accuracy", "tokens", "think", *(["cut"] if with_cut else []), "stage", "difference"):
        table.add_column(name, justify="right", no_wrap=True)  # a label may wrap, a number may not
    for result in ablation.results:
        cells = _cells(result, with_cut=with_cut, between=between)
        table.add_row(escape(printable(result.label)), *cells, style="dim" if result.is_reference else "")
    return table


def _cells(result: Result, *, with_cut: bool, between: str) -> list[str]:
    def cell(value: str, interval: str) -> str:
        return f"{value}{between}[dim]{interval}[/dim]"

    def share(estimate: Estimate) -> str:
        return cell(f"{100 * estimate.value:.1f}", f"{100 * estimate.low:.1f}–{100 * estimate.high:.1f}")

    measured, tokens, change = result.measured, result.measured.mean_tokens, result.change
    return [
        share(measured.accuracy),
        cell(number(tokens.value), f"{number(tokens.low)}–{number(tokens.high)}"),
        share(measured.think_ratio),
        *([f"{100 * measured.truncated_ratio.value:.1f}"] if with_cut else []),
        str(stage(measured)),
        cell(f"{100 * change.value:+.1f}", f"{100 * change.low:+.1f} to {100 * change.high:+.1f}") if change else "",
    ]
