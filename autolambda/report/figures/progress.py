"""The best measured accuracy, averaged over budgets (the hypervolume), against the tokens generated so far."""

from __future__ import annotations

import plotly.graph_objects as go

from autolambda.report.figures.base import CONFIRMED, FAINT, SOFT, figure, safe
from autolambda.report.snapshot import StudySnapshot
from autolambda.statistics.estimates import number


def draw(snapshot: StudySnapshot) -> go.Figure:
    """Draws a step for each trial; a band shows the tokens that the confirmation took."""
    trials = snapshot.trials
    drawn = figure(
        height=360,
        x="tokens generated",
        y=f"average accuracy, budgets<br>up to {number(snapshot.reference_tokens)} tokens, %",
    )
    text = [
        f"<b>after trial {row['trial']}</b><br>{row['tokens_so_far']:,} tokens generated"
        f"<br>average accuracy {100 * row['hypervolume']:.2f} %<br>{safe(row['outcome'])}"
        for row in trials.to_dict("records")
    ]
    drawn.add_trace(
        go.Scatter(
            x=trials.tokens_so_far.tolist(),
            y=(100 * trials.hypervolume).tolist(),
            mode="lines+markers",
            name="best so far",
            line={"color": CONFIRMED, "width": 2.2, "shape": "hv"},
            marker={"color": CONFIRMED, "size": 6},
            hovertext=text,
            hoverinfo="text",
            showlegend=False,
        )
    )
    spent, total = int(trials.tokens.sum()), snapshot.report.tokens_generated
    if total > spent:
        drawn.add_vrect(x0=spent, x1=total, fillcolor=FAINT, opacity=0.14, line_width=0, layer="below")
        drawn.add_annotation(
            x=(spent + total) / 2,
            y=0.03,
            yref="paper",
            yanchor="bottom",
            text="check on new prompts",
            showarrow=False,
            font={"color": SOFT, "size": 12.5},
        )
    drawn.update_xaxes(rangemode="tozero", tickformat="~s")
    return drawn
