"""A report as tables and sentences for the terminal (rich), readable at 80 columns.

Text from files and models is escaped: neither rich markup nor control sequences of a terminal take effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from autolambda.errors import printable
from autolambda.report.answer.about import in_short
from autolambda.report.followup.table import served_view, transfers_view
from autolambda.report.insights import insight_sentences
from autolambda.report.report import Report
from autolambda.report.results import ScheduleResult, stage
from autolambda.report.sentences import Sentence, verdict_sentences
from autolambda.schedule import Schedule
from autolambda.statistics.estimates import Estimate, number
from autolambda.statistics.metrics import Measured
from autolambda.statistics.stages import sentence

T = TypeVar("T")

MAX_ROWS = 8  # of a front that is not confirmed


def report_view(report: Report, *, storage: str | None = None) -> RenderableType:
    """Returns the whole report: what was searched, fronts, what was seen, and last the answer with its commands.

    ``storage`` is the value of ``--storage`` in these commands.
    """
    lines = [_line(each) for each in verdict_sentences(report, storage=storage)]
    differ = [Text(each, style="dim") for each in report.parents_differ.sentences()] if report.parents_differ else []
    elsewhere = [Text(), transfers_view(report.transfers)] if report.transfers else []
    elsewhere += [Text(), served_view(report.served)] if report.served else []
    return Group(progress_view(report), *differ, *elsewhere, Text(), *lines)


def progress_view(report: Report) -> RenderableType:
    """Returns the fronts and what was seen, without the answer. A confirmed front comes first."""
    fronts: list[RenderableType] = [Text(f"{report.study}: {in_short(report)}", style="dim"), Text()]
    if report.confirmed_front:
        title = "Front, confirmed on new prompts (95 % intervals)"
        fronts += [front_table(report, with_pick(report), title=title), Text()]
    title = "Front by the search, estimated (95 % intervals)"
    smoothed = thinned(report.smoothed_front, MAX_ROWS)
    fronts.append(front_table(report, smoothed, title=title, with_parents=not report.confirmed_front))
    notes = [Text(f"Note: {printable(note)}.", style="dim") for note in report.stages.notes]
    if (tasks := task_table(report)) is not None:
        fronts += [Text(), tasks]
    said = [sentence(report.stages), *insight_sentences(report.insights)] if report.has_curve else []
    return Group(*fronts, Text(), *map(Text, said), *notes)


def with_pick(report: Report) -> list[ScheduleResult]:
    """Returns the confirmed front, the pick, and the best single lambda beside it; fewest tokens first.

    The pick is chosen by search and confirmation together, so the confirmation alone may have a better one.
    """
    front = list(report.confirmed_front)
    for each in (report.best, report.uniform, report.preferred_over):
        if each and each.confirmed and each.trial is not None and each not in front:
            front = sorted([*front, each], key=lambda each: each.score.mean_tokens)
    return front


def front_table(report: Report, results: Sequence[ScheduleResult], *, title: str, with_parents: bool = True) -> Table:
    """Returns the parents and a front, fewest tokens first. An arrow marks the pick for the budget.

    Columns for truncated responses and for guards appear only if a result has them.
    """
    parents = report.parents if with_parents else {}
    shown = [*filter(None, parents.values()), *results]
    with_cut = any(result.measured.truncated_ratio.value > 0 for result in shown)
    with_guards = any(result.guards for result in results)
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("schedule")
    cut, guards = ["cut\n%"] if with_cut else [], ["guards"] if with_guards else []
    for name in ("accuracy %", "tokens", "think\n%", *cut, "stage", *guards):
        table.add_column(name, justify="right", no_wrap=True)
    for name, parent in parents.items():
        if parent is not None and parent not in results:
            how = "as is" if parent.confirmed else f"at lambda {parent.schedule.lam:g}"
            mark, style = ("→", "bold") if report.is_pick(parent) else ("", "dim")
            cells = _cells(parent.measured, parent.stage, with_cut=with_cut)
            table.add_row(mark, f"{name.capitalize()} {how}", *cells, style=style)
    for result in results:
        is_pick = report.is_pick(result)
        trial = f"→ {result.trial}" if is_pick else str(result.trial)
        cells = _cells(result.measured, result.stage, with_cut=with_cut)
        cells += (result.guards or "",) if with_guards else ()
        single = "\nbest single lambda" if result is report.uniform and not is_pick else ""
        table.add_row(trial, in_lines(result.schedule) + single, *cells, style="bold" if is_pick else "")
    for name, result in report.beside.items() if with_parents and results and results[0].confirmed else ():
        cells = _cells(result.measured, result.stage, with_cut=with_cut)
        table.add_row("", name, *cells, style="dim")
    return table


def measured_view(schedule: Schedule, measured: Measured) -> RenderableType:
    """Returns the numbers of one schedule with their 95 % intervals, one line each."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("schedule", in_lines(schedule))
    names = ("accuracy %", "tokens", "think %", "cut %", "stage")
    for name, cell in zip(names, _cells(measured, stage(measured), with_cut=True), strict=True):
        table.add_row(name, cell)
    return table


def in_lines(schedule: Schedule) -> str:
    """Returns a schedule for a narrow column: one line per module, values over depth with two decimals."""
    return "\n".join(schedule.parts(ffn="ffn", other="other"))


def _line(sentence: Sentence) -> Text:
    command: tuple[str | tuple[str, str], ...] = (": ", (sentence.command, "bold")) if sentence.command else ()
    return Text.assemble(*sentence.parts, *command)


def thinned(members: Sequence[T], most: int) -> list[T]:
    """Returns at most ``most`` members at equal steps. The last one is always kept."""
    step = max(1, -(-len(members) // most))
    return list(members[::-1][::step][::-1])


def _cells(measured: Measured, stage: int, *, with_cut: bool) -> tuple[str, ...]:
    return (
        _share(measured.accuracy),
        _tokens(measured.mean_tokens),
        f"{100 * measured.think_ratio.value:.0f}",
        *([f"{100 * measured.truncated_ratio.value:.0f}"] if with_cut else []),
        str(stage),
    )


def _share(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} [dim]{100 * estimate.low:.1f}–{100 * estimate.high:.1f}[/dim]"


def _tokens(estimate: Estimate) -> str:
    return f"{number(estimate.value)} [dim]{number(estimate.low)}–{number(estimate.high)}[/dim]"


def task_table(report: Report) -> Table | None:
    """Returns one row per task for the parents and the pick (or nearest result); ``None`` for a single task."""
    weights = report.config.weights
    if len(weights) < 2:
        return None
    pick = report.best or report.nearest
    columns = {
        f"{'→ ' if report.is_pick(result) else ''}{name.capitalize()}": result
        for name, result in report.parents.items()
        if result
    }
    if pick is not None and pick not in columns.values():
        columns[f"→ {pick.trial}"] = _with_tasks(report, pick)
    title = "By task: accuracy %, tokens"
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    table.add_column("task")
    for name in ("weight", *columns):
        table.add_column(name, justify="right", no_wrap=True)
    for task, weight in weights.items():
        cells = [_cell(result.measured.tasks.get(task)) for result in columns.values()]
        table.add_row(escape(printable(task)), f"{100 * weight:.0f} %" if weight else "guard", *cells)
    return table


def _with_tasks(report: Report, result: ScheduleResult) -> ScheduleResult:
    """Replaces a smoothed result by its measured one, which has numbers for each task. Returns others unchanged."""
    if result.measured.tasks:
        return result
    return next((each for each in report.trials if each.trial == result.trial), result)


def _cell(measured: Measured | None) -> str:
    if measured is None:
        return ""
    return f"{100 * measured.accuracy.value:.1f} [dim]{number(measured.mean_tokens.value)}[/dim]"
