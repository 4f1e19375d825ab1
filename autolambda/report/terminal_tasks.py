"""Accuracy and tokens of each task for the terminal (rich).

A study with one task needs no such table: the front has its numbers.
"""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from autolambda.errors import printable
from autolambda.report.report import Report
from autolambda.report.results import ScheduleResult
from autolambda.statistics.estimates import number
from autolambda.statistics.metrics import Measured


def task_table(report: Report) -> Table | None:
    """Returns a row a task for the parents and the pick (or the nearest result); ``None`` for a single task."""
    weights = report.config.weights
    if len(weights) < 2:
        return None
    pick = report.best or report.nearest
    columns = {name.capitalize(): result for name, result in report.parents.items() if result}
    if pick is not None:
        columns[f"→ {pick.trial}"] = _with_tasks(report, pick)
    title = "By task: accuracy %, tokens"
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    table.add_column("task")
    for name in ("weight", *columns):
        table.add_column(name, justify="right", no_wrap=True)
    for task, weight in weights.items():
        cells = [_cell(result.measured.tasks.get(task)) for result in columns.values()]
        table.add_row(escape(printable(task)), f"{weight:.0%}" if weight else "guard", *cells)
    return table


def _with_tasks(report: Report, result: ScheduleResult) -> ScheduleResult:
    """Returns the measured result of a smoothed one, which has no numbers of single tasks; any other unchanged."""
    if result.measured.tasks:
        return result
    return next((each for each in report.trials if each.trial == result.trial), result)


def _cell(measured: Measured | None) -> str:
    if measured is None:
        return ""
    return f"{100 * measured.accuracy.value:.1f} [dim]{number(measured.mean_tokens.value)}[/dim]"
