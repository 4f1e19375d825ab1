"""A report in words and tables for the terminal (rich). Text that came from files or models is escaped."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from autolambda.metrics import Estimate, Measured
from autolambda.pareto import Verdict
from autolambda.report import Entry, Report
from autolambda.stages import sentence, stage_of


def report_view(report: Report) -> RenderableType:
    """The whole answer: the front, the stages, the verdict and what to do next."""
    where = (
        "confirmed on prompts the search never saw" if report.confirmed_front else "as the search saw it, unconfirmed"
    )
    parts: list[RenderableType] = [
        front_table(report, title=f"Front of study {escape(report.study)}, {where}"),
        Text(),
        Text(sentence(report.stages)),
        Text(),
        Text.from_markup("\n".join(verdict_lines(report))),
    ]
    return Group(*parts)


def front_table(report: Report, *, title: str) -> Table:
    """The parents and the front, fewest tokens first; intervals are 95 %, the budget's pick is marked."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    table.add_column("")
    table.add_column("schedule", overflow="fold")
    for name in ("accuracy %", "tokens", "think %", "cut %", "stage"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, parent in report.parents.items():
        if parent is not None:
            table.add_row("", f"{name.capitalize()} as is", *_cells(parent.measured), style="dim")
    for entry in report.front:
        picked = report.best is not None and entry.schedule == report.best.schedule
        trial = "" if entry.trial is None else f"  [dim]trial {entry.trial}[/dim]"
        table.add_row(
            "→" if picked else "", f"{entry.schedule}{trial}", *_cells(entry.measured), style="bold" if picked else ""
        )
    return table


def verdict_lines(report: Report) -> Iterable[str]:
    """The verdict for the budget in two or three lines (rich markup)."""
    if report.budget is None:
        yield "No budget was given: the front is the answer. With one: [bold]--budget TOKENS[/bold]"
        return
    best = report.best
    if report.verdict is None:
        yield "[yellow]Not confirmed yet.[/yellow]" + (f" By the search alone: {_numbers(best)}" if best else "")
        yield f"Go on with [bold]autolambda confirm {report.study} --budget {report.budget:g}[/bold]"
    elif report.verdict is Verdict.FEASIBLE and best:
        yield f"[green bold]Feasible[/green bold] within {report.budget:g} tokens: {_numbers(best)}"
        if report.cheaper_than:
            margin = f"{report.config.confirm.margin:.1%}"
            yield f"It is picked over {_numbers(report.cheaper_than)}: shown to lose less than {margin}."
        yield f"{_against_thinking(report, best)}"
        yield f"Export it: [bold]autolambda export {report.study} OUT --budget {report.budget:g}[/bold]"
    elif report.nearest:
        word = (
            "[yellow bold]Uncertain[/yellow bold]"
            if report.verdict is Verdict.UNCERTAIN
            else "[red bold]Infeasible[/red bold]"
        )
        yield f"{word} within {report.budget:g} tokens; the nearest: {_numbers(report.nearest)}"
        yield "Give it more prompts (confirm.limit), more trials, or a higher budget."


def trial_line(title: str, entry_schedule: object, measured: Measured) -> str:
    """One measured schedule in a line, for logs."""
    return (
        f"{title:<18} {entry_schedule!s:<44} accuracy {measured.accuracy.value:6.1%}  "
        f"tokens {measured.mean_tokens.value:8.1f}  think {measured.think_ratio.value:6.1%}"
    )


def _cells(measured: Measured) -> tuple[str, ...]:
    return (
        _share(measured.accuracy),
        _tokens(measured.mean_tokens),
        f"{100 * measured.think_ratio.value:.0f}",
        f"{100 * measured.truncated_ratio.value:.0f}",
        str(stage_of(measured.think_ratio.value)),
    )


def _share(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} [dim]{100 * estimate.low:.1f}–{100 * estimate.high:.1f}[/dim]"


def _tokens(estimate: Estimate) -> str:
    return f"{_number(estimate.value)} [dim]{_number(estimate.low)}–{_number(estimate.high)}[/dim]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"


def _numbers(entry: Entry) -> str:
    """An entry in a phrase, with its intervals."""
    accuracy, tokens = entry.measured.accuracy, entry.measured.mean_tokens
    return (
        f"[bold]{entry.schedule}[/bold] (trial {entry.trial}), accuracy {accuracy.value:.1%} "
        f"({accuracy.low:.1%} to {accuracy.high:.1%}) at {_number(tokens.value)} tokens "
        f"({_number(tokens.low)} to {_number(tokens.high)})"
    )


def _against_thinking(report: Report, best: Entry) -> str:
    """What the pick costs and gives beside the Thinking parent as is."""
    thinking = report.parents["thinking"]
    if thinking is None:
        return ""
    points = 100 * (best.score.accuracy - thinking.score.accuracy)
    share = best.score.mean_tokens / thinking.score.mean_tokens
    return f"Beside the Thinking model as is: {points:+.1f} points of accuracy, {share:.0%} of its tokens."


def measured_view(schedule: object, measured: Measured) -> RenderableType:
    """One schedule's numbers with their intervals, one a line."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("schedule", str(schedule))
    for name, cell in zip(("accuracy %", "tokens", "think %", "cut %", "stage"), _cells(measured), strict=True):
        table.add_row(name, cell)
    return table
