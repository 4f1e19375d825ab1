"""Shared parts of all figures: colours by role, one layout, hover texts.

Text from files and models is escaped before it reaches a figure, because plotly interprets some HTML.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go

from autolambda.errors import printable
from autolambda.report.results import ScheduleResult
from autolambda.report.terminal import in_lines
from autolambda.statistics.estimates import Estimate
from autolambda.statistics.words import percent, percent_of, tokens_of

INK, SOFT, FAINT = "#27303f", "#667085", "#a7b0be"
GRID, PAPER, MIDDLE = "#e4e8ee", "#ffffff", "#dfe3ea"
INSTRUCT, THINKING, PICK = "#0c8577", "#7447d1", "#dd4b12"
CONFIRMED, SMOOTHED = "#1f62d6", "#7d8ca3"
BUDGET = "#c4293c"
CORRECT, WRONG, UNPARSED, TRUNCATED = "#2c8a45", "#c8323f", "#b3780f", "#75798a"
STAGES = (
    "#0c8578",
    "#c98a1b",
    "#7447d2",
)  # of the three bands; colours used only here, so that each has a dark counterpart

DARK = {
    INK: "#e6eaf0",
    SOFT: "#9aa7ba",
    FAINT: "#5b6779",
    GRID: "#2b3442",
    PAPER: "#161c26",
    MIDDLE: "#2f3a4a",
    INSTRUCT: "#37c6b4",
    THINKING: "#b391f7",
    PICK: "#ff8a4c",
    CONFIRMED: "#6ba6ff",
    SMOOTHED: "#8b9ab0",
    BUDGET: "#ff6b7a",
    CORRECT: "#55c973",
    WRONG: "#ff7b83",
    UNPARSED: "#f0bb4e",
    TRUNCATED: "#a2a7b8",
    STAGES[0]: "#37c6b5",
    STAGES[1]: "#f2c14f",
    STAGES[2]: "#b391f8",
}
"""Maps each colour to its counterpart on a dark page, which the page's script inserts."""

FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def figure(*, height: int, x: str = "", y: str = "", **layout: Any) -> go.Figure:
    """Returns an empty figure. ``height`` is in pixels; ``x`` and ``y`` are axis titles."""
    drawn = go.Figure()
    style(drawn, height=height, **layout)
    drawn.update_xaxes(title_text=x)
    drawn.update_yaxes(title_text=y)
    return drawn


def style(drawn: go.Figure, *, height: int, **layout: Any) -> None:
    """Sets the shared layout of all figures."""
    axis = {
        "gridcolor": GRID,
        "linecolor": FAINT,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": FAINT,
        "ticklen": 4,
        "title": {"standoff": 10, "font": {"size": 13}},
        "automargin": True,
    }
    drawn.update_layout(
        template="none",
        height=height,
        font={"family": FONT, "size": 13, "color": INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 8, "r": 12, "t": 44, "b": 8},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "xanchor": "left", "font": {"size": 12.5}},
        hoverlabel={"bgcolor": PAPER, "bordercolor": FAINT, "font": {"color": INK, "family": FONT, "size": 13}},
        hovermode="closest",
        dragmode=False,
    )
    drawn.update_layout(**layout)
    drawn.update_xaxes(**axis)
    drawn.update_yaxes(**axis)


def safe(text: str) -> str:
    """Returns text that plotly shows literally: markup and control characters are escaped."""
    return html.escape(printable(text))


def hover(result: ScheduleResult, *, name: str | None = None) -> str:
    """Returns a hover text: name, schedule, numbers with their intervals, number of responses."""
    measured = result.measured
    accuracy, tokens, think = measured.accuracy, measured.mean_tokens, measured.think_ratio
    title = name or result.name
    stopped = f"<br>stopped: {safe(result.stopped)}" if result.stopped else ""
    schedule = "" if result.trial is None else "<br>" + safe(in_lines(result.schedule)).replace("\\n", "<br>")
    return (
        f"<b>{safe(title)}</b>{schedule}"
        f"<br>accuracy {percent_of(accuracy)}"
        f"<br>{tokens_of(tokens)}"
        f"<br>Think ratio {percent(think.value)}, stage {result.stage}"
        f"<br>on {measured.num_responses:,} responses{stopped}"
    )


def bars(estimates: Iterable[Estimate], *, color: str, scale: float = 1.0, thickness: float = 1.3) -> dict[str, Any]:
    """Returns the 95 % intervals as error bars, multiplied by ``scale`` like the values."""
    listed = list(estimates)
    return {
        "type": "data",
        "symmetric": False,
        "array": [scale * (each.high - each.value) for each in listed],
        "arrayminus": [scale * (each.value - each.low) for each in listed],
        "color": color,
        "thickness": thickness,
        "width": 0,
    }


def marks(
    results: Sequence[ScheduleResult],
    *,
    name: str,
    color: str,
    names: Sequence[str] | None = None,
    mode: str = "markers",
    with_bars: bool = False,
    **more: Any,
) -> go.Scatter:
    """Returns results as points: mean tokens on the x axis, accuracy in percent on the y axis."""
    titles: Sequence[str | None] = names or [None] * len(results)
    accuracy, tokens = ([getattr(e.measured, key) for e in results] for key in ("accuracy", "mean_tokens"))
    error = {"error_x": bars(tokens, color=color), "error_y": bars(accuracy, color=color, scale=100)}
    return go.Scatter(
        x=[each.value for each in tokens],
        y=[100 * each.value for each in accuracy],
        mode=mode,
        name=name,
        hovertext=[hover(result, name=title) for result, title in zip(results, titles, strict=True)],
        hoverinfo="text",
        **(error if with_bars else {}),
        **more,
    )
