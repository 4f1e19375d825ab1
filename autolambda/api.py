"""A study opened for reading, in a notebook or a script: its report, trials and responses as frames, its figures.

    from autolambda.api import open_study
    study = open_study("bundled")
    study.verdict, study.front, study.trials, study.figures["front"]

Everything is as it was when it was first asked for; a running study is opened again to see more of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas

from autolambda.ablation.figure import ablation_sections
from autolambda.ablation.results import Ablation, read_ablations
from autolambda.errors import StudyError
from autolambda.report.comparison import Comparison, compare
from autolambda.report.dataframes import responses
from autolambda.report.figures import FIGURES
from autolambda.report.html import render_page
from autolambda.report.prompts import load_prompts
from autolambda.report.read import positive_budget, read_report
from autolambda.report.report import Report
from autolambda.report.results import ScheduleResult
from autolambda.report.snapshot import StudySnapshot, load_snapshot
from autolambda.statistics.verdict import Verdict
from autolambda.study.connection import storage_errors
from autolambda.study.reader import open_for_reading, stored_config
from autolambda.study.store import Store

if TYPE_CHECKING:
    import plotly.graph_objects as go


def open_study(study: str, *, storage: str | None = None, budget: float | None = None) -> StudyView:
    """Opens a study by its name, or by the URL of a database that holds just one.

    ``storage`` is a database URL, by default the study's own under ``studies/``; ``budget`` the mean tokens that the
    verdict is for, by default the study's own. Raises ``StudyError`` where there is no such study.
    """
    if "://" in study:
        if storage is not None:
            raise StudyError("give a study's name with storage, or a database URL alone")
        study, storage = _only_one(study), study
    config = stored_config(study, storage)
    return StudyView(study, storage, config.budget if budget is None else positive_budget(budget))


class StudyView:
    """One study at one moment, for one budget (mean tokens a response; ``None`` where there is none)."""

    def __init__(self, name: str, storage: str | None, budget: float | None) -> None:
        self.name, self.storage, self.budget = name, storage, budget

    def __repr__(self) -> str:
        within = "" if self.budget is None else f", budget={self.budget:g}"
        return f"OpenedStudy({self.name!r}{within})"

    @cached_property
    def findings(self) -> StudySnapshot:
        """What figures are drawn from. Raises ``StudyError`` before the first trial is done."""
        with open_for_reading(self.name, self.storage, with_texts=False) as reader:
            return load_snapshot(reader.store, reader.study, budget=self.budget)

    def report(self, *, budget: float | None = None) -> Report:
        """The report, for another ``budget`` where one is given."""
        return self.findings.report if budget is None else read_report(self.name, self.storage, budget)

    @property
    def verdict(self) -> Verdict | None:
        """``feasible``, ``uncertain`` or ``infeasible``; ``None`` without a budget, or before it is confirmed."""
        return self.findings.report.verdict

    @property
    def pick(self) -> ScheduleResult | None:
        """The schedule that answers the budget."""
        return self.findings.report.best

    @property
    def front(self) -> tuple[ScheduleResult, ...]:
        """The front as far as it is confirmed, else the smoothed one; fewest tokens first."""
        return self.findings.report.front

    @property
    def trials(self) -> pandas.DataFrame:
        """A row a trial that has ended; the columns are those of ``history.HISTORY``."""
        return self.findings.trials

    @cached_property
    def responses(self) -> pandas.DataFrame:
        """A row a response, with its text; the columns are those of ``frames.COLUMNS``."""
        return responses(self.name, storage=self.storage)

    @property
    def figures(self) -> Mapping[str, go.Figure]:
        """The figures of the report by name, each drawn when it is asked for."""
        return _Figures(self.findings)

    @cached_property
    def comparison(self) -> Comparison | None:
        """The same prompts answered by the pick, its neighbours and the parents; ``None`` before there is a front."""
        report = self.findings.report
        with open_for_reading(self.name, self.storage) as reader:
            return compare(self.findings, reader.store, load_prompts(report.config, report.identity))

    @cached_property
    def ablations(self) -> tuple[Ablation, ...]:
        """The paper's studies on this pair, as far as they are measured."""
        with open_for_reading(self.name, self.storage, with_texts=False) as reader:
            return read_ablations(reader)

    @property
    def page(self) -> str:
        """The report as one HTML page that needs nothing else."""
        sections = ablation_sections(self.ablations)
        return render_page(self.findings, self.comparison, sections=sections, storage=self.storage)

    def save(self, path: str | Path) -> None:
        """Writes the page to a file."""
        Path(path).write_text(self.page, encoding="utf-8")


class _Figures(Mapping[str, "go.Figure"]):
    def __init__(self, findings: StudySnapshot) -> None:
        self._findings = findings

    def __getitem__(self, name: str) -> go.Figure:
        return FIGURES[name](self._findings)

    def __iter__(self) -> Iterator[str]:
        return iter(FIGURES)

    def __len__(self) -> int:
        return len(FIGURES)


def _only_one(url: str) -> str:
    with storage_errors(), closing(Store(url, must_exist=True)) as store:
        names = store.names()
    if len(names) != 1:
        raise StudyError(f"this database holds {', '.join(names) or 'no study'}; open one by name, with storage=URL")
    return names[0]
