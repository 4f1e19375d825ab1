"""The report as one HTML page: it holds its figures, its script and its data, and asks the network for nothing.

What models and files said reaches it in two ways only: through a template that escapes, or as JSON that the script puts
in as text. Beyond that the page's own policy lets no script run but its two, and no request leave.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs
from rich.text import Text

from autolambda import __version__
from autolambda.report.comparison import Comparison, legible
from autolambda.report.figures import FIGURES
from autolambda.report.figures.base import DARK
from autolambda.report.insights import insight_sentences
from autolambda.report.report import UNFINISHED, Report
from autolambda.report.results import ScheduleResult, stage
from autolambda.report.snapshot import StudySnapshot
from autolambda.report.terminal import beside_thinking, in_lines, verdict_lines
from autolambda.statistics.estimates import Difference, number
from autolambda.statistics.metrics import Measured
from autolambda.statistics.stages import sentence
from autolambda.statistics.verdict import Verdict

CAPTIONS = {
    "front": (
        "Accuracy against tokens",
        "Every measured schedule. Bars are 95 % intervals; hover for the schedule, click a name to hide it. The raw "
        "front is of the measured means and overstates itself, because the lucky win; the smoothed one is the "
        "surrogate's; the confirmed one was measured on prompts that the search never saw.",
    ),
    "curve": (
        "Stages over lambda",
        "Uniform lambdas, measured in the search. Grey bands are the 95 % intervals of the two boundaries.",
    ),
    "schedules": ("Schedules over the network", "How much of the Thinking model each layer's modules get."),
    "lengths": (
        "Lengths of responses",
        "All responses of the search, by the stage of their schedule, on a logarithmic axis. Dashed lines are means: "
        "the budget is about them.",
    ),
    "progress": (
        "What the tokens bought",
        "The best accuracy within a budget, averaged over all budgets, after each trial (the hypervolume of the raw "
        "front, which the lucky push up).",
    ),
    "race": (
        "How far each trial went",
        "A schedule is measured further only while it may be the answer. The frame is what was planned.",
    ),
}


@dataclass(frozen=True)
class SectionRow:
    """A row of a section's table. ``change`` is its difference in accuracy from what it is compared with, if any."""

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
    """A further section of the page, such as the ablations; ``name`` is its anchor, ``link`` its word in the menu."""

    name: str
    link: str
    title: str
    caption: str
    parts: Sequence[SectionPart]


def render_page(
    snapshot: StudySnapshot,
    comparison: Comparison | None,
    *,
    sections: Sequence[Section] = (),
    storage: str | None = None,
) -> str:
    """Returns the page as text.

    ``sections`` follow the responses. ``storage`` is the value of ``--storage`` for the commands that the page shows.
    """
    environment = Environment(
        loader=PackageLoader("autolambda.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plotly, script = get_plotlyjs(), environment.loader.get_source(environment, "report.js")[0]  # type: ignore[union-attr]
    report = snapshot.report
    page = environment.get_template("report.html").render(
        report=report,
        snapshot=snapshot,
        comparison=comparison,
        sections=sections,
        captions=CAPTIONS,
        version=__version__,
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        status=_status(snapshot),
        headline=_headline(report),
        sentences=[*_sentences(report, storage)],
        tiles=[*_tiles(report)],
        stages_said=_stages_said(report),
        fronts=_fronts(report),
        stopped=[row for row in snapshot.trials.to_dict("records") if row["outcome"] != "complete"],
        policy=_policy(plotly, script),
        plotly=plotly,
        script=script,
        data=_json(_data(snapshot, comparison, sections)),
        settings=json.dumps(report.config.model_dump(mode="json", exclude_none=True), indent=2),
        identity={key: legible(str(value)) for key, value in report.identity.items()},
        row_of=_row_of,
        numbers_of=_numbers_of,
        points_of=_points_of,
        legible=legible,
        number=number,
    )
    return page.encode("utf-8", "backslashreplace").decode("utf-8")  # a file's name may hold what no file can


def _status(snapshot: StudySnapshot) -> str:
    report, trials = snapshot.report, len(snapshot.trials)
    if report.stop_reason == UNFINISHED:
        return f"still running, {trials} trials so far"
    if not report.confirmed:
        return f"the search is over ({report.stop_reason}), the confirmation still to come"
    return f"done after {trials} trials ({report.stop_reason})"


def _headline(report: Report) -> str:
    """The answer in one line."""
    budget = "" if report.budget is None else f" within {number(report.budget).removesuffix('.0')} tokens"
    if report.budget is None:
        return "No budget was given: the front is the answer"
    if report.verdict is None:
        return f"Not confirmed yet{budget}" + (f": trial {report.best.trial} leads" if report.best else "")
    if report.verdict is Verdict.FEASIBLE and report.best:
        return f"Feasible{budget}: trial {report.best.trial}"
    nearest = f"; the nearest is trial {report.nearest.trial}" if report.nearest else ""
    return f"{report.verdict.capitalize()}{budget}{nearest}"


def _sentences(report: Report, storage: str | None) -> Iterator[tuple[str, str]]:
    """The terminal's own sentences, without what headline and tiles say; each with its command, if any."""
    lines = list(verdict_lines(report, storage=storage))
    for line in lines[1:] if report.verdict is Verdict.FEASIBLE and report.best else lines:
        plain = Text.from_markup(line).plain
        said, command, rest = plain.partition(": autolambda ")
        yield (f"{said}:", f"autolambda {rest}") if command else (plain, "")


def _tiles(report: Report) -> Iterator[dict[str, Any]]:
    """The pick's numbers, the first thing to see."""
    result = report.best or report.nearest
    if result is None:
        return
    accuracy, tokens, think = result.measured.accuracy, result.measured.mean_tokens, result.measured.think_ratio
    yield {
        "name": "accuracy",
        "value": f"{100 * accuracy.value:.1f} %",
        "note": f"95 % interval {100 * accuracy.low:.1f} to {100 * accuracy.high:.1f}",
    }
    share = None if report.budget is None else tokens.value / report.budget
    yield {
        "name": "tokens a response",
        "value": number(tokens.value),
        "note": f"95 % interval {number(tokens.low)} to {number(tokens.high)}",
        "share": share,
    }
    yield {
        "name": "Think ratio",
        "value": f"{100 * think.value:.0f} %",
        "note": f"stage {stage(result.measured)}",
    }
    if beside := beside_thinking(report, result):
        points, _, interval = beside[0].partition(" (")
        of_them = f"95 % interval {interval.removesuffix(')')}; " if interval else ""
        yield {
            "name": "beside Thinking as is",
            "value": points.replace("-", "−"),
            "note": f"{of_them}{100 * beside[1]:.0f} % of its tokens".replace("-", "−"),
        }


def _stages_said(report: Report) -> list[str]:
    said = [sentence(report.stages), *insight_sentences(report.insights)] if report.has_curve else []
    return [*said, *(f"{note}." for note in report.stages.notes)]


def _fronts(report: Report) -> list[tuple[str, Sequence[ScheduleResult], bool]]:
    """Title, results and whether it is shown at once."""
    confirmed, smoothed = report.confirmed_front, report.smoothed_front
    found: list[tuple[str, Sequence[ScheduleResult], bool]] = []
    if confirmed:
        found.append(("Confirmed front, on prompts that the search never saw", confirmed, True))
    found.append(("Smoothed front, over all trials, unconfirmed", smoothed, not confirmed))
    found.append(("Raw front, as measured in the search", report.raw_front, False))
    return found


def _row_of(result: ScheduleResult, report: Report, *, name: str = "") -> dict[str, Any]:
    """A result as the cells of a table."""
    return {
        "name": legible(name) or str(result.trial),
        "schedule": "" if name else in_lines(result.schedule),
        "picked": report.best is not None and not name and result.schedule == report.best.schedule,
        **_numbers_of(result.measured),
    }


def _numbers_of(measured: Measured) -> dict[str, Any]:
    """What was measured, as the cells of a table."""
    accuracy, tokens, think = measured.accuracy, measured.mean_tokens, measured.think_ratio
    return {
        "accuracy": (f"{100 * accuracy.value:.1f}", f"{100 * accuracy.low:.1f}–{100 * accuracy.high:.1f}"),
        "tokens": (number(tokens.value), f"{number(tokens.low)}–{number(tokens.high)}"),
        "think": f"{100 * think.value:.0f}",
        "cut": f"{100 * measured.truncated_ratio.value:.0f}",
        "stage": stage(measured),
        "num_responses": f"{measured.num_responses:,}",
        "tasks": [
            (legible(task), f"{100 * each.accuracy.value:.1f}", number(each.mean_tokens.value))
            for task, each in measured.tasks.items()
        ],
    }


def _points_of(change: Difference) -> tuple[str, str]:
    """A difference in points of accuracy, and its interval."""
    return f"{100 * change.value:+.1f}", f"{100 * change.low:+.1f} to {100 * change.high:+.1f}"


def _data(snapshot: StudySnapshot, comparison: Comparison | None, sections: Sequence[Section]) -> dict[str, Any]:
    """What the script works on."""
    drawn = {name: draw(snapshot) for name, draw in FIGURES.items()}
    drawn |= {part.name: part.figure for section in sections for part in section.parts}
    figures = {name: json.loads(figure.to_json()) for name, figure in drawn.items()}
    if comparison is None:
        return {"figures": figures, "dark": DARK, "comparison": None}
    columns = [
        {"title": column.title, "role": column.role, "tokens": column.result.score.mean_tokens}
        for column in comparison.columns
    ]
    rows = [asdict(row) for row in comparison.rows]
    return {
        "figures": figures,
        "dark": DARK,
        "comparison": {"columns": columns, "pick": comparison.pick, "rows": rows},
    }


def _json(value: Mapping[str, Any]) -> str:
    """JSON for a script element: nothing in it can end the element or open a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(*scripts: str) -> str:
    """A content security policy: these scripts by their hashes, styles and images of the page itself, nothing else."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in scripts
    )
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'"
