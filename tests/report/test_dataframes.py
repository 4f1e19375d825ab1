"""A study as frames: what each trial measured and cost, and all responses with the report's numbers."""

from __future__ import annotations

import json
import shutil
from contextlib import closing

import numpy as np
import pandas
import pytest
from small_search import NAME, finished, finished_storage, small_snapshot, storage_in

from autolambda.errors import StudyError
from autolambda.report.dataframes import (
    COLUMNS,
    HISTORY,
    RESULTS,
    history,
    outcomes_frame,
    responses,
    results_frame,
)
from autolambda.statistics.pareto import hypervolume
from autolambda.study.store import Store
from autolambda.study.trials import EndedTrial, Trial
from autolambda.study_view import StudyView

UNIFORM = {"split": 0.0, "tilt_0": 0.0, "tilt_1": 0.0, "tilt_2": 0.0, "twist_0": 0.0, "twist_1": 0.0, "twist_2": 0.0}


def ended(number: int, lam: float, *, failed: bool = False, stopped: str | None = None, start: int = 0, stop: int = 4):
    trial = Trial(number, UNIFORM | {"lam": lam}, start, stop)
    return EndedTrial(trial, failed, stopped, "it broke" if failed else None)


def row(trial: int, task: str, sample: str, repeat: int, grade: str, tokens: int, *, reason: str = "stop"):
    return ("trial", str(trial), task, sample, repeat, grade, grade == "correct", tokens, reason)


def known(trials: list[EndedTrial], rows: list[tuple], weights: dict[str, float]) -> pandas.DataFrame:
    return history(trials, outcomes_frame(rows), weights=weights, reference_tokens=100.0)


def test_a_mean_is_over_repeats_then_prompts_then_tasks_by_weight() -> None:
    rows = [
        row(0, "a", "1", 0, "correct", 10),
        row(0, "a", "1", 1, "wrong", 30),  # prompt 1: a half, 20 tokens
        row(0, "a", "2", 0, "correct", 40),  # task a: three quarters, 30 tokens
        row(0, "b", "1", 0, "wrong", 80),
        row(0, "guard", "1", 0, "wrong", 999),
    ]
    (found,) = known([ended(0, 0.5)], rows, {"a": 0.75, "b": 0.25, "guard": 0.0}).to_dict("records")
    assert found["accuracy"] == pytest.approx(0.75 * 0.75) and found["mean_tokens"] == pytest.approx(42.5)
    assert found["hypervolume"] == pytest.approx(0.5625 * (100 - 42.5) / 100)
    assert found["tokens"] == 1159 and found["num_responses"] == 5 and found["stage"] == 2


def test_trials_of_one_schedule_are_measured_together() -> None:
    rows = [row(0, "a", "1", 0, "correct", 10), row(1, "a", "2", 0, "wrong", 30), row(2, "a", "1", 0, "correct", 20)]
    frame = known([ended(0, 0.5), ended(1, 0.5, start=1), ended(2, 0.6)], rows, {"a": 1.0})
    assert list(frame.accuracy) == [1.0, 0.5, 1.0] and list(frame.mean_tokens) == [10, 20, 20]
    assert list(frame.tokens_so_far) == [10, 40, 60] and list(frame.num_responses) == [1, 1, 1]
    # the lucky start is taken back: only what is known now counts
    assert list(frame.hypervolume) == pytest.approx([0.9, 0.4, 0.8])


def test_what_was_stopped_says_why_and_an_aborted_trial_has_no_numbers() -> None:
    rows = [row(0, "a", "1", 0, "correct", 10), row(1, "a", "1", 0, "truncated", 500, reason="aborted")]
    trials = [ended(0, 0.2), ended(1, 0.9, stopped="over the budget"), ended(2, 0.5, failed=True)]
    frame = known(trials, rows, {"a": 1.0})
    assert list(frame.outcome) == ["complete", "pruned", "failed"]
    assert frame.reason.isna().tolist() == [True, False, False]
    assert list(frame.reason[1:]) == ["over the budget", "it broke"]
    assert frame[["accuracy", "mean_tokens", "think_ratio", "stage"]][1:].isna().all(axis=None)
    assert list(frame.tokens_so_far) == [10, 510, 510] and frame.hypervolume.nunique() == 1


def test_no_trial_and_no_response_is_an_empty_frame_with_its_columns() -> None:
    frame = known([], [], {"a": 1.0})
    assert len(frame) == 0 and list(frame.columns) == list(HISTORY)
    assert len(known([ended(0, 0.5, failed=True)], [], {"a": 1.0})) == 1


def test_a_study_ends_with_the_numbers_of_its_report() -> None:
    snapshot, report = small_snapshot(), finished()
    frame = snapshot.trials
    last = frame.drop_duplicates("schedule", keep="last").set_index("schedule")
    for result in report.trials:
        found = last.loc[json.dumps(result.schedule.to_dict())]
        assert found.accuracy == pytest.approx(result.measured.accuracy.value)
        assert found.mean_tokens == pytest.approx(result.measured.mean_tokens.value)
        assert found.think_ratio == pytest.approx(result.measured.think_ratio.value)
    reference = snapshot.reference_tokens
    whole = hypervolume([result.score for result in report.trials], reference_tokens=reference) / reference
    assert frame.hypervolume.iloc[-1] == pytest.approx(whole)
    assert np.array_equal(frame.tokens.cumsum(), frame.tokens_so_far) and finished_storage()


def test_searched_numbers_beyond_the_line_are_columns() -> None:
    trial = Trial(1, UNIFORM | {"lam": 0.5, "stretch": 0.4, "third": 0.0}, 0, 4)
    trials, outcomes = [ended(0, 0.5), EndedTrial(trial, False, None, None)], outcomes_frame([])
    more = history(trials, outcomes, weights={"a": 1.0}, reference_tokens=100.0, spaces=("uniform", "scale", "third"))
    assert list(more.columns) == [*HISTORY, "scale", "third"] and list(more["third"]) == [0.0, 0.0]
    assert list(more["scale"]) == [1.0, 1.4] and more["scale"].dtype == more["third"].dtype == "float64"


def test_the_frames_of_a_study_have_the_numbers_that_it_searched(tmp_path) -> None:
    storage = shutil.copy(finished_storage().removeprefix("sqlite:///"), tmp_path / "study.db")
    view = StudyView(NAME, f"sqlite:///{storage}", None)
    usual = [list(each.columns) for each in (view.front_frame, view.confirmed, view.trials)]
    with closing(Store(view.storage)) as store:
        stored = store.study(NAME)
        config = {**stored.config, "search": {**stored.config["search"], "spaces": ["uniform", "scale"]}}
        store.update_study(NAME, config=config, identity=stored.identity)
    view = StudyView(NAME, view.storage, None)
    frames = [view.front_frame, view.confirmed, view.trials]
    assert [list(each.columns) for each in frames] == [[*columns, "scale"] for columns in usual]
    assert all((each["scale"] == 1.0).all() for each in frames)
    assert list(results_frame([], spaces=("third",)).columns) == [*RESULTS, "third"]


@pytest.fixture(scope="module")
def frame():
    finished()
    return responses(NAME, storage=finished_storage())


def test_every_response_is_a_row_with_the_types_that_were_promised(frame):
    assert list(frame.columns) == list(COLUMNS)
    assert frame.num_tokens.sum() == finished().tokens_generated
    assert set(frame.kind) == {"trial", "confirm", "parent"}
    assert not frame.duplicated(["kind", "key", "task", "sample_id", "repeat"]).any()
    assert frame.num_tokens.dtype == "int64" and frame.thought.dtype == "bool"


def test_the_reports_numbers_come_out_of_it(frame):
    result = finished().confirmed[0]
    numbers = [set(group.key) for _, group in frame[frame.kind == "confirm"].groupby("schedule")]
    assert all(len(keys) == 1 for keys in numbers)
    confirmed = frame[(frame.kind == "confirm") & (frame.key == result.schedule.key)]
    assert (confirmed.grade == "correct").mean() == pytest.approx(result.measured.accuracy.value)
    assert confirmed.num_tokens.mean() == pytest.approx(result.measured.mean_tokens.value)


def test_what_is_missing_is_missing_and_not_a_word(frame):
    unparsed = frame[frame.grade == "unparsed"]
    assert unparsed.answer.isna().all()
    assert frame[frame["lambda"].notna()]["lambda"].between(0, 1).all()
    assert pandas.isna(frame["lambda"]).any() == any(result.schedule.lam is None for result in finished().trials)


def test_a_study_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(StudyError, match="no study database"):
        responses(NAME, storage=storage_in(tmp_path))
