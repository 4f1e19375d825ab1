"""Engines that fail in a search: each is replaced once, and the results are those of an undisturbed search."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine import FakeEngine, no_engine
from small_search import NAME, Finished, answer, copy_finished, database, small_config, storage_in, texts

from autolambda.driver.events import Event
from autolambda.driver.job import Job
from autolambda.driver.search import search
from autolambda.errors import EngineError
from autolambda.report.json_csv import report_json


class Opener:
    """Stands in for ``open_engine``. Its engines die at these batches, one after the other (``None``: never).

    An exception in place of a number is raised instead of opening. After the last number, engines live.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *deaths: int | Exception | None) -> None:
        self.engines: list[FakeEngine] = []
        self._deaths = list(deaths)
        monkeypatch.setattr("autolambda.driver.engine.open_engine", self)

    def __call__(self, job: Job, **_: object) -> FakeEngine:
        death = self._deaths.pop(0) if self._deaths else None
        if isinstance(death, Exception):
            raise death
        assert all(engine.num_closed == 1 for engine in self.engines), "two engines at once"
        self.engines.append(FakeEngine(dies_at=death, error=EngineError("the power went")))
        return self.engines[-1]


SHORT = small_config(
    engine__batch_size=8,
    search__trials=3,
    search__ladder=3,
    confirm__finalists=1,
    confirm__limit=8,
)  # two batches a trial, one for each parent and finalist


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """An undisturbed run of ``SHORT``."""
    storage = storage_in(tmp_path_factory.mktemp("short"))
    return Finished(search(SHORT, name=NAME, storage=storage, engine=FakeEngine()), database(storage))


@pytest.mark.parametrize("error", [RuntimeError("the power went"), EngineError("the power went")])
def test_a_given_engine_that_breaks_loses_nothing(tmp_path: Path, short: Finished, error: Exception) -> None:
    """It is not ours to close, nor to open again."""
    events: list[Event] = []
    engine = FakeEngine(dies_at=3, error=error)  # in the middle of the second trial
    with pytest.raises(type(error), match=r"^the power went$"):
        search(SHORT, name=NAME, storage=storage_in(tmp_path), engine=engine, on_event=events.append)
    assert len(database(storage_in(tmp_path))["responses"]) == 3 * 8
    assert engine.num_closed == 0 and RETRIED not in texts(events)
    report = search(SHORT, name=NAME, storage=storage_in(tmp_path), engine=FakeEngine())
    assert answer(report) == answer(short.report)
    assert database(storage_in(tmp_path)) == short.database


RETRIED = "the engine failed (the power went); once more with a new one"


@pytest.mark.parametrize("dies_at", [0, 3, 6])  # the first batch, in mid-trial, the confirmation's first
def test_an_engine_that_fails_is_replaced_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: Finished, dies_at: int
) -> None:
    opener, events = Opener(monkeypatch, dies_at), list[Event]()
    report = search(SHORT, name=NAME, storage=storage_in(tmp_path), on_event=events.append)
    assert texts(events).count(RETRIED) == 1
    assert report_json(report) == report_json(short.report)
    assert database(storage_in(tmp_path)) == short.database
    num_batches = len(short.database["responses"]) // 8
    assert [len(engine.batches) for engine in opener.engines] == [dies_at, num_batches - dies_at]  # none done twice
    assert [engine.num_closed for engine in opener.engines] == [1, 1]


def test_each_trial_has_a_second_engine_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: Finished
) -> None:
    opener = Opener(monkeypatch, 1, 2, 2, 2)  # each in the second batch of a trial, then in a confirmation
    search(SHORT, name=NAME, storage=storage_in(tmp_path))
    assert database(storage_in(tmp_path)) == short.database and len(opener.engines) == 5


def test_a_trial_that_fails_twice_is_left_out_and_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener, events = Opener(monkeypatch, 5, 0, None), list[Event]()  # in the middle of the third trial, and again
    report = search(SHORT, name=NAME, storage=storage_in(tmp_path), on_event=events.append)
    assert texts(events).count(RETRIED) == 1 and len(opener.engines) == 3
    assert "trial 2 failed (the power went); its schedule is left out" in texts(events)
    assert (report.counts.complete, report.counts.failed, report.counts.running) == (3, 1, 0) and report.is_done
    assert [(entry.trial, entry.schedule.lam) for entry in report.trials] == [(0, 0.0), (1, 1.0), (3, 0.25)]
    again = search(SHORT, name=NAME, storage=storage_in(tmp_path), engine=no_engine())
    assert report_json(again) == report_json(report)


def test_failures_that_are_not_in_a_row_do_not_stop_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Opener(monkeypatch, 0, 0, 3, 0)  # trial 0; then trial 2, after a complete one
    report = search(SHORT, name=NAME, storage=storage_in(tmp_path))
    assert (report.counts.complete, report.counts.failed) == (3, 2)
    assert [entry.trial for entry in report.trials] == [1, 3, 4]


def test_two_trials_in_a_row_that_fail_stop_the_search_which_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener, events = Opener(monkeypatch, 4, 0, 0, 0), list[Event]()
    with pytest.raises(EngineError, match=r"^the power went; 2 trials in a row failed\..* run the same command again$"):
        search(SHORT, name=NAME, storage=storage_in(tmp_path), on_event=events.append)
    assert texts(events).count(RETRIED) == 2 and [engine.num_closed for engine in opener.engines] == [1] * 4
    assert len(database(storage_in(tmp_path))["responses"]) == 2 * 16
    report = search(SHORT, name=NAME, storage=storage_in(tmp_path))
    assert (report.counts.complete, report.counts.failed) == (3, 1) and report.is_done  # the last one is measured now
    assert [(entry.trial, entry.schedule.lam) for entry in report.trials] == [(0, 0.0), (1, 1.0), (3, 0.25)]


def test_a_confirmation_that_fails_twice_ends_the_run_and_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: Finished
) -> None:
    opener = Opener(monkeypatch, 7, 0)
    with pytest.raises(EngineError, match=r"^the power went$"):
        search(SHORT, name=NAME, storage=storage_in(tmp_path))
    assert [engine.num_closed for engine in opener.engines] == [1, 1]
    assert answer(search(SHORT, name=NAME, storage=storage_in(tmp_path))) == answer(short.report)
    assert database(storage_in(tmp_path)) == short.database


@pytest.mark.parametrize("deaths", [(EngineError("no GPU"),), (3, EngineError("no GPU"))])
def test_an_engine_that_does_not_open_ends_the_run_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: Finished, deaths: tuple[int | Exception, ...]
) -> None:
    """The first or the second one; the trial is gone on with."""
    opener, events = Opener(monkeypatch, *deaths), list[Event]()
    with pytest.raises(EngineError, match=r"^no GPU$"):
        search(SHORT, name=NAME, storage=storage_in(tmp_path), on_event=events.append)
    assert texts(events).count(RETRIED) == len(opener.engines) == len(deaths) - 1
    assert answer(search(SHORT, name=NAME, storage=storage_in(tmp_path))) == answer(short.report)
    assert database(storage_in(tmp_path)) == short.database


def test_a_baseline_has_a_second_engine_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = copy_finished(storage_in(tmp_path))
    config, undisturbed = small_config(search__baselines=["slerp", "cut"]), storage_in(tmp_path / "undisturbed")
    expected = search(config, name=NAME, storage=copy_finished(undisturbed), engine=FakeEngine())
    opener, events = Opener(monkeypatch, 0, 1, 0), list[Event]()  # in the first baseline, then twice in the second
    with pytest.raises(EngineError, match=r"^the power went$"):
        search(config, name=NAME, storage=copied, on_event=events.append)
    assert texts(events).count(RETRIED) == 2 and [engine.num_closed for engine in opener.engines] == [1, 1, 1]
    assert report_json(search(config, name=NAME, storage=copied)) == report_json(expected)
    assert database(copied) == database(undisturbed)
