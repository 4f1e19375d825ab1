"""A report in words and tables for the terminal (rich), readable at 80 columns.

Text that came from files or models is escaped: neither markup nor a terminal's control sequences get through.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from autolambda.errors import printable
from autolambda.report.insights import difference_phrase, insight_sentences
from autolambda.report.report import Report
from autolambda.report.results import ScheduleResult, stage
from autolambda.report.terminal_tasks import guard_lines, is_held_by_guard, task_table
from autolambda.schedule import Profile, Schedule
from autolambda.statistics.estimates import number
from autolambda.statistics.metrics import Estimate, Measured
from autolambda.statistics.stages import sentence
from autolambda.statistics.verdict import Verdict
from autolambda.study.connection import password_hint, shown_storage

MAX_ROWS = 8  # of a front that nobody confirmed
_SPEND = "(search.max_tokens_generated)"


def report_view(report: Report, *, storage: str | None = None) -> RenderableType:
    """The whole answer: the front, the stages, the verdict and what to do next (``storage``: the option's value)."""
    lines = Text.from_markup("\n".join(verdict_lines(report, storage=storage)))
    return Group(progress_view(report), Text(), lines)


def progress_view(report: Report) -> RenderableType:
    """The fronts and the stages, without a verdict: the confirmed front as far as there is one, then the smoothed."""
    fronts: list[RenderableType] = []
    if report.confirmed_front:
        title = f"Front of {escape(report.study)}, confirmed on prompts the search never saw (95 % intervals)"
        fronts = [front_table(report, report.confirmed_front, title=title), Text()]
    title = f"Front of {escape(report.study)}, smoothed over all trials, unconfirmed (95 % intervals)"
    fronts.append(
        front_table(report, _few(report.smoothed_front), title=title, with_parents=not report.confirmed_front)
    )
    notes = [Text(f"Note: {printable(note)}.", style="dim") for note in report.stages.notes]
    if (tasks := task_table(report)) is not None:
        fronts += [Text(), tasks]
    said = [sentence(report.stages), *insight_sentences(report.insights)] if report.has_curve else []
    return Group(*fronts, Text(), *map(Text, said), *notes)


def _few(results: Sequence[ScheduleResult]) -> list[ScheduleResult]:
    """At most ``MAX_ROWS`` results, evenly chosen, the last among them."""
    step = max(1, -(-len(results) // MAX_ROWS))
    return list(results[::-1][::step][::-1])


def front_table(report: Report, results: Sequence[ScheduleResult], *, title: str, with_parents: bool = True) -> Table:
    """The parents and a front, fewest tokens first; the budget's pick is marked by an arrow.

    The share of responses that were cut has a column where there were any, and so has what is known of the guards.
    """
    parents = report.parents if with_parents else {}
    shown = [*filter(None, parents.values()), *results]
    with_cut = any(result.measured.truncated_ratio.value > 0 for result in shown)
    with_guards = any(result.guards for result in results)
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("schedule")
    for name in (
        "accuracy %",
        "tokens",
        "think\n%",
        *(["cut\n%"] if with_cut else []),
        "stage",
        *(["guards"] if with_guards else []),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for name, parent in parents.items():
        if parent is not None and parent not in results:
            how = "as is" if parent.confirmed else f"at lambda {parent.schedule.lam:g}"
            table.add_row("", f"{name.capitalize()} {how}", *_cells(parent.measured, with_cut=with_cut), style="dim")
    for result in results:
        picked = report.best is not None and result.schedule == report.best.schedule
        trial = f"→ {result.trial}" if picked else str(result.trial)
        cells = [*_cells(result.measured, with_cut=with_cut), *([result.guards or ""] if with_guards else [])]
        table.add_row(trial, in_lines(result.schedule), *cells, style="bold" if picked else "")
    return table


def verdict_lines(report: Report, *, storage: str | None = None) -> Iterator[str]:
    """The verdict for the budget in a few lines (rich markup), the last of them the command to go on with."""
    if report.budget is None:
        yield "No budget was given: the front is the answer."
        yield _command("For a pick", "confirm", report.study, "--budget TOKENS", storage=storage)
        return
    budget = f"--budget {report.budget:g}"
    best = report.best
    if report.verdict is None:
        yield "[yellow]Not confirmed yet.[/yellow]" + (f" By the search alone: {_numbers(best)}" if best else "")
        yield _command("Go on with", "confirm", report.study, budget, storage=storage)
    elif report.verdict is Verdict.FEASIBLE and best:
        yield f"[green bold]Feasible[/green bold] within {report.budget:g} tokens: {_numbers(best)}."
        if report.cheaper_than:
            margin = f"{100 * report.config.confirm.margin:g} points"
            yield f"It is picked over {_numbers(report.cheaper_than)}: shown to lose less than {margin}."
        yield from guard_lines(best)
        yield from _alike(report)
        yield from _against_thinking(report, best)
        yield from _slack(report)
        yield _command("Export it", "export", report.study, "OUT", budget, storage=storage)
    elif report.nearest:
        held = is_held_by_guard(report)
        uncertain = report.verdict is Verdict.UNCERTAIN
        word = "[yellow bold]Uncertain[/yellow bold]" if uncertain else "[red bold]Infeasible[/red bold]"
        why = " because of a guard" if held else ""
        yield f"{word} within {report.budget:g} tokens{why}; the nearest: {_numbers(report.nearest)}."
        yield from guard_lines(report.nearest)
        yield from _slack(report)
        remedies = ["more prompts (confirm.limit in another study)"] if uncertain else []
        remedies += ["a larger guard.max_drop"] if held else []
        yield f"What may help: {' or '.join([*remedies, 'a higher budget'])}, or more tokens to search with {_SPEND}."
        yield _command(
            "Export it all the same", "export", report.study, f"OUT --trial {report.nearest.trial}", storage=storage
        )


def measured_view(schedule: Schedule, measured: Measured) -> RenderableType:
    """One schedule's numbers with their intervals, one a line."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("schedule", in_lines(schedule))
    names = ("accuracy %", "tokens", "think %", "cut %", "stage")
    for name, cell in zip(names, _cells(measured, with_cut=True), strict=True):
        table.add_row(name, cell)
    return table


def in_lines(schedule: Schedule) -> str:
    """A schedule for a narrow column: a line for each module, values over depth with two decimals."""
    if schedule.attention == schedule.ffn:
        lines = [f"lambda {_profile(schedule.attention)}"]
    else:
        lines = [f"attention {_profile(schedule.attention)}", f"ffn {_profile(schedule.ffn)}"]
    if "other" in schedule.to_dict():
        lines.append(f"other {schedule.other:.4g}")
    return "\n".join(lines)


def _profile(profile: Profile) -> str:
    if len(profile.values) == 1:
        return f"{profile.values[0]:.4g}"
    return ("bands " if profile.kind == "bands" else "") + "/".join(f"{value:.2f}" for value in profile.values)


def _cells(measured: Measured, *, with_cut: bool) -> tuple[str, ...]:
    return (
        _share(measured.accuracy),
        _tokens(measured.mean_tokens),
        f"{100 * measured.think_ratio.value:.0f}",
        *([f"{100 * measured.truncated_ratio.value:.0f}"] if with_cut else []),
        str(stage(measured)),
    )


def _share(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} [dim]{100 * estimate.low:.1f}–{100 * estimate.high:.1f}[/dim]"


def _tokens(estimate: Estimate) -> str:
    return f"{number(estimate.value)} [dim]{number(estimate.low)}–{number(estimate.high)}[/dim]"


def _numbers(result: ScheduleResult) -> str:
    """A result in a phrase, with its intervals."""
    accuracy, tokens = result.measured.accuracy, result.measured.mean_tokens
    return (
        f"[bold]{result.schedule}[/bold] (trial {result.trial}), accuracy {accuracy.value:.1%} "
        f"({accuracy.low:.1%} to {accuracy.high:.1%}) at {number(tokens.value)} tokens "
        f"({number(tokens.low)} to {number(tokens.high)})"
    )


def beside_thinking(report: Report, result: ScheduleResult) -> tuple[str, float] | None:
    """A result's points of accuracy beside the Thinking parent, with their interval, and its share of the tokens.

    ``None`` unless both were measured on the same prompts.
    """
    thinking = report.parents["thinking"]
    if thinking is None or thinking.confirmed != result.confirmed:
        return None
    change = report.insights.beside(result, "thinking")
    points = f"{100 * (result.score.accuracy - thinking.score.accuracy):+.1f} points"
    return difference_phrase(change) if change else points, result.score.mean_tokens / thinking.score.mean_tokens


def _against_thinking(report: Report, best: ScheduleResult) -> Iterator[str]:
    """What the pick costs and gives beside the Thinking parent."""
    if beside := beside_thinking(report, best):
        yield f"Beside the Thinking model as is: {beside[0]} of accuracy, {beside[1]:.0%} of its tokens."


def _alike(report: Report) -> Iterator[str]:
    """The finalists that cannot be told apart from the pick."""
    for each in report.alike:
        change = each.difference
        yield (
            f"Trial {each.result.trial} cannot be told apart from it: {difference_phrase(change)} of accuracy "
            f"at {number(each.result.score.mean_tokens)} tokens."
        )


def _slack(report: Report) -> Iterator[str]:
    if report.slack:
        yield f"[yellow]{escape(report.slack)}[/yellow]"


def _command(words: str, *parts: str, storage: str | None) -> str:
    """A command to go on with, and before it what to do about a password that it does not show."""
    where = ["--storage", shlex.quote(shown_storage(storage))] if storage else []
    hint = password_hint(storage) if storage else ""
    return f"{words}{hint}: [bold]autolambda {escape(' '.join([*parts, *where]))}[/bold]"
