"""The numbers of the HTML page, formatted for its template, and further sections of the page as values.

Wings above the report add sections, for example the ablations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from autolambda.report.comparison import legible
from autolambda.report.report import Report
from autolambda.report.results import ScheduleResult, stage
from autolambda.report.sentences import against_thinking
from autolambda.report.terminal import in_lines
from autolambda.statistics.estimates import Difference, number
from autolambda.statistics.metrics import Measured


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
    """Yields the large numbers at the top, for the pick or the nearest result."""
    result = report.best or report.nearest
    if result is None:
        return
    accuracy, tokens, think = result.measured.accuracy, result.measured.mean_tokens, result.measured.think_ratio
    yield {
        "name": "accuracy",
        "value": f"{100 * accuracy.value:.1f} %",
        "note": f"95 % interval {100 * accuracy.low:.1f} to {100 * accuracy.high:.1f}",
    }
    yield {
        "name": "tokens a response",
        "value": number(tokens.value),
        "note": f"95 % interval {number(tokens.low)} to {number(tokens.high)}",
        "share": None if report.budget is None else tokens.value / report.budget,
    }
    yield {
        "name": "Think ratio",
        "value": f"{100 * think.value:.0f} %",
        "note": f"stage {stage(result.measured)}",
    }
    if found := against_thinking(report, result):
        interval = f"95 % interval {points_of(found.interval)[1]}; " if found.interval else ""
        yield {
            "name": "compared with Thinking",
            "value": f"{100 * found.accuracy:+.1f} points".replace("-", "−"),
            "note": f"{interval}{100 * found.token_share:.0f} % of its tokens".replace("-", "−"),
        }


def fronts(report: Report) -> list[tuple[str, Sequence[ScheduleResult], bool]]:
    """Returns each front with its title, and whether it is open at first."""
    confirmed, smoothed = report.confirmed_front, report.smoothed_front
    found: list[tuple[str, Sequence[ScheduleResult], bool]] = []
    if confirmed:
        found.append(("Confirmed front, on prompts that the search never saw", confirmed, True))
    found.append(("Smoothed front, over all trials, not confirmed", smoothed, not confirmed))
    found.append(("Raw front, as measured in the search", report.raw_front, False))
    return found


def row_of(result: ScheduleResult, report: Report, *, name: str = "") -> dict[str, Any]:
    """Returns a result as table cells; ``name`` replaces the trial and its schedule."""
    return {
        "name": legible(name) or str(result.trial),
        "schedule": "" if name else in_lines(result.schedule),
        "picked": report.is_pick(result),
        **numbers_of(result.measured),
    }


def numbers_of(measured: Measured) -> dict[str, Any]:
    """Returns the measured numbers as table cells."""
    accuracy, tokens, think = measured.accuracy, measured.mean_tokens, measured.think_ratio
    return {
        "accuracy": (f"{100 * accuracy.value:.1f}", f"{100 * accuracy.low:.1f}–{100 * accuracy.high:.1f}"),
        "tokens": (number(tokens.value), f"{number(tokens.low)}–{number(tokens.high)}"),
        "think": f"{100 * think.value:.0f}",
        "cut": f"{100 * measured.truncated_ratio.value:.0f}",
        "stage": stage(measured),
        "num_responses": f"{measured.num_responses:,}",
        "tasks": [
            (legible(task), f"{100 * each.accuracy.value:.1f}", number(each.mean_tokens.value))
            for task, each in measured.tasks.items()
        ],
    }


def points_of(change: Difference) -> tuple[str, str]:
    """Returns a difference in points of accuracy, and its interval."""
    return f"{100 * change.value:+.1f}", f"{100 * change.low:+.1f} to {100 * change.high:+.1f}"
