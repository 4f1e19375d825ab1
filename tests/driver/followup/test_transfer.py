"""A study's pick on other tasks: what is measured, paired, refined, resumed and refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from coded_responses import respond
from engine import FakeEngine, no_engine
from small_search import (
    BUDGET,
    NAME,
    answer,
    copy_finished,
    database,
    finished,
    finished_storage,
    small_config,
    storage_in,
    texts,
)

from autolambda.bundled import FOLDER
from autolambda.config_file import load_config
from autolambda.driver.events import Event, Generated
from autolambda.driver.followup.other_tasks import open_other_tasks
from autolambda.driver.followup.served import check
from autolambda.driver.followup.transfer import LADDER, MOST_REFINED, neighbour, refined, transfer
from autolambda.driver.job import open_job
from autolambda.errors import ConfigError, InputError, StudyError, TaskError
from autolambda.optimizer.space import PARENTS
from autolambda.report.followup.transfer import Transfer
from autolambda.report.read import read_report
from autolambda.responses import Response
from autolambda.schedule import Schedule
from autolambda.statistics.metrics import Measured, measure
from autolambda.study_view import StudyView
from autolambda.tasks.config import TaskConfig
from autolambda.tasks.slices import open_slices

NUM_ROWS = 24


@pytest.fixture
def copied(tmp_path: Path) -> str:
    return copy_finished(storage_in(tmp_path))


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Rows of the bundled task that neither the search nor the confirmation has."""
    rows = (FOLDER / "test.jsonl").read_text(encoding="utf-8").splitlines()[:NUM_ROWS]
    path = tmp_path / "other.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def tasks_of(*paths: Path) -> tuple[TaskConfig, ...]:
    return load_config(None, overrides={"tasks": [{"path": str(path), "id": "id"} for path in paths]}).tasks


def run(
    storage: str, tasks: Sequence[TaskConfig], engine: FakeEngine | None, events: list[Event] | None = None, **more: int
) -> tuple[Transfer, ...]:
    on_event = (lambda event: None) if events is None else events.append
    config = small_config()
    return transfer(config, tasks, name=NAME, storage=storage, budget=BUDGET, engine=engine, on_event=on_event, **more)


def test_the_pick_its_neighbour_and_both_parents_answer_the_same_prompts_with_the_same_seeds(
    copied: str, other: Path
) -> None:
    engine, events = FakeEngine(), list[Event]()
    (found,) = run(copied, tasks_of(other), engine, events)
    pick = finished().best
    assert pick is not None and found.compared.pick == pick.schedule and found.compared.trial == pick.trial
    measured = {merge.schedule for merge in engine.merges}
    assert {Schedule.uniform(lam) for lam in LADDER} | {pick.schedule, *PARENTS.values()} <= measured
    assert {prompt.seed for batch in engine.batches for prompt in batch} == {each.seed for each in engine.batches[0]}
    assert len(engine.batches[0]) == NUM_ROWS and set(found.sides) >= {"pick", "instruct", "thinking"}
    for name, change in found.changes.items():
        gain = found.sides["pick"].accuracy.value - found.sides[name].accuracy.value
        share = found.sides["pick"].mean_tokens.value / found.sides[name].mean_tokens.value
        assert (change.accuracy.value, change.tokens.value) == pytest.approx((gain, share))
    assert len([lam for lam in found.curve if lam not in LADDER]) <= MOST_REFINED + 2
    forecast = next(text for text in texts(events) if text.startswith("Forecast: "))
    assert f"{NUM_ROWS} responses on other" in forecast and "tokens at the lengths" in forecast


def test_a_finished_transfer_generates_nothing_again(copied: str, other: Path) -> None:
    found, before = run(copied, tasks_of(other), FakeEngine()), database(copied)
    assert run(copied, tasks_of(other), no_engine()) == found and database(copied) == before


def test_an_interrupted_transfer_goes_on_and_pays_nothing_twice(copied: str, tmp_path: Path, other: Path) -> None:
    whole = run(copy_finished(storage_in(tmp_path / "whole")), tasks_of(other), FakeEngine())
    with pytest.raises(KeyboardInterrupt):
        run(copied, tasks_of(other), FakeEngine(dies_at=3))
    assert not read_report(NAME, copied, BUDGET).transfers  # a side is missing
    events: list[Event] = []
    assert run(copied, tasks_of(other), FakeEngine(), events) == whole
    num_new = sum(event.num_responses for event in events if isinstance(event, Generated))
    stored = [len(database(each)["responses"]) for each in (storage_in(tmp_path / "whole"), finished_storage())]
    assert num_new == stored[0] - stored[1] - 3 * NUM_ROWS


def test_more_prompts_are_added_to_those_that_are_there(copied: str, other: Path) -> None:
    (few,) = run(copied, tasks_of(other), FakeEngine(), limit=8)
    engine = FakeEngine()
    (more,) = run(copied, tasks_of(other), engine, limit=20)
    assert few.sides["pick"].num_responses == 8 and more.sides["pick"].num_responses == 20
    assert {len(batch) for batch in engine.batches[:3]} == {12}


def test_the_report_has_the_tasks_only_once_they_are_measured(copied: str, other: Path) -> None:
    assert "transfers" not in answer(read_report(NAME, copied, BUDGET))
    (found,) = run(copied, tasks_of(other), FakeEngine())
    report = read_report(NAME, copied, BUDGET)
    assert report.transfers == (found,) and answer(report)["transfers"] == json.loads(json.dumps([found.to_dict()]))
    page = StudyView(NAME, copied, BUDGET).page
    assert 'id="transfer"' in page and "figure-transfer" in page and "other: Thinking as is" in page


def test_prompts_of_the_search_are_left_out(copied: str, tmp_path: Path, other: Path) -> None:
    config, events, path = small_config(), list[Event](), tmp_path / "mixed.jsonl"
    samples = open_slices(config.tasks, config.confirm_size, seed=config.search.seed).search[0].samples
    rows = [json.dumps({"id": e.id, "question": e.messages[0]["content"], "answer": e.target}) for e in samples]
    path.write_text("\n".join([*rows, *other.read_text(encoding="utf-8").splitlines()]), encoding="utf-8")
    (found,) = run(copied, tasks_of(path), FakeEngine(), events)
    assert found.sides["pick"].num_responses == NUM_ROWS
    assert f"mixed: {len(rows)} prompts are left out, because the study searched or confirmed on them" in texts(events)
    path.write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(TaskError, match="the study searched or confirmed on all of its prompts"):
        run(copied, tasks_of(path), no_engine())


def written(path: Path, *questions: str) -> Path:
    rows = [{"id": str(number), "question": each, "answer": "4"} for number, each in enumerate(questions)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.mark.parametrize("budget", [0.0, float("nan")])
def test_a_budget_that_is_no_number_above_0_is_refused(budget: float) -> None:
    with pytest.raises(ConfigError, match="budget: a positive number of tokens"):
        transfer(small_config(), (), name=NAME, storage="sqlite://", budget=budget)
    with pytest.raises(ConfigError, match="budget: a positive number of tokens"):
        check(small_config(), "http://127.0.0.1:9", name=NAME, storage="sqlite://", budget=budget)


def test_tasks_may_share_a_prompt(tmp_path: Path) -> None:
    questions = [f"{number}+0=" for number in range(100, 104)]
    tasks = tasks_of(written(tmp_path / "one.jsonl", *questions), written(tmp_path / "two.jsonl", *questions[::-1]))
    found = open_other_tasks(open_job(small_config()), tasks, limit=4)
    assert [len(part.samples) for part in found.job.confirm] == [4, 4]


def test_ids_that_repeat_in_the_two_parts_of_a_task_are_told_apart(tmp_path: Path) -> None:
    one, two = written(tmp_path / "one.jsonl", "100+0=", "101+0="), written(tmp_path / "two.jsonl", "102+0=", "103+0=")
    task = {"path": str(one), "id": "id", "confirm_on": {"path": str(two), "id": "id"}}
    tasks = load_config(None, overrides={"tasks": [task]}).tasks
    (part,) = open_other_tasks(open_job(small_config()), tasks, limit=4).job.confirm
    assert sorted(each.id for each in part.samples) == ["0", "1", "search-0", "search-1"]


def test_the_studys_own_task_is_refused() -> None:
    job = open_job(small_config(confirm__limit=None))
    whole = replace(job, search=open_job(small_config(tasks=[{"name": "arithmetic"}])).search)
    with pytest.raises(TaskError, match="searched or confirmed on all of its prompts"):
        open_other_tasks(whole, job.config.tasks, limit=4)


def test_a_test_set_is_no_warning_because_nothing_is_searched(tmp_path: Path) -> None:
    rows = [{"problem": f"{number}+0=", "answer": "4", "unique_id": f"{number}"} for number in range(100, 104)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    tasks = load_config(None, overrides={"tasks": [{"name": "math500", "path": str(path)}]}).tasks
    assert tasks[0].test_set_notes()
    assert not any("searching on" in note for note in open_other_tasks(open_job(small_config()), tasks, limit=4).notes)


def test_what_cannot_be_compared_is_refused_before_an_engine_opens(copied: str, other: Path) -> None:
    with pytest.raises(ConfigError, match="--limit: at least 1"):
        run(copied, tasks_of(other), no_engine(), limit=0)
    with pytest.raises(StudyError, match="no complete trial 99"):
        run(copied, tasks_of(other), no_engine(), trial=99)
    with pytest.raises(InputError):
        run(copied, tasks_of(other.with_name("missing.jsonl")), no_engine())


def numbers(think_ratio: float, num_prompts: int = 200) -> Measured:
    thought = round(think_ratio * num_prompts)
    return measure([respond("c", 0, sample=str(i), thought=i < thought) for i in range(num_prompts)])


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ({0.0: 0.0, 0.25: 0.0, 0.5: 0.4, 0.75: 1.0, 1.0: 1.0}, 0.375),
        ({0.0: 0.0, 0.25: 0.0, 0.375: 0.0, 0.5: 0.4, 0.75: 1.0, 1.0: 1.0}, 0.4375),
        ({0.0: 0.0, 0.45: 0.0, 0.5: 0.4, 1.0: 1.0}, None),
        ({0.0: 0.0, 0.5: 0.0, 1.0: 0.0}, None),
        ({0.0: 1.0, 0.5: 1.0, 1.0: 1.0}, None),
    ],
)
def test_the_ladder_is_refined_where_reasoning_emerges(ratios: dict[float, float], expected: float | None) -> None:
    assert refined({lam: numbers(ratio) for lam, ratio in ratios.items()}) == expected


def test_the_neighbour_of_a_pick_is_the_best_uniform_lambda_for_its_tokens() -> None:
    report = finished()
    pick = next(each for each in report.smoothed if each.schedule.lam is None)
    found = neighbour(replace(report, uniform=None), pick)
    assert found is not None and found.lam not in (None, 0.0, 1.0)
    cheaper = [
        each for each in report.smoothed if each.schedule.lam and each.score.mean_tokens <= pick.score.mean_tokens
    ]
    assert not cheaper or found == max(cheaper, key=lambda each: each.score.accuracy).schedule
    uniform = next(each for each in report.smoothed if each.schedule.lam == found.lam)
    assert neighbour(report, uniform) is None


def test_a_task_on_which_nothing_thinks_has_no_emergence(copied: str, other: Path) -> None:
    engine = FakeEngine(respond=lambda method, prompt, sampling: Response("4", 2, "stop"))
    (found,) = run(copied, tasks_of(other), engine)
    assert found.emergence is None
    assert any("emerges at no lambda" in sentence for sentence in found.sentences())
