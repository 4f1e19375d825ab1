"""The numbers of single tasks for the terminal (rich): a row a task, and what became of the guards.

A study of one task needs neither: its numbers are those of the front.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table

from autolambda.report.report import Report
from autolambda.report.results import ScheduleResult, guard_word
from autolambda.statistics.estimates import number
from autolambda.statistics.metrics import Measured


def task_table(report: Report) -> Table | None:
    """Accuracy and tokens of the parents and the pick (or the nearest) on each task; ``None`` for a single task."""
    weights = report.config.weights
    if len(weights) < 2:
        return None
    pick = report.best or report.nearest
    columns = {name.capitalize(): result for name, result in report.parents.items() if result}
    if pick is not None:
        columns[f"→ {pick.trial}"] = with_tasks(report, pick)
    title = "By task: accuracy %, tokens"
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    table.add_column("task")
    for name in ("weight", *columns):
        table.add_column(name, justify="right", no_wrap=True)
    for task, weight in weights.items():
        cells = [_cell(result.measured.tasks.get(task)) for result in columns.values()]
        table.add_row(_name(task), f"{weight:.0%}" if weight else "guard", *cells)
    return table


def with_tasks(report: Report, result: ScheduleResult) -> ScheduleResult:
    """The result, or for a smoothed one, which has no numbers of single tasks, the same trial as it was measured."""
    if result.measured.tasks:
        return result
    return next((each for each in report.trials if each.trial == result.trial), result)


def guard_lines(result: ScheduleResult) -> Iterator[str]:
    """A line for each guard of a confirmed result (rich markup): what it loses, and whether that is allowed."""
    for task, drop in result.drops.items():
        word = {"kept": "kept", "broken": "[red]broken[/red]", "unsure": "[yellow]not shown to be kept[/yellow]"}
        yield (
            f"Guard {_name(task)} is {word[guard_word(drop.kept)]}: {0.0 - 100 * drop.value:+.1f} points against the "
            f"better parent ({-100 * drop.high:+.1f} to {-100 * drop.low:+.1f}), {100 * drop.max_drop:g} may be lost."
        )


def is_held_by_guard(report: Report) -> bool:
    """Whether something is shown to be within the budget by its tokens, but not to keep its guards."""
    budget = report.budget
    return budget is not None and any(
        result.measured.mean_tokens.high <= budget and result.guards in ("broken", "unsure")
        for result in report.confirmed
    )


def _name(task: str) -> str:
    """A task's name comes from outside."""
    return escape(task if task.isprintable() else repr(task))


def _cell(measured: Measured | None) -> str:
    if measured is None:
        return ""
    return f"{100 * measured.accuracy.value:.1f} [dim]{number(measured.mean_tokens.value)}[/dim]"
