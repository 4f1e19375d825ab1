"""Computes a study's ablations from its database: each row with its difference to a uniform merge.

All complete rows of the database appear, whatever config asked for them. Differences are paired by prompt and seed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autolambda.ablation.rows import AblationRow, references_of, uniform_row
from autolambda.config import ABLATIONS, AblationName
from autolambda.merging.method import METHOD_TITLES
from autolambda.report.results import stage
from autolambda.report.snapshot import num_layers_of
from autolambda.responses import Graded
from autolambda.statistics.estimates import Difference
from autolambda.statistics.metrics import Measured, difference, measure
from autolambda.study.reader import StudyReader

TITLES: dict[AblationName, str] = {
    "uniform": "Uniform lambdas (tables 2 and 5 of the paper)",
    "layers": "Layers: these are interpolated, all else is Instruct (table 3)",
    "modules": "Modules: all but these are interpolated (figure 5)",
    "decoding": "Decoding: temperature and top-p (figure 4)",
    "backbones": "Backbones: other models in Instruct's place (table 4)",
    "methods": "Methods of merging (figure 2)",
}


@dataclass(frozen=True)
class Result:
    """A measured row; ``change`` is its difference in accuracy to the row with the label ``reference``.

    ``is_reference`` marks a uniform row that another study repeats as its reference.
    """

    row: AblationRow
    label: str
    measured: Measured
    is_reference: bool
    reference: str | None
    change: Difference | None

    def to_dict(self) -> dict[str, Any]:
        """Returns a flat object for JSON and CSV; shares are 0 to 1, intervals 95 %."""
        row, measured = self.row, self.measured
        numbers: dict[str, Any] = {}
        for name in ("accuracy", "mean_tokens", "think_ratio", "truncated_ratio"):
            estimate = getattr(measured, name)
            numbers |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        change = self.change
        return {
            "row": self.label,
            "schedule": row.schedule.to_dict(),
            "parent": row.parent,
            "temperature": row.temperature,
            "top_p": row.top_p,
            "backbone": row.backbone,
            "method": row.method,
            **numbers,
            "stage": stage(measured),
            "num_prompts": measured.accuracy.num_prompts,
            "num_responses": measured.num_responses,
            "compared_with": self.reference if change else None,
            "accuracy_difference": change.value if change else None,
            "accuracy_difference_low": change.low if change else None,
            "accuracy_difference_high": change.high if change else None,
        }


@dataclass(frozen=True)
class Ablation:
    """One of the studies with its measured rows: first the reference rows, then the others."""

    name: AblationName
    results: tuple[Result, ...]

    @property
    def title(self) -> str:
        return TITLES[self.name]


def read_ablations(reader: StudyReader, *, only: Sequence[AblationName] = ABLATIONS) -> tuple[Ablation, ...]:
    """Returns the ablations of a study that have a complete row.

    A row is complete with the number of responses planned when it began. If ``ablation.responses`` in the stored config
    is smaller, that number is enough.
    """
    store, weights = reader.store, reader.config.weights
    num_layers, num_responses = num_layers_of(reader.config), reader.config.ablation.responses
    graded: dict[AblationRow, list[Graded]] = {}
    for evaluation in store.evaluations(reader.name, kind="ablation"):
        responses = store.graded(evaluation)
        if len(responses) >= min(evaluation.num_responses, num_responses or evaluation.num_responses):
            graded[AblationRow.from_dict(json.loads(evaluation.key))] = responses
    measured: dict[AblationRow, Measured] = {}

    def result(row: AblationRow, *, is_reference: bool) -> Result:
        if row not in measured:
            measured[row] = measure(graded[row], weights=weights)
        other = uniform_row(row.reference.other)
        change = None
        if not is_reference and other != row and other in graded:
            change = difference(graded[row], graded[other], weights=weights)
        return Result(row, row.label(num_layers), measured[row], is_reference, other.label(), change)

    found = []
    for name in only:
        rows = _sorted([row for row in graded if row.study == name])
        if rows:
            references = [] if name == "uniform" else [row for row in references_of(rows) if row in graded]
            results = [result(row, is_reference=True) for row in references]
            found.append(Ablation(name, (*results, *(result(row, is_reference=False) for row in rows))))
    return tuple(found)


def _sorted(rows: Sequence[AblationRow]) -> list[AblationRow]:
    """Sorts parents first, then by the changes of the row; layers and modules keep the measured order."""
    methods = [None, *METHOD_TITLES]
    return sorted(
        rows,
        key=lambda row: (
            row.parent is None,
            row.backbone or "",
            methods.index(row.method),
            row.schedule.other,
            row.temperature or 0.0,
            row.top_p or 0.0,
        ),
    )
