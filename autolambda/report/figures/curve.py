"""Think ratio, accuracy and mean tokens over lambda, with the stages, as in figure 3 of arXiv 2510.10977.

The line joins the uniform lambdas. Other schedules are faint points at the lambda of their ``other`` parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from autolambda.report.figures.base import CONFIRMED, FAINT, INSTRUCT, SOFT, STAGES, THINKING, bars, hover, style
from autolambda.report.results import ScheduleResult
from autolambda.report.snapshot import StudySnapshot
from autolambda.statistics.stages import Boundary, Stages

ROWS = (
    ("think_ratio", "Think ratio, %", 100.0),
    ("accuracy", "accuracy, %", 100.0),
    ("mean_tokens", "mean tokens", 1.0),
)
COLORS = (THINKING, CONFIRMED, INSTRUCT)


def draw(snapshot: StudySnapshot) -> go.Figure:
    """Draws Think ratio, accuracy and mean tokens of the search over one lambda axis."""
    report = snapshot.report
    uniform = sorted((e for e in report.trials if e.schedule.lam is not None), key=lambda e: e.schedule.other)
    others = [result for result in report.trials if result.schedule.lam is None]
    drawn = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.055)
    for row, (name, title, scale) in enumerate(ROWS, start=1):
        color = COLORS[row - 1]
        drawn.add_trace(_points(others, name, scale, FAINT, "other schedules", is_line=False, legend=row == 1), row, 1)
        drawn.add_trace(_points(uniform, name, scale, color, title.split(",")[0], is_line=True, legend=False), row, 1)
        drawn.update_yaxes(title_text=title, row=row, col=1)
    style(drawn, height=620)
    drawn.update_xaxes(title_text="lambda (0 is Instruct, 1 is Thinking)", row=3, col=1)
    lams = [0.0, 1.0, *(result.schedule.other for result in report.trials)]
    drawn.update_xaxes(range=[min(lams) - 0.02, max(lams) + 0.02])
    _stages(drawn, report.stages)
    return drawn


def _points(
    results: Sequence[ScheduleResult], name: str, scale: float, color: str, title: str, *, is_line: bool, legend: bool
) -> go.Scatter:
    estimates = [getattr(result.measured, name) for result in results]
    more = {"error_y": bars(estimates, color=color, scale=scale)} if is_line else {}
    return go.Scatter(
        x=[result.schedule.other for result in results],
        y=[scale * each.value for each in estimates],
        mode="lines+markers" if is_line else "markers",
        name=title,
        legendgroup=title,
        showlegend=legend,
        line={"color": color, "width": 2.2},
        marker={"color": color, "size": 7 if is_line else 5, "opacity": 1 if is_line else 0.7},
        hovertext=[hover(result) for result in results],
        hoverinfo="text",
        **more,
    )


def _stages(drawn: go.Figure, stages: Stages) -> None:
    """Draws the three stages as bands over all rows, and the interval of each boundary as a darker band.

    They go from one parent to the other, as the stages are read from there.
    """
    first, last = stages.emergence, stages.saturation
    if first is None and last is None:
        return
    edges = [0.0, first.lam if first else 0.0, last.lam if last else 1.0, 1.0]
    for number, color in enumerate(STAGES):
        left, right = edges[number], edges[number + 1]
        if right <= left:
            continue
        drawn.add_vrect(
            x0=left, x1=right, fillcolor=color, opacity=0.085, line_width=0, layer="below", row="all", col=1
        )
        drawn.add_annotation(
            x=(left + right) / 2,
            y=1,
            yref="paper",
            yanchor="bottom",
            text=f"stage {number + 1}" if right - left > 0.12 else str(number + 1),
            showarrow=False,
            font={"color": color, "size": 12.5},
        )
    for boundary in filter(None, (first, last)):
        _boundary(drawn, boundary)
    drawn.update_layout(legend={"y": 1.06}, margin={"t": 64})


def _boundary(drawn: go.Figure, boundary: Boundary) -> None:
    drawn.add_vrect(
        x0=boundary.low, x1=boundary.high, fillcolor=SOFT, opacity=0.09, line_width=0, layer="below", row="all", col=1
    )
    drawn.add_vline(x=boundary.lam, line={"color": SOFT, "width": 1.2, "dash": "dash"}, row="all", col=1)
