"""A study in Python: opened by name or URL, its frames, figures, front and verdict; and the example notebook."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from paths import ROOT
from small_search import BUDGET, NAME, copy_finished, finished, finished_storage, small_config, storage_in

from autolambda import StudyView, open_study
from autolambda.driver.job import open_job
from autolambda.driver.search import enter
from autolambda.errors import ConfigError, StudyError
from autolambda.report.dataframes import COLUMNS, HISTORY
from autolambda.report.figures import FIGURES
from autolambda.statistics.verdict import Verdict
from autolambda.study.store import Store

NOTEBOOK = ROOT / "studies" / "notebook" / "explore.ipynb"


@pytest.fixture(scope="module")
def study() -> StudyView:
    finished()
    return open_study(NAME, storage=finished_storage())


def test_the_answer_is_there_as_values(study: StudyView) -> None:
    report = finished()
    assert study.report() == report and study.verdict is Verdict.FEASIBLE and study.budget == BUDGET
    assert study.pick == report.best and study.front == report.front
    assert repr(study) == "StudyView('small', budget=30)"


def test_trials_and_responses_are_frames(study: StudyView) -> None:
    assert list(study.trials.columns) == list(HISTORY) and len(study.trials) == 6
    assert list(study.responses.columns) == list(COLUMNS)
    assert study.responses.num_tokens.sum() == finished().tokens_generated
    searched = study.responses[study.responses.kind == "trial"]
    assert searched.groupby("key").num_tokens.sum().to_dict() == {
        str(row.trial): row.tokens for row in study.trials.itertuples()
    }


def test_each_figure_is_an_object_by_its_name(study: StudyView) -> None:
    assert list(study.figures) == list(FIGURES) and len(study.figures) == 6
    assert study.figures["front"].data
    with pytest.raises(KeyError):
        study.figures["nothing"]


def test_another_budget_has_its_own_answer(study: StudyView) -> None:
    other = open_study(NAME, storage=finished_storage(), budget=4)
    assert other.budget == 4 and other.report().budget == 4 and other.verdict is not Verdict.FEASIBLE
    assert study.report(budget=4) == other.report()


def test_a_database_with_one_study_is_opened_by_its_url(tmp_path: Path) -> None:
    url = copy_finished(storage_in(tmp_path))
    assert open_study(url).name == NAME and open_study(url).verdict is Verdict.FEASIBLE
    with closing(Store(url)) as store:
        enter(store, open_job(small_config()), name="second")
    with pytest.raises(StudyError, match="this database holds small, second; open one by name"):
        open_study(url)
    with pytest.raises(StudyError, match="or a database URL alone"):
        open_study(url, storage=url)


def test_a_study_by_its_name_is_looked_for_where_searches_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_finished(storage_in(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert open_study(NAME).verdict is Verdict.FEASIBLE
    with pytest.raises(StudyError, match="no study database"):
        open_study("other")


@pytest.mark.parametrize("budget", [0, -1, float("nan"), float("inf")])
def test_a_bad_budget_is_refused(budget: float) -> None:
    finished()
    with pytest.raises(ConfigError, match="a positive number"):
        open_study(NAME, storage=finished_storage(), budget=budget)


def test_the_example_notebook_runs(tmp_path: Path) -> None:
    """In its own process: a kernel warns of what is not ours."""
    pytest.importorskip("nbclient", reason="nbclient is not installed: pip install 'autolambda[dev]'")
    copy_finished(storage_in(tmp_path, "bundled"))
    shutil.copy(NOTEBOOK, tmp_path)
    code = (
        "import nbformat, nbclient; n = nbformat.read('explore.ipynb', 4); "
        "cell = next(c for c in n.cells if 'parameters' in c.metadata.get('tags', [])); "
        'cell.source = \'STUDY, STORAGE = "small", "sqlite:///studies/bundled/study.db"\'; '
        "nbclient.NotebookClient(n, timeout=300).execute(); nbformat.write(n, 'done.ipynb')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    text = (tmp_path / "done.ipynb").read_text(encoding="utf-8")
    assert "application/vnd.plotly" in text and "feasible" in text and (tmp_path / "report.html").is_file()
