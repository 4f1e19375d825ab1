"""A study opened for reading, in a notebook or a script: its report, trials and responses as frames, its figures.

    study = autolambda.open_study("bundled")
    study  # in a notebook: the answer and the front
    study.verdict, study.why, study.front_frame, study.confirmed, study.trials, study.figures["front"]

Each value is read when it is first used and then kept. To see the progress of a running study, open it again.
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas

from autolambda.ablation.figure import ablation_sections
from autolambda.ablation.results import Ablation, read_ablations
from autolambda.errors import ConfigError, StudyError
from autolambda.report.answer.notebook import as_html, as_markdown
from autolambda.report.comparison import Comparison, compare
from autolambda.report.dataframes import responses, results_frame
from autolambda.report.figures import FIGURES
from autolambda.report.figures.transfer import transfer_sections
from autolambda.report.html import render_page
from autolambda.report.prompts import load_prompts
from autolambda.report.read import positive_budget, read_report
from autolambda.report.report import Report
from autolambda.report.results import ScheduleResult
from autolambda.report.sentences import Sentence, verdict_sentences
from autolambda.report.snapshot import StudySnapshot, load_snapshot
from autolambda.statistics.verdict import Verdict
from autolambda.study.databases.connection import storage_errors
from autolambda.study.reader import open_for_reading
from autolambda.study.store import Store

if TYPE_CHECKING:
    import plotly.graph_objects as go


class StudyView:
    """A snapshot of one study for one ``budget``, in mean tokens per response; ``None`` gives no verdict."""

    def __init__(self, name: str, storage: str | None, budget: float | None) -> None:
        self.name, self.storage, self.budget = name, storage, budget

    def __repr__(self) -> str:
        within = "" if self.budget is None else f", budget={self.budget:g}"
        return f"StudyView({self.name!r}{within})"

    @cached_property
    def findings(self) -> StudySnapshot:
        """The values that the figures show. Raises ``StudyError`` before the first complete trial."""
        with open_for_reading(self.name, self.storage, with_texts=False) as reader:
            return load_snapshot(reader.store, reader.study, budget=self.budget)

    def report(self, *, budget: float | None = None) -> Report:
        """Returns the report, for another ``budget`` if one is given."""
        return self.findings.report if budget is None else read_report(self.name, self.storage, budget)

    @property
    def verdict(self) -> Verdict | None:
        """``feasible``, ``uncertain`` or ``infeasible``; ``None`` without a budget, or before the confirmation."""
        return self.findings.report.verdict

    @property
    def pick(self) -> ScheduleResult | None:
        """The answer to the budget: a merge, or a parent (its ``parent`` names it).

        ``None`` without a budget, or if nothing is shown to be within it.
        """
        return self.findings.report.best

    @property
    def why(self) -> str:
        """The answer and its reasons in plain words, one sentence a line; without a verdict, why there is none."""
        return "\n".join(map(str, self._sentences))

    @property
    def _sentences(self) -> list[Sentence]:
        return list(verdict_sentences(self.findings.report, storage=self._told_storage))

    @property
    def _told_storage(self) -> str | None:
        """The database URL that commands need; ``None`` if they find the study by its name in this folder."""
        own = Path("studies", self.name, "study.db").absolute()
        return None if self.storage == f"sqlite:///{own}" else self.storage

    def _repr_html_(self) -> str:
        """The answer and the front, for a notebook."""
        try:
            return as_html(self.findings.report, self._sentences)
        except StudyError as error:
            return f"<p>{html.escape(str(error))}</p>"

    def _repr_markdown_(self) -> str:
        try:
            return as_markdown(self.findings.report, self._sentences)
        except StudyError as error:
            return f"{error}"

    @property
    def front(self) -> tuple[ScheduleResult, ...]:
        """The Pareto front, fewest tokens first: the confirmed one, or the smoothed one before a confirmation."""
        return self.findings.report.front

    @property
    def front_frame(self) -> pandas.DataFrame:
        """``front`` as a frame, one row per result, with the columns of ``report.dataframes.results_frame``."""
        return self._frame(self.front)

    @property
    def confirmed(self) -> pandas.DataFrame:
        """All confirmed merges and parents, whatever the budget, with the columns of ``front_frame``."""
        report = self.findings.report
        return self._frame([*report.confirmed, *(each for each in report.parents.values() if each and each.confirmed)])

    def _frame(self, results: Sequence[ScheduleResult]) -> pandas.DataFrame:
        return results_frame(results, spaces=self.findings.report.config.search.spaces)

    @property
    def trials(self) -> pandas.DataFrame:
        """One row per finished trial, with the columns of ``report.dataframes.history``."""
        return self.findings.trials

    @cached_property
    def responses(self) -> pandas.DataFrame:
        """One row per response, with its text and the columns of ``report.dataframes.COLUMNS``."""
        return responses(self.name, storage=self.storage)

    @property
    def figures(self) -> Mapping[str, go.Figure]:
        """The figures of the report by name. Each is drawn when it is looked up."""
        return _Figures(self.findings)

    @cached_property
    def comparison(self) -> Comparison | None:
        """The answers of pick, neighbours and parents to the same prompts; ``None`` before the first front."""
        report = self.findings.report
        with open_for_reading(self.name, self.storage) as reader:
            return compare(self.findings, reader.store, load_prompts(report.config, report.identity))

    @cached_property
    def ablations(self) -> tuple[Ablation, ...]:
        """The rows of ``autolambda ablate`` that are measured so far."""
        with open_for_reading(self.name, self.storage, with_texts=False) as reader:
            return read_ablations(reader)

    @property
    def page(self) -> str:
        """The report as one HTML page without external files."""
        sections = (*transfer_sections(self.findings.report), *ablation_sections(self.ablations))
        return render_page(self.findings, self.comparison, sections=sections, storage=self.storage)

    def save(self, path: str | Path) -> None:
        """Writes ``page`` to a file in UTF-8."""
        Path(path).write_text(self.page, encoding="utf-8")


class FigureError(StudyError, KeyError):
    """An unknown figure was asked for."""

    def __str__(self) -> str:
        return str(self.args[0])


class _Figures(Mapping[str, "go.Figure"]):
    def __init__(self, findings: StudySnapshot) -> None:
        self._findings = findings

    def __getitem__(self, name: str) -> go.Figure:
        if name not in FIGURES:
            raise FigureError(f"no figure {name!r}: there are {', '.join(FIGURES)}")
        return FIGURES[name](self._findings)

    def __iter__(self) -> Iterator[str]:
        return iter(FIGURES)

    def __len__(self) -> int:
        return len(FIGURES)


def only_study(url: str) -> str:
    """Returns the name of the only study in a database. Raises ``StudyError`` if it holds none or several."""
    with storage_errors(), closing(Store(url, must_exist=True)) as store:
        names = store.names()
    if len(names) != 1:
        raise StudyError(f"this database holds {', '.join(names) or 'no study'}; open one by name, with storage=URL")
    return names[0]


def url_of(study: str | os.PathLike[str]) -> str | None:
    """Returns the database URL of a study given by path or URL, or ``None`` for a name. Raises ``StudyError``."""
    text = os.fspath(study)
    if "://" in text:
        return text
    path = Path(text).expanduser()
    is_path = isinstance(study, os.PathLike) or path.name != text or path.suffix == ".db"
    if not is_path:
        return None
    file = path / "study.db" if path.is_dir() else path
    if not file.is_file():
        raise StudyError(f"no study at '{text}': give a study's name, its folder, its study.db, or a database URL")
    return f"sqlite:///{file.absolute()}"


def checked_budget(budget: float | None) -> float | None:
    """Returns the budget unchanged. Raises ``ConfigError`` unless it is ``None`` or a positive number."""
    if isinstance(budget, bool) or not isinstance(budget, int | float | None):
        raise ConfigError(f"budget: a number of tokens such as 4000, seen {budget!r}")
    return None if budget is None else positive_budget(budget)
