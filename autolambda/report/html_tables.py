"""The numbers of the HTML page, formatted for its template, and further sections of the page as values.

Wings above the report add sections, for example the ablations.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from autolambda.report.answer.about import facts
from autolambda.report.answer.budgets import slider, some_budgets
from autolambda.report.answer.phrases import against_thinking, answers
from autolambda.report.comparison import legible
from autolambda.report.report import Report
from autolambda.report.results import ScheduleResult, stage
from autolambda.report.snapshot import StudySnapshot
from autolambda.report.terminal import in_lines, with_pick
from autolambda.statistics.estimates import Difference, number
from autolambda.statistics.metrics import Measured
from autolambda.statistics.words import duration, limit, percent, saving, signed
from autolambda.study.databases.connection import shown_storage


@dataclass(frozen=True)
class SectionRow:
    """A row of a section's table. ``change`` is its difference in accuracy to a reference row, if any."""

    label: str
    measured: Measured
    change: Difference | None
    is_reference: bool


@dataclass(frozen=True)
class SectionPart:
    """A figure with the table of its numbers; ``name`` is unique on the page."""

    name: str
    title: str
    figure: go.Figure
    rows: Sequence[SectionRow]


@dataclass(frozen=True)
class Section:
    """A section of the page. ``name`` is its anchor, ``link`` its entry in the menu."""

    name: str
    link: str
    title: str
    caption: str
    parts: Sequence[SectionPart]


def tiles(report: Report) -> Iterator[dict[str, Any]]:
    """Yields the large numbers at the top, for the pick or the nearest result; what it saves comes first."""
    result, thinking = report.best or report.nearest, report.parents["thinking"]
    if result is None:
        return
    accuracy, tokens = result.measured.accuracy, result.measured.mean_tokens
    if (found := against_thinking(report, result)) and thinking:
        instead = f"{number(tokens.value)} instead of {number(thinking.score.mean_tokens)}"
        yield {"name": "against Thinking", "value": found.saving, "note": instead, "is_lead": True}
        interval = points_of(found.interval)[1] if found.interval else ""
        yield {
            "name": "accuracy against Thinking",
            "value": f"{signed(found.accuracy)} points",
            "note": f"95 % interval {interval}" if interval else "",
        }
    yield {
        "name": "accuracy",
        "value": percent(accuracy.value),
        "note": f"95 % interval {100 * accuracy.low:.1f} to {100 * accuracy.high:.1f}",
    }
    yield {
        "name": "tokens a response",
        "value": number(tokens.value),
        "note": f"95 % interval {number(tokens.low)} to {number(tokens.high)}",
        "share": None if report.budget is None else tokens.value / report.budget,
    }


def about(snapshot: StudySnapshot) -> Iterator[tuple[str, str]]:
    """Yields what was searched, what it took and when, as names and values."""
    report, spent = snapshot.report, int(snapshot.trials.tokens.sum())
    yield from facts(report)
    checks = report.tokens_generated - spent
    yield "tokens generated", f"{spent:,} by the search" + (f", {checks:,} after it" if checks else "")
    if time := snapshot.engine_time.seconds:
        idle = percent(snapshot.engine_time.idle_seconds / time)
        yield "engine time", f"{duration(time)}; {idle} of it waited for the last responses of a call"
    if snapshot.seconds:
        seconds = ", ".join(f"{name} {each:.3g}" for name, each in snapshot.seconds.items())
        yield "seconds a response", f"{seconds}; many at a time"
    if snapshot.measured_at:
        yield "measured", f"{snapshot.measured_at:%Y-%m-%d}"
    yield "study", report.study


def fronts(report: Report) -> list[tuple[str, Sequence[ScheduleResult], bool]]:
    """Returns each front with its title, and whether it is open at first. The confirmed one has the pick in it."""
    confirmed, smoothed = report.confirmed_front, report.smoothed_front
    found: list[tuple[str, Sequence[ScheduleResult], bool]] = []
    if confirmed:
        found.append(("Front, confirmed on prompts that the search never saw", with_pick(report), True))
    found.append(("Front by the search, estimated", smoothed, not confirmed))
    found.append(("Front by the search, as measured: luck makes it look too good", report.raw_front, False))
    return found


def budget_rows(report: Report) -> Iterator[dict[str, Any]]:
    """Yields a table row for each of some budgets."""
    for each in some_budgets(report):
        if each.result:
            row = {"budget": limit(each.budget).removesuffix(" tokens"), "picked": each.budget == report.budget}
            yield row | numbers_of(each.result) | _told_at(report, each.result)


def slider_data(report: Report, storage: str | None) -> dict[str, Any]:
    """Returns the answers at the steps of the slider for the page's script.

    A step is a budget as a number and in words, and the place of its answer in ``results``, or ``None``.
    """
    given = slider(report)
    results: list[ScheduleResult] = []
    steps: list[tuple[float, str, int | None]] = []
    for each in given:
        place = next((i for i, known in enumerate(results) if known is each.result), len(results))
        if each.result and place == len(results):
            results.append(each.result)
        steps.append((each.budget, limit(each.budget), place if each.result else None))
    own = [i for i, each in enumerate(given) if each.budget == report.budget]
    return {
        "start": own[0] if own else len(given) // 2,
        "command": f"autolambda confirm {report.study} --budget ",
        "storage": f" --storage {shlex.quote(shown_storage(storage))}" if storage else "",
        "thinking": _thinking_tokens(report),
        "steps": steps,
        "results": [_told_at(report, result) for result in results],
    }


def _told_at(report: Report, result: ScheduleResult) -> dict[str, Any]:
    """Returns what is said of a result for a budget. ``cost`` is $ per 1,000 responses at $1 a million tokens."""
    mean, longest = result.score.mean_tokens, _thinking_tokens(report)
    return {
        "who": _short_name(result),
        "answers": answers(result),
        "saving": saving(mean / longest) if longest and result.parent != "thinking" else "",
        "basis": "confirmed" if result.confirmed else "estimated",
        "mean": mean,
        "cost": f"{mean / 1000:.3g}",
    }


def _short_name(result: ScheduleResult) -> str:
    return f"the {result.parent.capitalize()} model" if result.parent else f"{result.schedule} (trial {result.trial})"


def _thinking_tokens(report: Report) -> float | None:
    """Returns the Thinking model's mean tokens, if they are known."""
    thinking = report.parents["thinking"]
    return thinking.score.mean_tokens if thinking else None


def row_of(result: ScheduleResult, report: Report, *, name: str = "") -> dict[str, Any]:
    """Returns a result as table cells; ``name`` replaces the trial and its schedule."""
    single = result is report.uniform and not report.is_pick(result)
    return {
        "name": legible(name) or str(result.trial),
        "schedule": "" if name else in_lines(result.schedule) + ("\nbest single lambda" if single else ""),
        "picked": report.is_pick(result),
        **numbers_of(result),
    }


def numbers_of(result: ScheduleResult | Measured) -> dict[str, Any]:
    """Returns the measured numbers as table cells."""
    measured = result if isinstance(result, Measured) else result.measured
    accuracy, tokens, think = measured.accuracy, measured.mean_tokens, measured.think_ratio
    return {
        "accuracy": (f"{100 * accuracy.value:.1f}", f"{100 * accuracy.low:.1f}–{100 * accuracy.high:.1f}"),
        "tokens": (number(tokens.value), f"{number(tokens.low)}–{number(tokens.high)}"),
        "think": f"{100 * think.value:.0f}",
        "cut": f"{100 * measured.truncated_ratio.value:.0f}",
        "stage": stage(result) if isinstance(result, Measured) else result.stage,
        "num_responses": f"{measured.num_responses:,}",
        "tasks": [
            (legible(task), f"{100 * each.accuracy.value:.1f}", number(each.mean_tokens.value))
            for task, each in measured.tasks.items()
        ],
    }


def points_of(change: Difference) -> tuple[str, str]:
    """Returns a difference in points of accuracy, and its interval."""
    return signed(change.value), f"{signed(change.low)} to {signed(change.high)}"
