"""Accuracy and mean tokens of each task over lambda, with the pick: where a merge pays differs from task to task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from autolambda.report.figures.base import (
    CONFIRMED,
    CORRECT,
    INSTRUCT,
    PICK,
    SOFT,
    THINKING,
    UNPARSED,
    bars,
    safe,
    style,
)
from autolambda.report.followup.transfer import Transfer
from autolambda.report.html_tables import Section, SectionPart, SectionRow
from autolambda.report.report import Report
from autolambda.statistics.estimates import Difference
from autolambda.statistics.metrics import Measured
from autolambda.statistics.stages import Boundary
from autolambda.statistics.words import percent_of, tokens_of

ROWS = (("accuracy", "accuracy, %", 100.0), ("mean_tokens", "mean tokens", 1.0))
COLORS = (CONFIRMED, THINKING, INSTRUCT, UNPARSED, CORRECT)
CAPTION = (
    "The same merges on other tasks. Lines join the uniform lambdas, stars are the pick (at the lambda of its other "
    "parameters), and a dashed line is where a task's own reasoning emerges. In the table a difference is the pick's "
    "accuracy minus that of the row, paired by prompt. Bars and small numbers are 95 % intervals."
)
LABELS = {"uniform": "best uniform lambda", "instruct": "Instruct as is", "thinking": "Thinking as is"}


def transfer_sections(report: Report) -> tuple[Section, ...]:
    """Returns the section of the report's page on other tasks; none before any is measured."""
    if not report.transfers:
        return ()
    rows = [
        SectionRow(f"{each.task}: {_label(each, name)}", measured, _difference(each, name), name == "pick")
        for each in report.transfers
        for name, measured in each.sides.items()
    ]
    part = SectionPart("transfer", "Accuracy and tokens over lambda", draw(report), rows)
    return (Section("transfer", "Other tasks", "The pick on other tasks", CAPTION, [part]),)


def draw(report: Report) -> go.Figure:
    """Draws the study's own prompts and every other task over one lambda axis."""
    drawn = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    style(drawn, height=520)
    own = {lam: each.measured for each in report.trials if (lam := each.schedule.lam) is not None}
    _curve(drawn, "the study's own prompts", dict(sorted(own.items())), SOFT, report.stages.emergence)
    for number, each in enumerate(report.transfers):
        color = COLORS[number % len(COLORS)]
        _curve(drawn, each.task, each.curve, color, each.emergence)
        for row, (name, _, scale) in enumerate(ROWS, start=1):
            drawn.add_trace(_pick(each, name, scale), row, 1)
    for row, (_, title, _) in enumerate(ROWS, start=1):
        drawn.update_yaxes(title_text=title, row=row, col=1)
    lams = [0.0, 1.0, *own, *(lam for each in report.transfers for lam in each.curve)]
    drawn.update_xaxes(range=[min(lams) - 0.02, max(lams) + 0.02])
    drawn.update_xaxes(title_text="lambda (0 is Instruct, 1 is Thinking)", row=2, col=1)
    return drawn


def _curve(
    drawn: go.Figure, task: str, curve: Mapping[float, Measured], color: str, emergence: Boundary | None
) -> None:
    for row, (name, _, scale) in enumerate(ROWS, start=1):
        estimates = [getattr(each, name) for each in curve.values()]
        trace = go.Scatter(
            x=list(curve),
            y=[scale * each.value for each in estimates],
            mode="lines+markers",
            name=safe(task),
            legendgroup=safe(task),
            showlegend=row == 1,
            line={"color": color, "width": 2},
            marker={"color": color, "size": 6},
            error_y=bars(estimates, color=color, scale=scale),
            hovertext=_hovers(task, curve),
            hoverinfo="text",
        )
        drawn.add_trace(trace, row, 1)
    if emergence:
        drawn.add_vline(x=emergence.lam, line={"color": color, "width": 1.2, "dash": "dash"}, row="all", col=1)


def _hovers(task: str, curve: Mapping[float, Measured]) -> Sequence[str]:
    return [
        f"<b>{safe(task)}</b>, lambda {lam:.4g}<br>accuracy {percent_of(each.accuracy)}"
        f"<br>{tokens_of(each.mean_tokens)}<br>Think ratio {percent_of(each.think_ratio)}"
        for lam, each in curve.items()
    ]


def _pick(transfer: Transfer, name: str, scale: float) -> go.Scatter:
    pick = transfer.compared.pick
    return go.Scatter(
        x=[pick.other],
        y=[scale * getattr(transfer.sides["pick"], name).value],
        mode="markers",
        showlegend=False,
        marker={"color": PICK, "size": 11, "symbol": "star"},
        hovertext=[f"<b>{safe(transfer.task)}</b>, the pick<br>{safe(str(pick))}"],
        hoverinfo="text",
    )


def _label(transfer: Transfer, name: str) -> str:
    return f"the pick, {transfer.compared.pick}" if name == "pick" else LABELS[name]


def _difference(transfer: Transfer, name: str) -> Difference | None:
    change = transfer.changes.get(name)
    return change.accuracy if change else None
