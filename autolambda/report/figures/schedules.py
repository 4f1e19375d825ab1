"""Schedules over the depth of the network: one row per module, one cell per layer, coloured by lambda.

If the number of layers is unknown, depth is drawn in equal parts.
"""

from __future__ import annotations

import plotly.graph_objects as go

from autolambda.report.figures.base import INSTRUCT, MIDDLE, PICK, SOFT, THINKING, figure
from autolambda.report.results import ScheduleResult
from autolambda.report.snapshot import StudySnapshot
from autolambda.report.terminal import thinned
from autolambda.schedule import Schedule

NUM_PARTS = 24
MAX_SCHEDULES = 8
LEAST_RANGE = 0.3  # of lambda, over the colours
WORDY = 14  # a row with more cells shows no numbers


def draw(snapshot: StudySnapshot) -> go.Figure:
    """Draws the front and the pick, fewest tokens first."""
    report, depth = snapshot.report, snapshot.num_layers or NUM_PARTS
    front = list(report.front)
    if report.best and all(result.schedule != report.best.schedule for result in front):
        front = sorted([*front, report.best], key=lambda result: result.score.mean_tokens)
    shown = _few(front, report.best)
    rows, labels, hovers = [], [], []
    for result in shown:
        picked = report.best is not None and result.schedule == report.best.schedule
        title = f"<b>→ {result.name}</b>" if picked else result.name
        for module in ("attention", "ffn"):
            values = _values(result.schedule, module, depth)
            rows.append(values)
            labels.append(f"{title}, {module}")
            where = "layer" if snapshot.num_layers else f"part of {depth}:"
            beyond = _beyond(result.schedule, module)
            hovers.append([f"{title}<br>{module}, {where} {i}<br>lambda {v:.4g}{beyond}" for i, v in enumerate(values)])
    x = "layer" if snapshot.num_layers else "depth, from the first layer to the last"
    drawn = figure(height=90 + 36 * len(rows), x=x)
    drawn.add_trace(_heatmap(rows, hovers))
    drawn.update_yaxes(tickvals=list(range(len(rows))), ticktext=labels, showgrid=False, ticks="")
    drawn.update_yaxes(autorange="reversed")
    drawn.update_xaxes(showgrid=False, dtick=1 if depth <= WORDY else None, showticklabels=bool(snapshot.num_layers))
    for index in range(1, len(shown)):
        drawn.add_hline(y=2 * index - 0.5, line={"color": SOFT, "width": 0.6})
    if report.best:
        place = next(i for i, result in enumerate(shown) if result.schedule == report.best.schedule)
        drawn.add_shape(
            type="rect",
            x0=-0.5,
            x1=depth - 0.5,
            y0=2 * place - 0.5,
            y1=2 * place + 1.5,
            line={"color": PICK, "width": 2},
        )
    drawn.update_layout(margin={"t": 20})
    return drawn


def _range(rows: list[list[float]]) -> tuple[float, float]:
    """Returns the range of the colours: that of the values, at least ``LEAST_RANGE`` wide."""
    low, high = min(map(min, rows)), max(map(max, rows))
    missing = max(LEAST_RANGE - (high - low), 0.0) / 2
    bottom, top = min(low, 0.0), max(high, 1.0)
    low = min(max(low - missing, bottom), top - LEAST_RANGE)
    return low, min(max(high + missing, low + LEAST_RANGE), top)


def _heatmap(rows: list[list[float]], hovers: list[list[str]]) -> go.Heatmap:
    depth, (low, high) = len(rows[0]), _range(rows)
    return go.Heatmap(
        z=rows,
        x=list(range(depth)),
        y=list(range(len(rows))),
        zmin=low,
        zmax=high,
        colorscale=[[0, INSTRUCT], [0.5, MIDDLE], [1, THINKING]],
        xgap=2,
        ygap=3,
        hovertext=hovers,
        hoverinfo="text",
        text=[[f"{value:.2f}" for value in row] for row in rows] if depth <= WORDY else None,
        texttemplate="%{text}" if depth <= WORDY else None,
        colorbar={
            "title": {"text": "lambda", "side": "top", "font": {"size": 12}},
            "thickness": 9,
            "len": 1,
            "outlinewidth": 0,
            "tickvals": [low, (low + high) / 2, high],
            "tickformat": ".2f",
            "tickfont": {"size": 12},
            "xpad": 8,
        },
    )


def _values(schedule: Schedule, module: str, depth: int) -> list[float]:
    profile = schedule.attention if module == "attention" else schedule.ffn
    return [profile.at(layer, depth) for layer in range(depth)]


def _beyond(schedule: Schedule, module: str) -> str:
    """Returns the scale and the weight of the third parent of a module, for a schedule that is not on the line."""
    if schedule.is_on_line:
        return ""
    scale, third = (getattr(each, module) for each in (schedule.scale, schedule.third))
    return f", scale {scale:.4g}, third {third:.4g}"


def _few(results: list[ScheduleResult], best: ScheduleResult | None) -> list[ScheduleResult]:
    """About ``MAX_SCHEDULES`` results at equal steps; the pick is always kept."""
    kept = thinned(results, MAX_SCHEDULES)
    return [result for result in results if result in kept or (best and result.schedule == best.schedule)]
