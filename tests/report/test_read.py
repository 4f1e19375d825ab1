"""The answer to the budget from scripted responses: a parent, a likely finalist, and what may be missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from small_search import BUDGET, NAME, copy_finished, finished, storage_in

from autolambda.config import parse_config
from autolambda.errors import StudyError
from autolambda.optimizer.finalists import Plan
from autolambda.optimizer.space import parent_of
from autolambda.report.read import _aims, _Confirmation
from autolambda.report.report import Answer
from autolambda.report.results import ScheduleResult, confirmed_result
from autolambda.responses import Grade, Graded, Response
from autolambda.schedule import Schedule
from autolambda.statistics.verdict import LIKELY, Verdict
from autolambda.study.store import Store

NUM = 60
CONFIG = parse_config({"tasks": [{"path": "t.jsonl"}]})
GUARDED = parse_config({"tasks": [{"path": "t.jsonl"}, {"path": "g.jsonl", "guard": {"max_drop": 0.3}}]})


def graded(num_correct: int, tokens: float, *, task: str = "t") -> list[Graded]:
    """Responses to 60 prompts with these mean tokens, which vary by a third."""
    return [
        Graded(
            task,
            str(i),
            0,
            Response("x", round(tokens * (1 + (i % 5 - 2) / 4)), "stop"),
            Grade.CORRECT if i < num_correct else Grade.WRONG,
            "x",
            False,
        )
        for i in range(NUM)
    ]


def answered(
    finalists: Mapping[float | Schedule, tuple[int, float] | None],
    parents: Mapping[str, tuple[int, float]],
    *,
    budget: float = 100.0,
    guard: int | None = None,
) -> Answer | None:
    """The answer if these lambdas or schedules are the finalists, each with its correct responses and mean tokens."""
    config = CONFIG if guard is None else GUARDED
    extra = [] if guard is None else graded(guard, 10, task="g")
    own = {name: graded(*numbers) + (extra and graded(NUM, 10, task="g")) for name, numbers in parents.items()}
    responses: dict[int | None, list[Graded]] = {
        i: graded(*each) + extra for i, each in enumerate(finalists.values()) if each
    }
    results: list[ScheduleResult | None] = [
        confirmed_result(i, schedule, responses[i], config, parents=own, parent=parent_of(schedule))
        if i in responses
        else None
        for i, schedule in enumerate(e if isinstance(e, Schedule) else Schedule.uniform(e) for e in finalists)
    ]
    known = {
        name: confirmed_result(None, Schedule.uniform(lam), own[name], config, parents={}, parent=name)
        for name, lam in (("instruct", 0.0), ("thinking", 1.0))
        if name in own
    }
    agreed = Plan(tuple(range(len(results))), NUM, (NUM, NUM))
    return _Confirmation(config, budget, agreed, responses, own).answer(results, known)


def test_a_parent_within_the_budget_that_no_merge_surpasses_is_the_answer() -> None:
    found = answered({0.3: (30, 50), 0.5: (35, 60)}, {"instruct": (40, 40), "thinking": (58, 400)})
    assert found is not None and found.verdict is Verdict.FEASIBLE and found.nearest is None
    assert found.best is not None and (found.best.trial, found.best.parent) == (None, "instruct")
    assert found.beaten is not None and found.beaten.schedule.lam == 0.5 and found.alike == ()
    assert found.best.to_dict()["parent"] == "instruct" and found.beaten.to_dict()["parent"] is None


def test_a_better_merge_is_the_answer_whatever_the_parents_do() -> None:
    found = answered({0.3: (30, 50), 0.5: (45, 60)}, {"instruct": (40, 40), "thinking": (58, 400)})
    assert found is not None and found.best is not None and found.best.schedule.lam == 0.5
    assert found.best.parent is None and found.beaten is None


def test_a_schedule_beyond_the_line_is_compared_with_a_parent_within_the_budget() -> None:
    far = Schedule.uniform(0.5).beyond(scale=1.4)
    parents = {"instruct": (44, 40), "thinking": (58, 400)}
    found = answered({0.3: (30, 50), far: (45, 60)}, parents)
    assert found is not None and found.best is not None and found.best.parent == "instruct"
    assert found.beyond is not None and not found.beyond.is_shown and found.beyond.result.schedule == far
    assert found.beyond.line.parent == "instruct" and found.beyond.difference.value == pytest.approx(1 / 60)
    found = answered({0.3: (30, 50), far: (55, 60)}, parents)
    assert found is not None and found.best is not None and found.best.schedule == far
    assert found.beyond is not None and found.beyond.is_shown and found.beyond.line.schedule.lam == 0.3


def test_a_lambda_that_is_a_parent_is_reported_as_the_parent() -> None:
    found = answered({0.0: (40, 50), 0.5: (45, 300)}, {"instruct": (40, 300), "thinking": (58, 400)})
    assert found is not None and found.best is not None and (found.best.trial, found.best.parent) == (0, "instruct")
    assert found.beaten is None and found.open is not None and found.open.num_prompts is None


def test_finalists_after_the_first_failure_may_be_missing() -> None:
    parents = {"instruct": (10, 10), "thinking": (58, 400)}
    cut = answered({0.3: (30, 50), 0.5: (50, 300), 0.7: None}, parents)
    whole = answered({0.3: (30, 50), 0.5: (50, 300), 0.7: (55, 350)}, parents)  # a study of an earlier release
    assert cut is not None and whole is not None and cut.best == whole.best and cut.verdict is Verdict.FEASIBLE
    assert answered({0.3: (30, 50), 0.5: None, 0.7: (55, 350)}, parents) is None
    assert answered({0.3: None, 0.5: (50, 300)}, parents) is None


def test_a_bolder_finalist_that_is_probably_within_the_budget_is_named() -> None:
    found = answered({0.3: (30, 50), 0.5: (50, 95)}, {"instruct": (10, 10), "thinking": (58, 400)})
    assert found is not None and found.best is not None and found.best.schedule.lam == 0.3
    assert found.likely is not None and found.likely.result.schedule.lam == 0.5
    assert LIKELY <= found.likely.chance < 0.95
    assert found.open is not None and found.open.result == found.likely.result
    assert found.open.num_prompts is not None and NUM < found.open.num_prompts < 4 * NUM


@pytest.mark.parametrize(("tokens", "least", "most"), [(95.0, 61, 240), (99.0, 1000, 9000)])
def test_the_prompts_that_would_settle_it_grow_as_the_square_of_what_is_lacking(
    tokens: float, least: int, most: int
) -> None:
    found = answered({0.5: (50, tokens)}, {})
    assert found is not None and found.verdict is Verdict.UNCERTAIN and found.nearest is not None
    assert found.open is not None and found.open.num_prompts is not None
    assert least <= found.open.num_prompts <= most


def test_a_finalist_over_the_budget_is_settled_by_no_number_of_prompts() -> None:
    found = answered({0.5: (50, 103)}, {})
    assert found is not None and found.verdict is Verdict.UNCERTAIN
    assert found.open is not None and found.open.num_prompts is None


@pytest.mark.parametrize(("guard", "parent"), [(NUM, None), (30, "instruct")])
def test_a_merge_that_breaks_a_guard_leaves_the_parent(guard: int, parent: str | None) -> None:
    found = answered({0.3: (50, 50)}, {"instruct": (40, 40), "thinking": (58, 400)}, guard=guard)
    assert found is not None and found.verdict is Verdict.FEASIBLE
    assert found.best is not None and found.best.parent == parent
    if parent:
        assert found.open is not None and found.open.num_prompts is None and found.nearest is not None


def test_the_pick_and_its_lambda_in_the_search_are_one_and_a_parent_is_no_trial() -> None:
    report = finished()
    assert [each.trial for each in report.trials if report.is_pick(each)] == [report.best and report.best.trial]
    instruct = report.parents["instruct"]
    assert instruct is not None
    told = replace(report, best=instruct)
    assert told.is_pick(instruct) and not any(map(told.is_pick, (*report.trials, *report.confirmed)))
    with pytest.raises(StudyError, match="the answer is the Instruct model itself"):
        told.result(None)
    assert told.result(report.trials[0].trial).parent == "instruct"


def test_no_predicted_response_is_longer_than_the_cap(tmp_path: Path) -> None:
    with closing(Store(copy_finished(storage_in(tmp_path)))) as store:
        stored = store.study(NAME)
    assert stored is not None
    assert _aims(stored, finished().config, BUDGET).max_tokens == 64
    before = {key: value for key, value in stored.identity.items() if key != "sampling.max_tokens"}
    assert _aims(replace(stored, identity=before), finished().config, BUDGET).max_tokens == math.inf
