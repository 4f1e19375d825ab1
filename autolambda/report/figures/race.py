"""The race: how many of its planned responses each trial measured, and why it was stopped."""

from __future__ import annotations

import pandas
import plotly.graph_objects as go

from autolambda.report.figures.base import CONFIRMED, FAINT, PICK, TRUNCATED, UNPARSED, WRONG, figure, safe
from autolambda.report.snapshot import StudySnapshot

KINDS = {
    "complete": ("measured to its end", CONFIRMED),
    "over the budget": ("stopped: over the budget", WRONG),
    "off the front": ("stopped: others are better", UNPARSED),
    "breaks a guard": ("stopped: breaks a guard", PICK),
    "failed": ("could not be measured", TRUNCATED),
}

WIDTH = 0.72  # of a bar, in trials


def draw(snapshot: StudySnapshot) -> go.Figure:
    """Draws a bar for each trial, coloured by outcome; the frame shows the planned responses."""
    trials = snapshot.trials
    kinds = [_kind(outcome, reason) for outcome, reason in zip(trials.outcome, trials.reason, strict=True)]
    drawn = figure(height=320, x="trial", y="responses", barmode="overlay")
    cut_short = trials[trials.num_responses < trials.num_planned]
    if len(cut_short):
        frame = {"color": "rgba(0,0,0,0)", "line": {"color": FAINT, "width": 1}}
        drawn.add_trace(
            go.Bar(
                x=cut_short.trial.tolist(),
                y=cut_short.num_planned.tolist(),
                name="planned",
                width=WIDTH,
                marker=frame,
                hoverinfo="skip",
            )
        )
    for kind, (name, color) in KINDS.items():
        rows = trials[[each == kind for each in kinds]]
        if len(rows):
            drawn.add_trace(
                go.Bar(
                    x=rows.trial.tolist(),
                    y=rows.num_responses.tolist(),
                    name=name,
                    width=WIDTH,
                    marker={"color": color, "line": {"width": 0}},
                    hovertext=[_hover(row) for _, row in rows.iterrows()],
                    hoverinfo="text",
                )
            )
    return drawn


def _kind(outcome: str, reason: object) -> str:
    if outcome == "pruned":
        return str(reason) if reason in KINDS else "off the front"
    return outcome


def _hover(row: pandas.Series) -> str:
    why = "" if pandas.isna(row["reason"]) else f"<br>{safe(str(row['reason']))[:300]}"
    return (
        f"<b>trial {row['trial']}</b>, {safe(row['outcome'])}{why}<br>{row['num_responses']:,} of "
        f"{row['num_planned']:,} responses, {row['tokens']:,} tokens"
    )
