"""Accuracy against mean tokens: all schedules, the two fronts, the budget, the parents and other methods."""

from __future__ import annotations

import plotly.graph_objects as go

from autolambda.report.figures.base import (
    BUDGET,
    CONFIRMED,
    FAINT,
    INSTRUCT,
    PICK,
    SMOOTHED,
    SOFT,
    THINKING,
    figure,
    marks,
)
from autolambda.report.report import Report
from autolambda.report.snapshot import StudySnapshot
from autolambda.statistics.estimates import number

SIDES = {"instruct": "bottom right", "thinking": "bottom left"}
PARENTS = {"instruct": INSTRUCT, "thinking": THINKING}


def draw(snapshot: StudySnapshot) -> go.Figure:
    """Draws the schedules and fronts; the large mark is the pick for the budget."""
    report = snapshot.report
    drawn = figure(height=520, x="mean tokens a response", y="accuracy, %")
    drawn.add_trace(
        marks(
            report.trials,
            name="measured in the search",
            color=FAINT,
            marker={"color": FAINT, "size": 6, "opacity": 0.75},
        )
    )
    drawn.add_trace(
        marks(
            report.smoothed_front,
            name="estimated front",
            color=SMOOTHED,
            mode="lines+markers",
            with_bars=not report.confirmed,
            line={"color": SMOOTHED, "width": 1.8, "dash": "dot"},
            marker={"color": SMOOTHED, "size": 5},
        )
    )
    if report.confirmed_front:
        drawn.add_trace(
            marks(
                report.confirmed_front,
                name="confirmed front",
                color=CONFIRMED,
                mode="lines+markers",
                with_bars=True,
                line={"color": CONFIRMED, "width": 2.6},
                marker={"color": CONFIRMED, "size": 9},
            )
        )
    _parents(drawn, report)
    if beside := report.beside:
        results = list(beside.values())
        marker = {"color": SOFT, "size": 9, "symbol": "x-thin", "line": {"width": 2, "color": SOFT}}
        drawn.add_trace(
            marks(results, name="other methods", color=SOFT, names=[*beside], with_bars=True, marker=marker)
        )
    if report.best:
        ring = {"color": PICK, "size": 13, "line": {"color": "#ffffff", "width": 1.5}}
        name = f"the pick: {report.best.name}"
        drawn.add_trace(marks([report.best], name=name, color=PICK, with_bars=True, marker=ring))
    if report.budget is not None:
        _budget(drawn, report.budget)
    drawn.update_xaxes(rangemode="tozero")
    return drawn


def _parents(drawn: go.Figure, report: Report) -> None:
    for name, color in PARENTS.items():
        result = report.parents.get(name)
        if result is None:
            continue
        title = f"{name.capitalize()} {'as is' if result.confirmed else f'at lambda {result.schedule.lam:g}'}"
        marker = {"color": color, "size": 12, "symbol": "diamond", "line": {"color": "#ffffff", "width": 1}}
        text = {"text": [name.capitalize()], "textposition": SIDES[name], "textfont": {"color": color, "size": 12.5}}
        drawn.add_trace(
            marks(
                [result], name=title, color=color, names=[title], with_bars=True, marker=marker, mode="markers+text"
            ).update(showlegend=False, **text)
        )


def _budget(drawn: go.Figure, budget: float) -> None:
    drawn.add_vline(x=budget, line={"color": BUDGET, "width": 1.6, "dash": "dash"})
    drawn.add_annotation(
        x=budget,
        y=0,
        yref="paper",
        yanchor="bottom",
        text=f" budget {number(budget).removesuffix('.0')}",
        showarrow=False,
        xanchor="left",
        font={"color": BUDGET, "size": 12.5},
    )
