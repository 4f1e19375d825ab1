"""A report as text for other programs: JSON with the keys of the README, CSV with a row a trial."""

from __future__ import annotations

import json
from pathlib import Path

import pandas
from rich.console import Console

from autolambda.errors import OutputError
from autolambda.report import Report, boundary_dict
from autolambda.stages import Stages
from autolambda.tables import report_view


def write_report(report: Report, *, form: str, out: Path | None, console: Console) -> None:
    """Prints the report as ``table``, ``json`` or ``csv``, or writes it to ``out``. Raises ``OutputError``."""
    if form == "table" and out is None:
        console.print(report_view(report))
        return
    text = {"json": report_json, "csv": report_csv, "table": _plain_table}[form](report)
    if out is None:
        console.out(text, end="", highlight=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write '{out}': {error.strerror}") from error


def report_json(report: Report) -> str:
    """One JSON object."""
    return json.dumps(report.to_dict(), indent=2) + "\n"


def report_csv(report: Report) -> str:
    """A row a complete trial, its schedule as JSON, its numbers those of the search slice."""
    rows = []
    for entry in report.trials:
        numbers = {key: value for key, value in entry.to_dict().items() if key not in ("tasks", "confirmed")}
        rows.append(numbers | {"schedule": json.dumps(numbers["schedule"])})
    return str(pandas.DataFrame(rows).to_csv(index=False))


def stages_json(stages: Stages) -> str:
    """The two boundaries, each ``{"lambda", "low", "high"}`` or null."""
    return json.dumps({name: boundary_dict(getattr(stages, name)) for name in ("emergence", "saturation")}, indent=2)


def _plain_table(report: Report) -> str:
    console = Console(record=True, width=120, file=None, quiet=True, color_system=None)
    console.print(report_view(report))
    return console.export_text()
