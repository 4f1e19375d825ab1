"""A search that races: trials that are stopped, pooled, killed in any batch, and that ask tasks in proportion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engine import FakeEngine, no_engine
from small_search import NAME, Finished, database, small_config, storage_in

from autolambda.config import SearchConfig
from autolambda.driver import run as runs
from autolambda.driver.events import EvaluationEnded, Event
from autolambda.driver.search import search
from autolambda.optimizer import racing
from autolambda.optimizer.aims import Aims
from autolambda.optimizer.observations import Observations, Proposal
from autolambda.optimizer.propose import Stop
from autolambda.optimizer.space import uniform_params
from autolambda.report.json_csv import report_json
from autolambda.schedule import Schedule
from autolambda.statistics.pace import Pace

RACED = small_config(
    budget=10.0,
    tasks=[{"name": "arithmetic", "limit": 32, "repeats": 1}],
    engine__batch_size=8,
    search__rungs=[8],
    search__ladder=2,
    confirm__limit=8,
    confirm__finalists=1,
)
SCRIPT = [(0.0, 0, 8), (1.0, 0, 8), (0.9, 0, 32), (0.0, 8, 32), (0.1, 0, 8)]  # lambda, from and to which response
COST = {0: 8, 1: 8, 2: 8, 3: 24, 4: 8}  # responses of each: of the third just the first rung, aborted


def read_script(evidence: Observations, config: SearchConfig, aims: Aims) -> Proposal | Stop:
    """Stands in for the sampler."""
    if evidence.num_trials == len(SCRIPT):
        return Stop("gain", 0.0)
    lam, start, stop = SCRIPT[evidence.num_trials]
    return Proposal(uniform_params(lam, num_knots=3), start, stop)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that measures what ``SCRIPT`` says, whatever the sampler would think of it."""
    monkeypatch.setattr(runs, "propose", read_script)


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """An undisturbed run of ``RACED``."""
    storage = storage_in(tmp_path_factory.mktemp("raced"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runs, "propose", read_script)
        return Finished(search(RACED, name=NAME, storage=storage, engine=FakeEngine()), database(storage))


def rows_of_trials(storage: str) -> dict[int, list[tuple[object, ...]]]:
    """The stored responses of each trial."""
    tables = database(storage)
    found: dict[int, list[tuple[object, ...]]] = {number: [] for number in range(len(SCRIPT))}
    trials = {row[0]: int(row[2]) for row in tables["evaluations"] if row[1] == "trial"}
    for row in tables["responses"]:
        if row[0] in trials:
            found[trials[row[0]]].append(row)
    return found


def test_a_trial_far_over_the_budget_is_stopped_in_mid_response(tmp_path: Path, scripted: None) -> None:
    events: list[Event] = []
    report = search(RACED, name=NAME, storage=storage_in(tmp_path), on_event=events.append, engine=FakeEngine())
    rows = rows_of_trials(storage_in(tmp_path))
    assert {number: len(each) for number, each in rows.items()} == COST
    assert any(row[6] == "aborted" for row in rows[2]) and not any(row[6] == "aborted" for row in rows[1] + rows[3])
    states = {row[1]: row[2] for row in database(storage_in(tmp_path))["trials"]}
    assert states == {0: "COMPLETE", 1: "COMPLETE", 2: "PRUNED", 3: "COMPLETE", 4: "COMPLETE"}
    [ended] = [event for event in events if isinstance(event, EvaluationEnded) and event.title == "trial 2"]
    assert ended.measured is None and ended.stopped == "over the budget"
    assert report.counts.pruned == 1 and Schedule.uniform(0.9) not in [entry.schedule for entry in report.trials]
    # what it cost is counted all the same
    assert report.tokens_generated == sum(row[5] for row in database(storage_in(tmp_path))["responses"])
    again = search(RACED, name=NAME, storage=storage_in(tmp_path), engine=no_engine())
    assert report_json(again) == report_json(report) and report.stop_reason == "gain"


def test_trials_of_one_schedule_are_pooled(tmp_path: Path, scripted: None) -> None:
    report = search(RACED, name=NAME, storage=storage_in(tmp_path), engine=FakeEngine())
    assert [(entry.trial, entry.schedule.lam, entry.measured.num_responses) for entry in report.trials] == [
        (0, 0.0, 32),
        (1, 1.0, 8),
        (4, 0.1, 8),
    ]
    rows = rows_of_trials(storage_in(tmp_path))
    places = [row[1:4] for row in rows[0] + rows[3]]
    assert len(set(places)) == 32 and [row[1:4] for row in rows[1]] == [row[1:4] for row in rows[0]]
    mean = sum(int(str(row[5])) for row in rows[0] + rows[3]) / 32
    assert report.trials[0].measured.mean_tokens.value == pytest.approx(mean)


@pytest.mark.parametrize("dies_at", range(2, 9))
def test_a_raced_search_that_dies_in_any_batch_changes_nothing(
    tmp_path: Path, scripted: None, raced: Finished, dies_at: int
) -> None:
    """In the trial that is aborted, in the one that goes on with another, in the confirmation."""
    engine = FakeEngine(dies_at=dies_at, error=RuntimeError("the power went"))
    with pytest.raises(RuntimeError, match="the power went"):
        search(RACED, name=NAME, storage=storage_in(tmp_path), engine=engine)
    assert report_json(search(RACED, name=NAME, storage=storage_in(tmp_path), engine=FakeEngine())) == report_json(
        raced.report
    )
    assert database(storage_in(tmp_path)) == raced.database


def test_two_tasks_are_asked_in_proportion_from_the_first_rung_on(tmp_path: Path, scripted: None) -> None:
    file = tmp_path / "sums.jsonl"
    file.write_text("".join(json.dumps({"question": f"{i}+1=", "answer": str(i + 1)}) + "\n" for i in range(16)))
    tasks = [{"name": "arithmetic", "limit": 24, "repeats": 1}, {"path": str(file), "weight": 3.0, "repeats": 1}]
    config = small_config(**{"budget": 10.0, "engine__batch_size": 8, "search__rungs": [8],
                             "search__ladder": 2, "confirm__limit": 4, "confirm__share": 0.5,
                             "confirm__finalists": 1, "tasks": tasks})  # fmt: skip
    report = search(config, name=NAME, storage=storage_in(tmp_path), engine=FakeEngine())
    first, whole = (rows_of_trials(storage_in(tmp_path))[number] for number in (1, 3))
    assert [row[1] for row in first].count("sums") == 2 and [row[1] for row in whole].count("sums") == 6
    assert report.trials[0].measured.tasks.keys() == {"arithmetic", "sums"} and report.is_done


def test_a_trial_that_loses_at_the_end_of_a_rung_is_pruned_with_its_numbers(
    tmp_path: Path, scripted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = Schedule.uniform(0.1)
    monkeypatch.setattr(racing, "stopped_for", lambda schedule, *others: racing.OFF_FRONT if schedule == lost else None)
    events: list[Event] = []
    report = search(RACED, name=NAME, storage=storage_in(tmp_path), engine=FakeEngine(), on_event=events.append)
    ended = [
        event
        for event in events
        if isinstance(event, EvaluationEnded) and event.kind == "trial" and event.schedule == lost
    ]
    assert [(event.stopped, event.measured is None) for event in ended] == [(racing.OFF_FRONT, False)]
    assert report.counts.pruned == 2  # the aborted one, and this one


PACE = Pace(6e-3, 3e-5, longest=4.0)  # of a GPU: 800 responses hide the tail of a call


@pytest.mark.parametrize(("grow", "expected"), [(True, {8, 32}), (False, {8}), (None, {8})])
def test_the_first_rung_grows_with_the_pace_where_the_config_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grow: bool | None, expected: set[int]
) -> None:
    """Both parents are measured before the pace counts. By default it counts with vLLM on a GPU alone."""
    monkeypatch.setattr(runs, "pace_of", lambda study: PACE)
    config = small_config(
        budget=10.0,
        tasks=[{"name": "arithmetic", "limit": 32, "repeats": 1}],
        search__rungs=[8],
        search__ladder=4,
        search__trials=4,
        search__grow_rungs=grow,
    )
    search(config, name=NAME, storage=storage_in(tmp_path), engine=FakeEngine())
    sizes = [row for row in database(storage_in(tmp_path))["evaluations"] if row[1] == "trial"]
    assert {row[-1] for row in sizes} == expected, sizes
