"""Further sections of the HTML page, as values: the wings above the report bring them, such as the ablations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from autolambda.statistics.estimates import Difference
from autolambda.statistics.metrics import Measured


@dataclass(frozen=True)
class SectionRow:
    """A row of a section's table. ``change`` is its difference in accuracy to a reference row, if it has one."""

    label: str
    measured: Measured
    change: Difference | None
    is_reference: bool


@dataclass(frozen=True)
class SectionPart:
    """A figure with the table of its numbers; ``name`` is unique on the page."""

    name: str
    title: str
    figure: go.Figure
    rows: Sequence[SectionRow]


@dataclass(frozen=True)
class Section:
    """A section of the page; ``name`` is its anchor, ``link`` its word in the menu."""

    name: str
    link: str
    title: str
    caption: str
    parts: Sequence[SectionPart]
