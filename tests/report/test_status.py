"""Status from the database alone: a running study, a finished one, and the end of watching."""

from __future__ import annotations

import io
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from engine import FakeEngine
from rich.console import Console
from small_search import NAME, copy_finished, finished, finished_storage, go_on, small_config, storage_in

from autolambda.driver.job import open_job
from autolambda.driver.search import enter, search
from autolambda.errors import StudyError
from autolambda.optimizer.observations import Proposal
from autolambda.optimizer.space import ranges, uniform_params
from autolambda.report import status
from autolambda.report.read import build_report
from autolambda.report.status import show_status, status_json
from autolambda.responses import Graded
from autolambda.study.database import driver_lock
from autolambda.study.store import Kind, Store
from autolambda.study.trials import Study


def shown(name: str, storage: str, *, watch: bool = False, budget: float | None = None) -> str:
    file = io.StringIO()
    show_status(name, storage, console=Console(file=file, width=200), watch=watch, budget=budget)
    return file.getvalue()


def test_a_finished_study_shows_its_verdict() -> None:
    report = finished()
    text = shown(NAME, finished_storage())
    assert text.startswith(
        "small: 6 of at most 6 trials are done, the search is over: search.trials allows no more; "
        f"{report.tokens_generated:,} tokens generated\n"
    )
    assert "Found: lambda" in text
    assert f"autolambda export small OUT --budget 30 --storage {finished_storage()}" in text


def test_a_study_that_goes_on_shows_the_best_so_far_without_a_verdict(tmp_path: Path) -> None:
    storage = copy_finished(storage_in(tmp_path))
    go_on(storage, 9)
    text = shown(NAME, storage)
    assert text.startswith("small: 6 of at most 9 trials are done; ") and "Feasible" not in text
    assert "Best so far within 30 tokens, not confirmed: " in text and "Front of small" not in text
    assert text.endswith(f"Continue with: autolambda resume small --storage {storage}\n")


def test_a_study_before_its_first_trial(tmp_path: Path) -> None:
    storage = storage_in(tmp_path)
    with closing(Store(storage)) as store:
        Study(store, name=NAME).close()
        enter(store, open_job(small_config()), name=NAME)
    assert shown(NAME, storage) == (
        "small: 0 of at most 6 trials are done; 0 tokens generated\n"
        "instruct and thinking, on arithmetic, budget 30 tokens\n"
        f"Continue with: autolambda resume small --storage {storage}\n"
    )


def test_a_trial_under_way_is_told_from_one_that_was_interrupted(tmp_path: Path) -> None:
    storage = copy_finished(storage_in(tmp_path))
    go_on(storage, 9)
    with closing(Store(storage)) as store, closing(Study(store, name=NAME)) as study:
        study.start(Proposal(uniform_params(0.3, num_knots=3), 0, 16), ranges=ranges(3))
    assert shown(NAME, storage).startswith("small: 6 of at most 9 trials are done, one was interrupted; ")
    with driver_lock(storage, NAME):
        text = shown(NAME, storage)
        plain = json.loads(status_json(NAME, storage))
    running = f"small: running (process {os.getpid()} on {socket.gethostname()}), 6 of at most 9 trials are done, one"
    assert text.startswith(f"{running} under way; ") and "Watch it: autolambda status small --watch" in text
    assert plain["state"] == "running" and plain["driver"]["pid"] == os.getpid() and plain["trials"]["running"] == 1
    assert not plain["is_done"] and plain["best"] and plain["verdict"] is None


def test_watching_ends_with_the_verdict_and_not_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = copy_finished(storage_in(tmp_path))
    seven = small_config(search__trials=7)
    go_on(storage, 7)
    looks, sleep = threading.Semaphore(0), time.sleep

    def sleep_less(seconds: float) -> None:
        looks.release()
        sleep(min(seconds, 0.1))  # a watcher without a pause would take the search's time

    monkeypatch.setattr(status.time, "sleep", sleep_less)
    output: list[str] = []
    watcher = threading.Thread(target=lambda: output.append(shown(NAME, storage, watch=True)))
    watcher.start()
    assert looks.acquire(timeout=20) and looks.acquire(timeout=20) and watcher.is_alive()
    search(seven, name=NAME, storage=storage, engine=FakeEngine())
    watcher.join(timeout=30)
    assert (
        not watcher.is_alive()
        and "7 of at most 7 trials are done, the search is over" in output[0]
        and "30 tokens" in output[0]
    )


def test_watching_reads_responses_only_where_something_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = copy_finished(storage_in(tmp_path))
    go_on(storage, 9)
    with closing(Store(storage)) as store, closing(Study(store, name=NAME)) as study:
        confirmed = store.evaluations(NAME, kind="confirm")[0]
        graded = store.graded(confirmed)
        asked = study.start(Proposal(uniform_params(0.3, num_knots=3), 0, 16), ranges=ranges(3))
        assert asked is not None

        def add(kind: Kind, graded: list[Graded]) -> None:
            evaluation = store.evaluation(NAME, kind=kind, key="6", schedule=confirmed.schedule, num_responses=32)
            store.add(evaluation, graded)

        steps: list[tuple[Callable[[], object], int]] = [  # what happens between two looks, and how often it was read
            (lambda: None, 1),
            (lambda: add("trial", graded[:16]), 1),  # of the trial under way
            (lambda: study.fail(asked, "no power"), 2),
            (lambda: add("baseline", graded[:31]), 2),
            (lambda: add("baseline", graded[31:]), 3),
            (lambda: store.update_study(NAME, config=small_config().model_dump(mode="json"), identity=identity), 4),
        ]
        stored = store.study(NAME)
        assert stored is not None
        identity, expected, num_read = stored.identity, [count for _, count in steps], list[int]()

        def between(seconds: float) -> None:
            num_read.append(len(built))
            if not steps:
                raise KeyboardInterrupt
            steps.pop(0)[0]()

        built: list[object] = []
        monkeypatch.setattr(status.time, "sleep", between)
        monkeypatch.setattr(status, "build_report", lambda *a, **o: built.append(a) or build_report(*a, **o))
        text = shown(NAME, storage, watch=True)
    assert num_read == [1, *expected]
    assert "6 of at most 6 trials are done; " in text


def test_watching_for_another_budget_ends_with_the_study(tmp_path: Path) -> None:
    finished()
    text = shown(NAME, finished_storage(), watch=True, budget=1e6)
    assert "Not confirmed yet" in text or " within 1,000,000 tokens" in text
    assert "within 30 tokens" not in text


def test_ctrl_c_ends_watching_and_leaves_the_last_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = copy_finished(storage_in(tmp_path))
    go_on(storage, 9)

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(status.time, "sleep", interrupt)
    assert "6 of at most 9 trials" in shown(NAME, storage, watch=True)


def test_an_unknown_study_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no study 'other' in this database; it has: small"):
        shown("other", finished_storage())
    with pytest.raises(StudyError, match="no study database at"):
        shown("other", storage_in(tmp_path))
    assert not list(tmp_path.iterdir())
