"""The Python interface: its functions, a study's frames, figures, front and verdict, and the example notebook."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT
from small_search import (
    BUDGET,
    NAME,
    SETTINGS,
    copy_finished,
    finished,
    finished_storage,
    small_config,
    storage_in,
    unconfirmed,
)

import autolambda
from autolambda import StudyView, api, open_study
from autolambda.bundled import FOLDER
from autolambda.cli.arguments import config_of
from autolambda.driver.job import open_job
from autolambda.driver.search import enter
from autolambda.errors import ConfigError, InputError, StudyError
from autolambda.report.dataframes import COLUMNS, HISTORY
from autolambda.report.figures import FIGURES
from autolambda.report.json_csv import report_json
from autolambda.schedule import Schedule
from autolambda.statistics.verdict import Verdict
from autolambda.study.store import Store
from autolambda.study.trials import Study

NOTEBOOK = ROOT / "studies" / "notebook" / "explore.ipynb"


PAIR = str(FOLDER / "instruct"), str(FOLDER / "thinking")
HALF = Schedule.uniform(0.5)


def test_the_public_names_are_listed_and_no_others() -> None:
    names = {"StudyView", "__version__", "evaluate", "merge", "open_study", "search"}
    assert set(autolambda.__all__) == names and names <= set(dir(autolambda))
    with pytest.raises(AttributeError, match="has no attribute 'serach'"):
        _ = autolambda.serach  # type: ignore[attr-defined]
    assert (Path(str(autolambda.__file__)).parent / "py.typed").exists()


def test_each_function_runs_twice_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A submodule with the name of a function would replace it when it is first imported."""
    monkeypatch.chdir(tmp_path)
    events: list[object] = []
    first = autolambda.search(budget=BUDGET, settings=SETTINGS, on_event=events.append)
    assert events and first.name == "bundled" and first.budget == BUDGET
    assert Path("studies/bundled/study.db").is_file()
    expected = json.loads(report_json(finished())) | {"study": "bundled"}
    assert json.loads(report_json(first.report())) == expected
    again = autolambda.search(budget=BUDGET, settings=SETTINGS)  # it is done: nothing is generated
    assert again.report() == first.report()
    for _ in range(2):
        assert autolambda.open_study("bundled").verdict is Verdict.FEASIBLE
    measured = [
        autolambda.evaluate(lam=0.5, settings=SETTINGS),
        autolambda.evaluate(*PAIR, schedule=HALF, config=small_config()),
    ]
    assert measured[0] == measured[1] and measured[0].num_responses == 16
    for out, takes in (("a", {"lam": 0.5}), ("b", {"schedule": {"lambda": 0.5}})):
        assert autolambda.merge(*PAIR, out, **takes) == Path(out)  # type: ignore[arg-type]
    assert (Path("a") / "model.safetensors").read_bytes() == (Path("b") / "model.safetensors").read_bytes()


def test_merge_takes_the_base_and_the_third_parent_that_a_schedule_reads(tmp_path: Path) -> None:
    scaled, base = {"lambda": 0.5, "scale": 1.2, "third": 0.2}, FOLDER / "base"
    out = autolambda.merge(*PAIR, tmp_path / "out", schedule=scaled, base=base, third=base)
    assert Schedule.from_dict(scaled).to_dict() == json.loads((out / "autolambda.json").read_text())["schedule"]
    with pytest.raises(ConfigError, match="reads a third model; give it with --third MODEL"):
        autolambda.merge(*PAIR, tmp_path / "other", schedule=scaled, base=base)


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({}, {}),
        ({"budget": 40.0, "settings": ["search.trials=7"]}, {"budget": 40, "settings": {"search.trials": 7}}),
        ({"trials": 7, "seed": 3}, {"settings": {"search.trials": 7, "search.seed": 3}}),
        ({"tasks": ["gsm8k", "my.jsonl"]}, {"task": ["gsm8k", Path("my.jsonl")]}),
        ({"tasks": ["arithmetic"]}, {"task": "arithmetic"}),
        ({"instruct": "a", "thinking": "b", "tasks": ["x/y"]}, {"instruct": "a", "thinking": Path("b"), "task": "x/y"}),
        ({"config": Path("c.yaml")}, {"config": "c.yaml"}),
        ({"config": Path("c.yaml")}, {"config": {"budget": 20.0, "search": {"trials": 5}}}),
        (
            {"config": Path("c.yaml"), "settings": ["search.trials=7"]},
            {"config": {"budget": 20}, "settings": {"search.trials": 7}},
        ),
    ],
)
def test_arguments_mean_what_the_options_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], arguments: dict[str, object]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("budget: 20\nsearch: {trials: 5}\n")
    plain = {"budget": None, **options}
    expected = config_of(plain, budget=plain.pop("budget"), checks=False)
    found = api._config(**{"instruct": None, "thinking": None, **arguments})
    assert found == expected  # type: ignore[arg-type]
    assert api._config(None, None, config=expected) == expected


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: autolambda.search(budget=-1), "budget: input should be greater than 0, seen -1"),
        (lambda: autolambda.search(PAIR[0]), "give both models.instruct and models.thinking"),
        (lambda: autolambda.search(*PAIR), "no task: give a benchmark's name"),
        (lambda: autolambda.search(task="gsm9k"), "tasks.0.name: unknown task 'gsm9k'"),
        (lambda: autolambda.search(study="a/b"), "study name 'a/b'"),
        (lambda: autolambda.search(storage="x"), "storage: not a database URL"),
        (lambda: autolambda.search(config="no.yaml"), "config file 'no.yaml' cannot be read"),
        (lambda: autolambda.search(settings={"search.trails": 5}), "unknown key 'search.trails'"),
        (lambda: autolambda.evaluate(), "lam, schedule: give one of the two, seen neither"),
        (lambda: autolambda.evaluate(lam=0.5, schedule="s.yaml"), "lam, schedule: give one of the two, seen both"),
        (
            lambda: autolambda.evaluate(lam=2.5),
            "lambda must lie between -1 and 2 (0 is Instruct, 1 is Thinking)",
        ),
        (lambda: autolambda.evaluate(schedule="s.yaml"), "schedule file 's.yaml' cannot be read"),
        (lambda: autolambda.evaluate(schedule={"lam": 1}), "a schedule has the keys 'lambda'"),
        (lambda: autolambda.merge(*PAIR, "out"), "lam, schedule: give one of the two, seen neither"),
        (lambda: autolambda.merge(*PAIR, "out", method="ties"), "base: ties needs a base model, seen None"),
        (lambda: autolambda.merge(*PAIR, "out", method="ties", base="b", lam=0.5), "schedule: ties takes no lambda"),
        (lambda: autolambda.merge(*PAIR, "out", method="dare", lam=0.5), "method: one of linear, "),  # type: ignore[arg-type]
        (lambda: autolambda.merge(*PAIR, "out", lam=0.5, max_shard_size="big"), "a size is a number"),
    ],
)
def test_a_bad_argument_is_told_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[], object], part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as raised:
        call()
    assert part in str(raised.value) and "--" not in str(raised.value) and not list(tmp_path.iterdir())


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
    with pytest.raises(KeyError) as caught:
        study.figures["nothing"]
    assert isinstance(caught.value, StudyError) and str(caught.value).startswith(
        "no figure 'nothing': there are front,"
    )
    assert "nothing" not in study.figures


def test_a_notebook_shows_the_answer_and_the_front(study: StudyView) -> None:
    report = finished()
    assert report.best is not None
    page, text = study._repr_html_(), study._repr_markdown_()
    for shown in (page, text):
        assert f"Found: {report.best.schedule} answers " in shown and "autolambda export small OUT --budget 30" in shown
        assert all(f"{100 * each.score.accuracy:.1f} %" in shown for each in report.front)
        assert shown.count("→") == 1
    assert "&lt;/think&gt;" in page and "</think>" not in page and "\\</think\\>" in text
    assert study.why.startswith("Found: ")


def test_a_study_without_a_trial_or_a_verdict_says_why(tmp_path: Path) -> None:
    url = unconfirmed(storage_in(tmp_path))
    study = open_study(NAME, storage=url)
    assert study.verdict is None and study.why.startswith("Not confirmed yet.") and "autolambda confirm" in study.why
    assert study.confirmed.empty and not study.front_frame.empty
    empty = f"sqlite:///{tmp_path}/empty/study.db"
    with closing(Store(empty)) as store:
        Study(store, name="empty").close()
        enter(store, open_job(small_config()), name="empty")
    view = open_study("empty", storage=empty)
    assert "no complete trial yet" in view._repr_html_() and "no complete trial yet" in view._repr_markdown_()


def test_the_fronts_are_frames(study: StudyView) -> None:
    report = finished()
    frame = study.front_frame
    assert list(frame.trial) == [each.trial for each in report.front] and frame.confirmed.all()
    assert list(frame.schedule) == [str(each.schedule) for each in report.front]
    parents = [each for each in report.parents.values() if each]
    assert len(study.confirmed) == len(report.confirmed) + 2 and set(study.confirmed.parent.dropna()) >= {"thinking"}
    assert study.confirmed.mean_tokens.max() >= max(each.score.mean_tokens for each in parents)


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
    with pytest.raises(StudyError, match="or its path or database URL alone"):
        open_study(url, storage=url)


def test_a_study_is_opened_by_its_folder_and_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_finished(storage_in(tmp_path))
    folder = tmp_path / "studies" / NAME
    monkeypatch.chdir(tmp_path)
    for place in (folder, str(folder), f"studies/{NAME}", f"studies/{NAME}/", f"studies/{NAME}/study.db"):
        assert open_study(place).name == NAME and open_study(place, budget=4).budget == 4
    assert "--storage" not in open_study(folder).why  # its commands work here without
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_study(f"~/studies/{NAME}").verdict is Verdict.FEASIBLE
    for missing in ("studies/other", tmp_path / "other", "other.db"):
        with pytest.raises(StudyError, match=r"no study at '.*': give a study's name, its folder"):
            open_study(missing)
    with pytest.raises(StudyError, match="or its path or database URL alone"):
        open_study(folder, storage=storage_in(tmp_path))


def test_a_study_by_its_name_is_looked_for_where_searches_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_finished(storage_in(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert open_study(NAME).verdict is Verdict.FEASIBLE
    with pytest.raises(StudyError, match=r"no study 'other' in .*; it has: small"):
        open_study("other")


@pytest.mark.parametrize("budget", ["forty", True, [40]])
def test_a_budget_that_is_no_number_is_refused(budget: Any) -> None:
    with pytest.raises(ConfigError, match="budget: a number of tokens such as 4000, seen"):
        open_study(NAME, storage=finished_storage(), budget=budget)


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
