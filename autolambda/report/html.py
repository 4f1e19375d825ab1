"""The report as one HTML page. It holds its figures, its script and its data, and needs no network.

Text from models and files reaches the page through an escaping template, or as JSON that the script inserts as text. A
content security policy allows only the page's two scripts, and no request.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from autolambda import __version__
from autolambda.report.answer.about import pair_name
from autolambda.report.answer.glossary import GLOSSARY
from autolambda.report.answer.phrases import NONE_FOUND, UNSURE
from autolambda.report.comparison import Comparison, legible
from autolambda.report.figures import FIGURES
from autolambda.report.figures.base import DARK
from autolambda.report.html_tables import (
    Section,
    about,
    budget_rows,
    fronts,
    numbers_of,
    points_of,
    row_of,
    slider_data,
    tiles,
)
from autolambda.report.insights import insight_sentences
from autolambda.report.report import UNFINISHED, Report
from autolambda.report.sentences import Sentence, stop_words, verdict_sentences
from autolambda.report.snapshot import StudySnapshot
from autolambda.report.terminal import in_lines
from autolambda.schedule import Schedule
from autolambda.statistics.estimates import number
from autolambda.statistics.paired import MARGINS
from autolambda.statistics.stages import sentence
from autolambda.statistics.verdict import Verdict
from autolambda.statistics.words import limit, percent, points, tokens
from autolambda.tasks.digest import prompts_in_words

CAPTIONS = {
    "front": (
        "Accuracy against tokens",
        "Every merge that was measured. Bars are 95 % intervals; hover for the merge, click a name to hide it. Grey "
        "points are as measured in the search, where the best look too good by luck. Estimates learn from all merges "
        "together. Confirmed merges were measured again on prompts that the search never saw.",
    ),
    "curve": (
        "Stages over lambda",
        "Merges with one lambda, as measured in the search. Grey bands are the 95 % intervals of the two boundaries.",
    ),
    "schedules": (
        "Schedules over the network",
        "Lambda, the share of the Thinking model, in each layer's modules. The colours span the values that occur.",
    ),
    "lengths": (
        "Lengths of responses",
        "All responses of the search, by the stage of their merge, on a logarithmic axis. Dashed lines are means; "
        "a budget limits the mean.",
    ),
    "progress": (
        "What the tokens bought",
        "The best measured accuracy within a budget, averaged over all budgets, after each trial. Luck raises it.",
    ),
    "race": (
        "How far each trial went",
        "A merge is measured on more responses only while it may still be the answer. A trial may continue the merge "
        "of an earlier one; its bar counts its own responses. An empty frame shows responses that were planned.",
    ),
}
"""The title and the caption of each figure."""


def render_page(
    snapshot: StudySnapshot,
    comparison: Comparison | None,
    *,
    sections: Sequence[Section] = (),
    storage: str | None = None,
) -> str:
    """Returns the page as text.

    Args:
        snapshot: the study.
        comparison: responses to read; ``None`` leaves their section out.
        sections: further sections, shown after the responses.
        storage: the value of ``--storage`` in the shown commands.
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
        pair=pair_name(report),
        about=list(about(snapshot)),
        glossary=GLOSSARY,
        budget_rows=list(budget_rows(report)),
        headline=_headline(report),
        percent=percent,
        points=points,
        sentences=_sentences(report, storage),
        tiles=list(tiles(report)),
        stages_said=_stages_said(report),
        fronts=fronts(report),
        stopped=_stopped(snapshot),
        policy=_policy(plotly, script),
        plotly=plotly,
        script=script,
        data=_json(_data(snapshot, comparison, sections) | {"slider": slider_data(report, storage)}),
        settings=json.dumps(report.config.model_dump(mode="json", exclude_none=True), indent=2),
        identity={
            key: legible(prompts_in_words(value) if key == "tasks" else str(value))
            for key, value in report.identity.items()
        },
        row_of=row_of,
        numbers_of=numbers_of,
        points_of=points_of,
        legible=legible,
        margins=MARGINS,
        number=number,
    )
    return page.encode("utf-8", "backslashreplace").decode("utf-8")  # a file name may hold lone surrogates


def _stopped(snapshot: StudySnapshot) -> list[dict[str, Any]]:
    """Returns the rows of the trials that were stopped or failed, with their schedules in words."""
    ended = snapshot.trials[snapshot.trials.outcome != "complete"]
    words = [in_lines(Schedule.from_dict(json.loads(key))) for key in ended.schedule]
    return [{str(key): value for key, value in row.items()} for row in ended.assign(schedule=words).to_dict("records")]


def _status(snapshot: StudySnapshot) -> str:
    report, trials = snapshot.report, len(snapshot.trials)
    if report.stop_reason == UNFINISHED:
        return f"still running, {trials} trials so far"
    after = f"after {trials} trials, because {stop_words(report.stop_reason)}"
    if not report.confirmed:
        return f"the search is over {after}; the check on new prompts is still to come"
    return f"done: the search ended {after}"


def _headline(report: Report) -> str:
    """Returns the answer in one line, without intervals."""
    best = report.best
    if report.budget is None:
        return "No budget was given: the front is the answer"
    within = f"within {limit(report.budget)}"
    if report.verdict is None:
        return f"Not confirmed yet {within}" + (f": {best.name} leads" if best else "")
    if report.verdict is Verdict.FEASIBLE and best:
        score = best.score
        what = f"the {best.parent.capitalize()} model itself" if best.parent else str(best.schedule)
        right = percent(score.accuracy).replace(" ", "\u00a0")  # no line break before the sign
        return f"Found: {what}, {right} right with {tokens(score.mean_tokens)} (budget {limit(report.budget)})"
    word = UNSURE if report.verdict is Verdict.UNCERTAIN else NONE_FOUND
    nearest = f"; the nearest is trial {report.nearest.trial}" if report.nearest else ""
    return f"{word[0]} {within}{nearest}"


def _sentences(report: Report, storage: str | None) -> list[Sentence]:
    """Returns the terminal's sentences, without the first one on a feasible pick: the headline and tiles have it."""
    said = list(verdict_sentences(report, storage=storage))
    return said[1:] if report.verdict is Verdict.FEASIBLE and report.best else said


def _stages_said(report: Report) -> list[str]:
    said = [sentence(report.stages), *insight_sentences(report.insights)] if report.has_curve else []
    return [*said, *(f"Note: {note}." for note in report.stages.notes)]


def _data(snapshot: StudySnapshot, comparison: Comparison | None, sections: Sequence[Section]) -> dict[str, Any]:
    """Returns the data of the page's script: figures, colours of the dark scheme, responses."""
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
    """Returns JSON for a script element. It can neither end the element nor open a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(*scripts: str) -> str:
    """Returns a policy that allows only these scripts by hash, inline styles and embedded images."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in scripts
    )
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'"
