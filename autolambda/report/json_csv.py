"""A report as text for other programs: JSON (README.md lists its keys), and CSV with one row per trial."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas
from rich.console import Console

from autolambda.errors import OutputError
from autolambda.report.report import Report
from autolambda.report.results import ScheduleResult
from autolambda.report.sentences import against_thinking
from autolambda.report.terminal import report_view
from autolambda.statistics.stages import Boundary, Stages
from autolambda.statistics.token_value import CurveInsights

FILE_WIDTH = 120  # columns of a table in a file


def write_report(report: Report, *, form: str, out: Path | None, console: Console, storage: str | None = None) -> None:
    """Prints the report in the form ``table``, ``json`` or ``csv``, or writes it to ``out``. Raises ``OutputError``."""
    if form == "table" and out is None:
        console.print(report_view(report, storage=storage))
        return
    write_text({"json": report_json, "csv": report_csv, "table": report_text}[form](report), out=out, console=console)


def write_text(text: str, *, out: Path | None, console: Console) -> None:
    """Prints a text unchanged, or writes it to ``out``. Raises ``OutputError``."""
    if out is None:
        console.out(text, end="", highlight=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write '{out}': {error.strerror}; choose another file") from error


def report_json(report: Report) -> str:
    """Returns the report as one JSON object."""
    return json.dumps(_plain_report(report), indent=2) + "\n"


def report_csv(report: Report) -> str:
    """Returns one row per schedule measured in the search, one per confirmed schedule, and one per measured cap.

    ``confirmed`` tells them apart: only its rows are on prompts that the search never saw. ``schedule`` is JSON.
    ``cap`` is the cap on thinking in tokens, and empty without one.
    """
    rows = []
    whole = [(result, None) for result in (*report.trials, *report.confirmed)]
    capped = [(each.result, each.capped.tokens) for each in (report.cap, report.capped_merge) if each]
    for result, cap in (*whole, *capped):
        numbers = {key: value for key, value in result.to_dict().items() if key not in ("tasks", "confirmed")}
        is_pick = cap is None and report.is_pick(result)
        own = {"schedule": result.schedule.key, "confirmed": result.confirmed, "pick": is_pick, "cap": cap}
        rows.append(numbers | own)
    return str(pandas.DataFrame(rows).astype({"trial": "Int64", "cap": "Int64"}).to_csv(index=False))


def report_text(report: Report) -> str:
    """Returns the terminal's view without colours."""
    file = io.StringIO()
    Console(file=file, width=FILE_WIDTH, color_system=None).print(report_view(report))
    return file.getvalue()


def curve_json(found: CurveInsights) -> str:
    """Returns a curve's boundaries, each ``{"lambda", "low", "high"}`` or null, its sweet spot and its slope."""
    spot, slope = found.sweet_spot, found.slope
    worth = {
        "sweet_spot": spot and {"lambda": spot.lam, "accuracy": spot.accuracy, "mean_tokens": spot.mean_tokens},
        "overthinking": slope and slope.to_dict(),
        "runaway": found.runaway and found.runaway.to_dict(),
    }
    return json.dumps(_plain_stages(found.stages) | worth, indent=2)


def _plain_report(report: Report) -> dict[str, Any]:
    return {
        "study": report.study,
        "budget": report.budget,
        "verdict": report.verdict,
        "best": _plain(report.best),
        "nearest": _plain(report.nearest),
        "likely": {"chance": report.likely.chance, **report.likely.result.to_dict()} if report.likely else None,
        "alike": [
            {
                "trial": each.result.trial,
                "accuracy_difference": each.difference.value,
                "accuracy_difference_low": each.difference.low,
                "accuracy_difference_high": each.difference.high,
            }
            for each in report.alike
        ],
        "uniform": _plain(report.uniform),
        "preferred_over": _plain(report.preferred_over),
        "beyond": report.beyond.to_dict() if report.beyond else None,
        "against_thinking": _plain_comparison(report),
        "front": [result.to_dict() for result in report.front],
        "fronts": {
            "raw": [result.to_dict() for result in report.raw_front],
            "smoothed": [result.to_dict() for result in report.smoothed_front],
            "confirmed": [result.to_dict() for result in report.confirmed_front],
        },
        "parents": {name: _plain(result) for name, result in report.parents.items()},
        "baselines": [{"method": name, **result.to_dict()} for name, result in report.baselines.items()],
        "cap": report.cap.to_dict() if report.cap else None,
        "capped_merge": report.capped_merge.to_dict() if report.capped_merge else None,
        "stop_reason": report.stop_reason,
        "stages": _plain_stages(report.stages),
        "worth": report.insights.to_dict(),
        "parents_differ": report.parents_differ.to_dict() if report.parents_differ else None,
        "tokens_generated": report.tokens_generated,
        "trials": {name: getattr(report.counts, name) for name in ("complete", "pruned", "failed")},
        **({"served": [each.to_dict() for each in report.served]} if report.served else {}),
        **({"transfers": [each.to_dict() for each in report.transfers]} if report.transfers else {}),
    }


def _plain(result: ScheduleResult | None) -> dict[str, Any] | None:
    return result.to_dict() if result else None


def _plain_comparison(report: Report) -> dict[str, float | None] | None:
    """Returns the pick compared with the Thinking model; the interval is null unless the difference is paired."""
    found = against_thinking(report, report.best) if report.best else None
    if found is None:
        return None
    interval = found.interval
    return {
        "accuracy_difference": found.accuracy,
        "accuracy_difference_low": interval.low if interval else None,
        "accuracy_difference_high": interval.high if interval else None,
        "token_share": found.token_share,
    }


def _plain_stages(stages: Stages) -> dict[str, dict[str, float] | None]:
    return {"emergence": _plain_boundary(stages.emergence), "saturation": _plain_boundary(stages.saturation)}


def _plain_boundary(boundary: Boundary | None) -> dict[str, float] | None:
    return None if boundary is None else {"lambda": boundary.lam, "low": boundary.low, "high": boundary.high}
