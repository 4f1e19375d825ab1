"""Lengths of responses by the stage of their schedule. A mean can hide that only some responses think."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from autolambda.report.figures.base import FAINT, INK, INSTRUCT, STAGES, THINKING, style
from autolambda.report.snapshot import StudySnapshot
from autolambda.statistics.estimates import Floats, number

NUM_BINS = 44
NAMES = {1: "stage 1, instruct", 2: "stage 2, emergence", 3: "stage 3, thinking"}


def draw(snapshot: StudySnapshot) -> go.Figure:
    """Draws a histogram for each stage on a logarithmic axis of tokens; the mean is a dashed line."""
    outcomes, trials = snapshot.outcomes, snapshot.trials
    whole = outcomes[(outcomes.kind == "trial") & (outcomes.finish_reason != "aborted")]
    by_schedule = {result.schedule.key: result.stage for result in snapshot.report.trials}
    stages = whole.key.map(dict(zip(trials.trial.astype(str), trials.schedule.map(by_schedule), strict=True)))
    present = [stage for stage in NAMES if (stages == stage).any()]
    drawn = make_subplots(rows=max(len(present), 1), cols=1, shared_xaxes=True, vertical_spacing=0.1)
    style(drawn, height=100 + 150 * max(len(present), 1), barmode="stack", bargap=0.06)
    longest = max(float(whole.num_tokens.max()), 10.0) if len(whole) else 10.0
    edges: Floats = np.linspace(0, np.log10(longest) + 1e-9, NUM_BINS + 1)
    for row, stage in enumerate(present, start=1):
        of_stage = whole[stages == stage]
        for thought, name, color in ((False, "without </think>", INSTRUCT), (True, "with </think>", THINKING)):
            lengths = of_stage.num_tokens[of_stage.thought == thought].to_numpy()
            counts, _ = np.histogram(np.log10(np.maximum(lengths, 1)), bins=edges)
            drawn.add_trace(_bars(edges, 100 * counts / len(of_stage), name, color, legend=row == 1), row, 1)
        mean = float(of_stage.num_tokens.mean())
        drawn.add_vline(x=np.log10(mean), line={"color": INK, "width": 1.2, "dash": "dash"}, row=row, col=1)
        drawn.add_annotation(
            x=0,
            xref="paper",
            y=1,
            yref=f"y{'' if row == 1 else row} domain",
            text=f"<b>{NAMES[stage]}</b>  {len(of_stage):,} responses, mean {number(mean)}",
            showarrow=False,
            xanchor="left",
            yanchor="bottom",
            font={"color": STAGES[stage - 1], "size": 12.5},
        )
    drawn.update_yaxes(title_text="% of responses", rangemode="tozero", nticks=4)
    ticks = [tick for power in range(7) for tick in (10**power, 3 * 10**power) if np.log10(tick) <= edges[-1]]
    drawn.update_xaxes(tickvals=[np.log10(tick) for tick in ticks], ticktext=[f"{tick:,}" for tick in ticks])
    drawn.update_xaxes(title_text="tokens of a response", row=max(len(present), 1), col=1)
    drawn.update_layout(legend={"y": 1.07})
    drawn.update_xaxes(showline=True, linecolor=FAINT)
    return drawn


def _bars(edges: Floats, shares: Floats, name: str, color: str, *, legend: bool) -> go.Bar:
    safe_name = name.replace("<", "&lt;").replace(">", "&gt;")
    low, high = 10 ** edges[:-1], 10 ** edges[1:]
    return go.Bar(
        x=((edges[:-1] + edges[1:]) / 2).tolist(),
        y=shares.tolist(),
        width=float(edges[1] - edges[0]),
        name=safe_name,
        legendgroup=name,
        showlegend=legend,
        marker={"color": color, "line": {"width": 0}},
        hovertext=[
            f"{share:.1f} % of responses<br>{a:,.0f} to {b:,.0f} tokens, {safe_name}"
            for share, a, b in zip(shares, low, high, strict=True)
        ],
        hoverinfo="text",
    )
