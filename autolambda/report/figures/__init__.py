"""The figures of a study by name. Each one draws a snapshot of the study as a plotly figure.

To add a figure, write a file with a function ``draw(snapshot) -> Figure`` and add a line here.
"""

from __future__ import annotations

from collections.abc import Callable

import plotly.graph_objects as go

from autolambda.report.figures import curve, front, lengths, progress, race, schedules
from autolambda.report.snapshot import StudySnapshot

FIGURES: dict[str, Callable[[StudySnapshot], go.Figure]] = {
    "front": front.draw,
    "curve": curve.draw,
    "schedules": schedules.draw,
    "lengths": lengths.draw,
    "progress": progress.draw,
    "race": race.draw,
}
