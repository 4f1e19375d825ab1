"""The report: picks, confirmed results, stages, slack, and what is refused."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from engine import FakeEngine
from small_search import BUDGET, NAME, finished, finished_storage, small_config, storage_in, unconfirmed

from autolambda.config import parse_config
from autolambda.driver.job import open_job
from autolambda.driver.search import confirm, enter, search
from autolambda.errors import StudyError
from autolambda.graders import ifeval
from autolambda.report.answer.stages import stages_of
from autolambda.report.read import _alike, build_report
from autolambda.report.report import Report
from autolambda.report.report import unconfirmed as best_unconfirmed
from autolambda.report.results import confirmed_result
from autolambda.responses import Grade, Graded, Response
from autolambda.schedule import Schedule
from autolambda.statistics.verdict import Verdict, verdict
from autolambda.study.store import Store
from autolambda.study.trials import Study


@contextmanager
def opened(storage: str):
    with closing(Store(storage)) as store:
        yield store, Study(store, name=NAME)


def rebuilt(storage: str, budget: float | None) -> Report:
    with opened(storage) as (store, study):
        return build_report(store, study, budget=budget)


def test_the_database_alone_gives_the_report_of_the_search() -> None:
    report = finished()
    assert rebuilt(finished_storage(), BUDGET) == report


def test_the_front_is_confirmed_and_sorted() -> None:
    report = finished()
    tokens = [result.score.mean_tokens for result in report.front]
    accuracy = [result.score.accuracy for result in report.front]
    assert report.front == report.confirmed_front and all(result.confirmed for result in report.front)
    assert tokens == sorted(tokens) and accuracy == sorted(accuracy)
    assert not any(result.confirmed for result in report.raw_front)
    assert all(result in report.trials for result in report.raw_front) and len(report.trials) == 6


def test_a_result_has_the_confirmed_numbers_where_there_are_any() -> None:
    report = finished()
    for result in report.confirmed:  # dominated ones too
        assert report.result(result.trial) is result
    unconfirmed = next(e for e in report.trials if e.trial not in {c.trial for c in report.confirmed})
    assert report.result(unconfirmed.trial) is unconfirmed
    assert report.result(None) is report.best
    with pytest.raises(StudyError, match="no complete trial 99; its last is 5"):
        report.result(99)


@pytest.mark.parametrize(
    ("budget", "message"),
    [(None, "give --budget TOKENS"), (1.5, r"no pick within 1\.5 tokens: the cheapest, trial \d+, needs ")],
)
def test_no_pick_says_what_to_do(budget: float | None, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        replace(finished(), budget=budget, best=None).result(None)


@pytest.fixture
def searched(tmp_path: Path) -> str:
    """The finished study with its search alone."""
    return unconfirmed(storage_in(tmp_path))


@pytest.mark.parametrize("budget", [8.0, BUDGET, 1e6])
def test_what_was_not_confirmed_has_no_verdict_and_a_pick_by_the_model(searched: str, budget: float) -> None:
    report = rebuilt(searched, budget)
    assert report.verdict is None and not report.is_done and report.nearest is None and report.alike == ()
    assert report.confirmed == () and report.front == report.smoothed_front
    within = [result for result in report.smoothed if result.measured.mean_tokens.high <= budget]
    if within:
        best = report.best
        assert best in within and best is not None and not best.confirmed
        assert best.score.accuracy == max(result.score.accuracy for result in within)
    else:
        assert report.best is None


def test_a_confirmation_for_one_budget_stays_in_the_report_of_another(searched: str) -> None:
    cheap = confirm(small_config(), name=NAME, storage=searched, budget=1.5)
    assert cheap.verdict is Verdict.INFEASIBLE and len(cheap.confirmed) == 1
    other = rebuilt(searched, BUDGET)
    assert other.verdict is None and other.confirmed == cheap.confirmed
    whole = confirm(small_config(), name=NAME, storage=searched, budget=BUDGET)
    assert all(each in whole.confirmed for each in finished().confirmed) and whole.best == finished().best
    assert rebuilt(searched, 1.5).nearest == cheap.nearest


def test_the_smoothed_front_draws_all_trials_together() -> None:
    report = finished()
    assert [result.trial for result in report.smoothed] == [result.trial for result in report.trials]
    for smoothed, raw in zip(report.smoothed, report.trials, strict=True):
        assert smoothed.schedule == raw.schedule and smoothed.measured.num_responses == raw.measured.num_responses
        assert smoothed.measured.truncated_ratio == raw.measured.truncated_ratio
        assert smoothed.measured.think_ratio == raw.measured.think_ratio
        for name in ("accuracy", "mean_tokens"):
            one, other = getattr(smoothed.measured, name), getattr(raw.measured, name)
            assert one.low < one.value < one.high and one != other
            assert one.low < other.high and other.low < one.high  # they tell of the same
    assert report.smoothed_front and all(result in report.smoothed for result in report.smoothed_front)


def graded(num_correct: int, tokens: int) -> list[Graded]:
    outcomes = [Grade.CORRECT if i < num_correct else Grade.WRONG for i in range(40)]
    return [
        Graded("t", str(i), 0, Response("x", tokens + i % 5, "stop"), grade, "x", False)
        for i, grade in enumerate(outcomes)
    ]


@pytest.mark.parametrize(
    ("num_correct", "tokens", "expected"),
    [
        (22, 300, [0]),  # one prompt more: it is the pick
        (20, 300, [1]),
        (40, 300, []),  # far better
        (22, 5000, []),  # above the budget
    ],
)
def test_what_cannot_be_told_apart_is_within_the_budget_and_near(
    num_correct: int, tokens: int, expected: list[int]
) -> None:
    confirmed = [graded(21, 100), graded(num_correct, tokens)]
    results = [replace(result, trial=i) for i, result in enumerate(finished().trials[:2])]
    decision = verdict(confirmed, budget=1000, margin=0.0, weights={"t": 1.0})
    alike = _alike(decision, confirmed, results, {"t": 1.0})
    assert [each.result.trial for each in alike] == expected
    assert all(each.difference.low <= 0 <= each.difference.high for each in alike)


def test_the_stages_come_from_the_uniform_lambdas() -> None:
    stages = finished().stages
    assert stages.emergence is not None and 0 < stages.emergence.lam < 1
    assert stages.emergence.low <= stages.emergence.lam <= stages.emergence.high


def test_the_stages_go_from_one_parent_to_the_other() -> None:
    report = finished()
    far = [replace(report.trials[0], schedule=Schedule.uniform(lam)) for lam in (-0.2, 1.2)]
    assert stages_of([*report.trials, *far]) == report.stages


def test_a_parent_is_its_end_of_the_ladder_until_it_was_measured_as_is() -> None:
    report = finished()
    assert {name: parent.trial for name, parent in report.parents.items() if parent} == dict.fromkeys(report.parents)
    assert report.trials[0].schedule.lam == 0.0 and report.trials[1].schedule.lam == 1.0


def test_a_study_without_a_complete_trial_has_no_report(tmp_path: Path) -> None:
    storage = storage_in(tmp_path)
    with opened(storage) as (store, study):
        enter(store, open_job(small_config()), name=NAME)
        with pytest.raises(StudyError, match=f"no complete trial yet; go on with 'autolambda resume {NAME}'"):
            build_report(store, study, budget=None)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Report]:
    """A search on sums, with other sums as a guard whose answers nobody can give."""
    folder = tmp_path_factory.mktemp("guarded")
    rows = [{"question": f"{a} + {b} = ?", "answer": str(1000 + a + b)} for a in range(3, 13) for b in range(2, 8)]
    (folder / "rules.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    guard = {"path": str(folder / "rules.jsonl"), "limit": 12, "repeats": 1, "guard": {"max_drop": 0.2}}
    tasks = [{"name": "arithmetic", "limit": 16, "repeats": 1}, guard]
    storage = storage_in(folder)
    config = small_config(tasks=tasks, search__trials=4, search__ladder=3)
    return storage, search(config, name=NAME, storage=storage, engine=FakeEngine())


def test_a_guard_is_measured_and_does_not_count(guarded: tuple[str, Report]) -> None:
    storage, report = guarded
    assert rebuilt(storage, BUDGET) == report and report.verdict is not None
    for result in (*report.trials, *report.confirmed, *filter(None, report.parents.values())):
        tasks = result.measured.tasks
        assert tasks.keys() == {"arithmetic", "rules"} and tasks["rules"].accuracy.value == 0.0
        assert result.measured.accuracy == tasks["arithmetic"].accuracy
        assert result.measured.mean_tokens == tasks["arithmetic"].mean_tokens
        assert result.measured.num_responses == sum(task.num_responses for task in tasks.values())


def test_every_result_knows_its_guards(guarded: tuple[str, Report]) -> None:
    _, report = guarded
    for result in report.confirmed:
        drop = result.drops["rules"]
        assert result.guards == "kept" and drop.kept and drop.value == 0.0 and drop.max_drop == 0.2
        assert drop.low < 0.0 < drop.high < 0.2 and result.allowed is None
    assert all(
        result.guards in ("kept", "unsure") and result.drops == {} for result in (*report.trials, *report.smoothed)
    )
    parents = list(report.parents.values())
    assert all(parent is not None and parent.confirmed and parent.guards is None for parent in parents)
    sizes = {result.measured.num_responses for result in (*report.confirmed, *filter(None, parents))}
    assert len(sizes) == 1  # the parents as many as the finalists


def test_until_both_parents_are_measured_guards_leave_no_verdict(guarded: tuple[str, Report], tmp_path: Path) -> None:
    storage = storage_in(tmp_path)
    source = guarded[0].removeprefix("sqlite:///")
    (tmp_path / "studies" / NAME).mkdir(parents=True)
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(storage.removeprefix("sqlite:///"))) as other:
        one.backup(other)
        with other:
            found = "(SELECT id FROM autolambda_evaluations WHERE kind = 'parent' AND key = 'thinking')"
            other.execute(f"DELETE FROM autolambda_responses WHERE evaluation IN {found}")
    report = rebuilt(storage, BUDGET)
    assert report.verdict is None and report.confirmed and all(result.guards is None for result in report.confirmed)
    assert not report.is_done


def test_a_pick_by_the_model_must_rather_surely_break_no_guard(searched: str) -> None:
    report = rebuilt(searched, BUDGET)
    assert report.best is not None
    chances = {"kept": 0.96, "unsure": 0.9}
    for word, allowed in chances.items():
        results = tuple(
            replace(result, allowed=allowed if result.trial == report.best.trial else 0.99)
            for result in report.smoothed
        )
        found = best_unconfirmed(results, BUDGET)
        assert (found is not None and found.trial == report.best.trial) == (word == "kept")


def test_the_scores_of_ifeval_are_over_what_was_read() -> None:
    config = parse_config({"tasks": [{"path": "a.jsonl", "label": "rules", "grader": "ifeval"}, {"name": "gsm8k"}]})
    answers = [{name: [True, i > 0] if name.startswith("inst") else i > 0 for name in ifeval.NAMES} for i in range(3)]
    responses = [
        Graded("rules", str(i), 0, Response("x", 5, "stop"), Grade.WRONG, json.dumps(each) if each else None, False)
        for i, each in enumerate([*answers, None])
    ]
    result = confirmed_result(None, Schedule.uniform(0.0), [*responses, *graded_as("gsm8k")], config, parents={})
    assert result.scores.keys() == {"rules"}
    scores = result.scores["rules"]
    assert scores["num_read"] == 3 and scores["inst_level_loose_acc"] == pytest.approx(5 / 6)
    assert scores["prompt_level_strict_acc"] == pytest.approx(2 / 3)
    assert result.to_dict()["tasks"]["rules"]["scores"] == scores and "scores" not in result.to_dict()["tasks"]["gsm8k"]


def graded_as(task: str) -> list[Graded]:
    return [replace(each, task=task) for each in graded(20, 10)]
