"""What was measured after the answer, as tables and sentences for the terminal (rich) and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from autolambda.errors import printable
from autolambda.report.followup.served import Served
from autolambda.report.followup.transfer import Transfer
from autolambda.schedule import Schedule
from autolambda.statistics.estimates import Estimate, number
from autolambda.statistics.metrics import Measured
from autolambda.statistics.paired import MARGINS, Change
from autolambda.statistics.words import signed


def transfers_view(transfers: Sequence[Transfer]) -> RenderableType:
    """Returns a table and sentences for each task."""
    parts: list[RenderableType] = []
    for each in transfers:
        said = [Text(printable(sentence)) for sentence in each.sentences()]
        parts += [_table(each), *said, Text()]
    note = "Differences are the pick minus the row, paired by prompt; all intervals are 95 %."
    return Group(*parts, Text(note, style="dim"))


def transfers_json(transfers: Sequence[Transfer]) -> str:
    """Returns a list with the object of each task, as in the report."""
    return json.dumps([each.to_dict() for each in transfers], indent=2) + "\n"


def served_view(served: Sequence[Served]) -> RenderableType:
    """Returns the sentences on each model that a server serves."""
    said = [Text(printable(sentence)) for each in served for sentence in each.sentences()]
    return Group(*said, Text(MARGINS, style="dim"))


def served_json(served: Sequence[Served]) -> str:
    """Returns a list with the object of each model, as in the report."""
    return json.dumps([each.to_dict() for each in served], indent=2) + "\n"


def _table(transfer: Transfer) -> Table:
    title = f"On another task: {escape(printable(transfer.task))}"
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    table.add_column("", min_width=15)
    for name in ("accuracy %", "tokens", "think\n%", "the pick's\ndifference"):
        table.add_column(name, justify="right", no_wrap=True)
    compared = transfer.compared
    labels = {
        "pick": f"→ {compared.pick}",
        "uniform": f"best {compared.uniform}",
        "instruct": "Instruct as is",
        "thinking": "Thinking as is",
    }
    for name, measured in transfer.sides.items():
        style = "bold" if name == "pick" else ""
        table.add_row(labels[name], *_cells(measured, transfer.changes.get(name)), style=style)
    shown = set(compared.sides.values())
    for lam, measured in transfer.curve.items():
        if compared.key(Schedule.uniform(lam)) not in shown:
            table.add_row(f"lambda {lam:.4g}", *_cells(measured, None), style="dim")
    return table


def _cells(measured: Measured, change: Change | None) -> tuple[str, ...]:
    accuracy, tokens = measured.accuracy, measured.mean_tokens
    return (
        _cell(f"{100 * accuracy.value:.1f}", f"{100 * accuracy.low:.1f}–{100 * accuracy.high:.1f}"),
        _cell(number(tokens.value), _interval(tokens)),
        f"{100 * measured.think_ratio.value:.0f}",
        _cell(signed(change.accuracy.value), f"{signed(change.accuracy.low)} to {signed(change.accuracy.high)}")
        if change
        else "",
    )


def _interval(estimate: Estimate) -> str:
    return f"{number(estimate.low)}–{number(estimate.high)}"


def _cell(value: str, interval: str) -> str:
    return f"{value} [dim]{interval}[/dim]"
