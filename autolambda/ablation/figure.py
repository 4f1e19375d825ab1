"""The figure of one of the paper's studies: accuracy, tokens and Think ratio of its rows, with intervals.

Reference rows are grey, and a dotted line shows their value.
"""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from autolambda.ablation.results import Ablation, Result
from autolambda.report.figures.base import CONFIRMED, FAINT, SMOOTHED, bars, safe, style
from autolambda.report.html_tables import Section, SectionPart, SectionRow
from autolambda.statistics.estimates import Estimate, number
from autolambda.statistics.words import percent_of

CAPTION = (
    "Measured on the prompts of the confirmation, which the search never saw; these numbers selected nothing. Bars and "
    "small numbers are 95 % intervals. Differences in accuracy are paired, compared with the grey uniform merge at the "
    "same lambda (in the uniform study with lambda 1)."
)
ROW_HEIGHT, MARGINS = 26, 64  # pixels
COLUMNS = {"accuracy": ("accuracy, %", 100.0), "mean_tokens": ("tokens", 1.0), "think_ratio": ("Think ratio, %", 100.0)}


def ablation_sections(ablations: Sequence[Ablation]) -> tuple[Section, ...]:
    """Returns the ablations as one section of the report's page; none before anything is measured."""
    if not ablations:
        return ()
    parts = [
        SectionPart(
            f"ablation-{ablation.name}",
            ablation.title,
            draw(ablation),
            [SectionRow(each.label, each.measured, each.change, each.is_reference) for each in ablation.results],
        )
        for ablation in ablations
    ]
    return (Section("ablations", "Ablations", "The paper's studies on this pair", CAPTION, parts),)


def draw(ablation: Ablation) -> go.Figure:
    """Draws the rows from the top, in the order of the table."""
    drawn = make_subplots(rows=1, cols=len(COLUMNS), shared_yaxes=True, horizontal_spacing=0.03)
    margin = {"l": 8, "r": 12, "t": 8, "b": 8}
    style(drawn, height=MARGINS + ROW_HEIGHT * len(ablation.results), showlegend=False, margin=margin)
    kinds = ((False, CONFIRMED), (True, SMOOTHED))
    for column, (name, (title, scale)) in enumerate(COLUMNS.items(), start=1):
        for is_reference, color in kinds:
            results = [each for each in ablation.results if each.is_reference is is_reference]
            drawn.add_trace(_marks(results, name, scale, color), row=1, col=column)
        for each in ablation.results:
            if each.is_reference:
                value = scale * getattr(each.measured, name).value
                drawn.add_vline(x=value, line={"color": FAINT, "width": 1, "dash": "dot"}, row=1, col=column)
        drawn.update_xaxes(title_text=title, rangemode="tozero" if name == "mean_tokens" else "normal", col=column)
    labels = [safe(each.label) for each in ablation.results]
    drawn.update_yaxes(categoryorder="array", categoryarray=labels[::-1], type="category")
    return drawn


def _marks(results: list[Result], name: str, scale: float, color: str) -> go.Scatter:
    estimates: list[Estimate] = [getattr(each.measured, name) for each in results]
    return go.Scatter(
        x=[scale * each.value for each in estimates],
        y=[safe(each.label) for each in results],
        mode="markers",
        marker={"color": color, "size": 8},
        error_x=bars(estimates, color=color, scale=scale),
        hovertext=[_hover(each) for each in results],
        hoverinfo="text",
    )


def _hover(result: Result) -> str:
    measured, change = result.measured, result.change
    tokens = measured.mean_tokens
    difference = (
        f"<br>{100 * change.value:+.1f} points compared with {safe(result.reference or '')} "
        f"({100 * change.low:+.1f} to {100 * change.high:+.1f})"
        if change
        else ""
    )
    return (
        f"<b>{safe(result.label)}</b><br>accuracy {percent_of(measured.accuracy)}{difference}"
        f"<br>tokens {number(tokens.value)} ({number(tokens.low)} to {number(tokens.high)})"
        f"<br>Think ratio {percent_of(measured.think_ratio)}<br>on {measured.num_responses:,} responses"
    )
