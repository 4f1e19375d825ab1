"""Studies in short: their state and last answer, without reading responses."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from small_search import NAME, copy_finished, finished, go_on, storage_in, unconfirmed

from autolambda.study.database import driver_lock
from autolambda.study.overview import overviews
from autolambda.study.store import Store


def test_a_finished_study_has_its_answer(tmp_path: Path) -> None:
    storage = copy_finished(storage_in(tmp_path))
    [found] = overviews(storage)
    best = finished().best
    assert best is not None and found.answer is not None
    assert (found.state, found.verdict, found.budget, found.num_trials, found.most_trials) == (
        "done", "feasible", 30.0, 6, 6,
    )  # fmt: skip
    assert found.models == ("instruct", "thinking") and found.tasks == ["arithmetic"]
    plain = found.to_dict()
    assert plain["best"] == {
        "trial": best.trial,
        "parent": None,
        "schedule": str(best.schedule),
        "accuracy": best.score.accuracy,
        "mean_tokens": best.score.mean_tokens,
    }
    with driver_lock(storage, NAME):
        [found] = overviews(storage)
        assert found.state == "running" and found.verdict is None and found.to_dict()["best"] is None


def test_a_study_that_goes_on_or_was_asked_for_another_budget_has_none(tmp_path: Path) -> None:
    storage = copy_finished(storage_in(tmp_path))
    go_on(storage, 9)
    [found] = overviews(storage)
    assert (found.state, found.verdict, found.num_trials, found.most_trials) == ("unfinished", None, 6, 9)
    other = unconfirmed(storage_in(tmp_path, "other"))
    with closing(Store(other)) as store:
        stored = store.study(NAME)
        assert stored is not None
        store.update_study(NAME, config={**stored.config, "budget": 12.0}, identity=stored.identity)
    [found] = overviews(other)
    assert found.budget == 12 and found.verdict is None


def test_a_study_of_an_earlier_release_keeps_no_answer(tmp_path: Path) -> None:
    storage = copy_finished(storage_in(tmp_path))
    with closing(sqlite3.connect(storage.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("DELETE FROM study_user_attributes WHERE key = 'answer'")
    [found] = overviews(storage)
    assert found.verdict is None and found.num_trials == 6


def test_a_study_before_its_first_trial(tmp_path: Path) -> None:
    storage = storage_in(tmp_path)
    with closing(Store(storage)) as store:
        store.create_study("new", config={"tasks": [{"name": "gsm8k"}]}, identity={})
    [found] = overviews(storage)
    assert (found.state, found.num_trials, found.tasks, found.most_trials) == ("unfinished", 0, ["gsm8k"], None)
