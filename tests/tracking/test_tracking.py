"""Trackers, each against its real library and offline: what they log, and that they never cost a study anything."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from engine import FakeEngine
from small_search import NAME, finished, small_config, storage_in, texts

from autolambda.driver.events import EvaluationEnded, Event, Opened, ignore
from autolambda.driver.search import search
from autolambda.errors import ConfigError
from autolambda.report.json_csv import report_json
from autolambda.report.report import Report
from autolambda.schedule import Schedule
from autolambda.tracking import tracking as module
from autolambda.tracking.base import Tracked, numbers_of, tracked
from autolambda.tracking.tracking import check_installed, tracking

PAGE = "<html>the report</html>"


def ended(number: int, lam: float, *, kind: str = "trial", title: str = "") -> EvaluationEnded:
    measured = finished().trials[0].measured
    return EvaluationEnded(title or f"trial {number}", kind, Schedule.uniform(lam), measured)  # type: ignore[arg-type]


EVENTS: list[Event] = [
    Opened("mine", 40.0, 18, (ended(0, 0.0),), 100),
    ended(1, 1.0),
    EvaluationEnded("trial 2", "trial", Schedule.uniform(0.9), None, "over the budget"),
    ended(0, 0.5, kind="confirm", title="confirm trial 3"),
]


def logged(name: str) -> None:
    """Tells a tracker of a small search, and its answer."""
    with tracking(small_config(search__callbacks=[name]), study="mine", on_event=noted) as on_event:
        for event in EVENTS:
            on_event(event)
        on_event.finish(finished(), lambda: PAGE)


def noted(event: Event) -> None:
    assert not texts([event]), event


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def test_mlflow_has_a_run_for_each_evaluation_and_the_answer_with_its_report(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient, set_tracking_uri

    set_tracking_uri(f"sqlite:///{here}/mlflow.db")
    logged("mlflow")
    logged("mlflow")  # a resumed search: nothing is logged twice but the answer
    client = MlflowClient()
    experiment = client.get_experiment_by_name("mine")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(run.info.run_name for run in client.search_runs([experiment.experiment_id])) == [
        "answer",
        "answer",
        "confirm trial 3",
        "trial 0",
        "trial 1",
    ]
    measured = finished().trials[0].measured
    assert runs["trial 1"].data.params == {"lambda": "1"}
    metrics = runs["trial 1"].data.metrics
    assert metrics["accuracy"] == measured.accuracy.value and metrics["mean_tokens_low"] == measured.mean_tokens.low
    assert {"think_ratio", "think_ratio_high", "num_responses"} <= metrics.keys()
    answer = runs["answer"]
    assert answer.data.params["verdict"] == "feasible" and answer.info.status == "FINISHED"
    folder = Path(client.download_artifacts(answer.info.run_id, "", dst_path=str(here)))
    assert (folder / "report.html").read_text() == PAGE
    assert json.loads((folder / "report.json").read_text())["verdict"] == "feasible"


def test_wandb_keeps_a_run_offline_that_can_be_synced(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_DIR", str(here))
    for name in ("CACHE", "CONFIG", "DATA", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(here / name.lower()))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", os.devnull)
    logged("wandb")
    wandb.teardown()  # as at the end of a process: the file is written to its end
    [file] = here.glob("wandb/offline-run-*/*.wandb")
    found = file.read_bytes()
    for word in (
        b"trial/accuracy",
        b"confirm/mean_tokens",
        b"schedule/lambda",
        b"verdict",
        b"feasible",
        b"report.html",
    ):
        assert word in found


def test_tensorboard_has_scalars_by_trial_and_the_answer_as_text(here: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged("tensorboard")
    [folder] = (here / "studies" / "mine" / "tensorboard").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    measured = finished().trials[0].measured
    accuracy = events.Scalars("trial/accuracy")
    assert [each.step for each in accuracy] == [0, 1]
    assert accuracy[0].value == pytest.approx(measured.accuracy.value)
    assert [each.value for each in events.Scalars("trial/schedule/lambda")] == [0.0, 1.0]
    assert events.Scalars("confirm/mean_tokens")
    [text] = events.Tensors("answer/text_summary")
    assert b"feasible" in text.tensor_proto.string_val[0]
    assert (folder / "report.html").read_text() == PAGE


class Broken:
    """Fails in one of its methods, as a server that is gone."""

    def __init__(self, method: str) -> None:
        self.method, self.called = method, list[str]()

    def _called(self, name: str) -> None:
        self.called.append(name)
        if name == self.method:
            raise OSError("no route to host")

    def log(self, evaluation: Tracked) -> None:
        self._called("log")

    def finish(self, report: Report, files: Mapping[str, Path]) -> None:
        self._called("finish")

    def close(self) -> None:
        self._called("close")


@pytest.mark.parametrize("method", ["open", "log", "finish", "close"])
def test_a_tracker_that_fails_costs_one_note_and_no_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    tracker, events = Broken(method), list[Event]()

    def open_(name: str, study: str) -> Broken:
        tracker._called("open")
        return tracker

    monkeypatch.setattr(module, "_open", open_)
    monkeypatch.setattr(module, "check_installed", ignore)
    config = small_config(search__callbacks=["mlflow"])
    with tracking(config, study=NAME, on_event=events.append) as on_event:
        report = search(config, name=NAME, storage=storage_in(tmp_path), on_event=on_event, engine=FakeEngine())
        on_event.finish(report, lambda: PAGE)
    assert report.is_done and tracker.called[-1] == method
    [note] = [text for text in texts(events) if "mlflow" in text]
    assert note.startswith("mlflow failed (OSError: no route to host)")


def test_trackers_change_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_open", lambda name, study: Broken("nothing"))
    reports = []
    for names in ([], ["mlflow"]):
        config = small_config(search__callbacks=names)
        storage = storage_in(tmp_path / str(len(names)))
        with tracking(config, study=NAME, on_event=ignore) as on_event:
            reports.append(search(config, name=NAME, storage=storage, on_event=on_event, engine=FakeEngine()))
    assert report_json(reports[0]) == report_json(reports[1])


def test_what_is_not_installed_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"run: pip install 'autolambda\[mlflow,wandb\]'"):
        check_installed(("mlflow", "wandb"))


@pytest.mark.parametrize(
    ("schedule", "numbers"),
    [
        (Schedule.uniform(0.25), {"lambda": 0.25}),
        (
            Schedule.from_dict({"attention": {"knots": [0.1, 0.2]}, "ffn": 0.3, "other": 0.5}),
            {"attention.0": 0.1, "attention.1": 0.2, "ffn": 0.3, "other": 0.5},
        ),
    ],
)
def test_the_lambdas_of_a_schedule_by_name(schedule: Schedule, numbers: dict[str, float]) -> None:
    assert numbers_of(schedule) == numbers


def test_numbers_of_an_evaluation() -> None:
    found = tracked(ended(7, 0.5), 99)
    assert found is not None and found.number == 7 and found.params == {"lambda": 0.5}
    other = tracked(replace(ended(7, 0.5, kind="confirm"), title="confirm trial 7"), 99)
    assert other is not None and other.number == 99
    assert tracked(replace(ended(7, 0.5), measured=None), 1) is None
