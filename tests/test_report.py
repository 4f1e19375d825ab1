"""The report: picks, confirmed entries, stages, slack, and what is refused."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from small_search import BUDGET, NAME, finished, finished_storage, small_config, storage_in, unconfirmed

from autolambda.confirm import verdict
from autolambda.errors import StudyError
from autolambda.job import open_job
from autolambda.pareto import Verdict
from autolambda.report import Report, _alike, build_report, slack_sentence
from autolambda.responses import Grade, Graded, Response
from autolambda.search import confirm, enter
from autolambda.store import Store
from autolambda.study import Study


@contextmanager
def opened(storage: str):
    with closing(Store(storage)) as store:
        yield store, Study(store, name=NAME, storage=storage)


def rebuilt(storage: str, budget: float | None) -> Report:
    with opened(storage) as (store, study):
        return build_report(store, study, budget=budget)


def test_the_database_alone_gives_the_report_of_the_search() -> None:
    report = finished()
    assert rebuilt(finished_storage(), BUDGET) == report


def test_the_front_is_confirmed_and_sorted() -> None:
    report = finished()
    tokens = [entry.score.mean_tokens for entry in report.front]
    accuracy = [entry.score.accuracy for entry in report.front]
    assert report.front == report.confirmed_front and all(entry.confirmed for entry in report.front)
    assert tokens == sorted(tokens) and accuracy == sorted(accuracy)
    assert not any(entry.confirmed for entry in report.raw_front)
    assert all(entry in report.trials for entry in report.raw_front) and len(report.trials) == 6


def test_an_entry_has_the_confirmed_numbers_where_there_are_any() -> None:
    report = finished()
    for entry in report.confirmed:  # dominated ones too
        assert report.entry(entry.trial) is entry
    unconfirmed = next(e for e in report.trials if e.trial not in {c.trial for c in report.confirmed})
    assert report.entry(unconfirmed.trial) is unconfirmed
    assert report.entry(None) is report.best
    with pytest.raises(StudyError, match="no complete trial 99; its last is 5"):
        report.entry(99)


@pytest.mark.parametrize(
    ("budget", "message"), [(None, "give --budget TOKENS"), (1.5, r"no pick within 1\.5 tokens; name a trial")]
)
def test_no_pick_says_what_to_do(budget: float | None, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        replace(finished(), budget=budget, best=None).entry(None)


@pytest.fixture
def searched(tmp_path: Path) -> str:
    """The finished study with its search alone."""
    return unconfirmed(storage_in(tmp_path))


@pytest.mark.parametrize("budget", [8.0, BUDGET, 1e6])
def test_what_was_not_confirmed_has_no_verdict_and_a_pick_by_the_model(searched: str, budget: float) -> None:
    report = rebuilt(searched, budget)
    assert report.verdict is None and not report.is_done and report.nearest is None and report.alike == ()
    assert report.confirmed == () and report.front == report.smoothed_front
    within = [entry for entry in report.smoothed if entry.measured.mean_tokens.high <= budget]
    if within:
        best = report.best
        assert best in within and best is not None and not best.confirmed
        assert best.score.accuracy == max(entry.score.accuracy for entry in within)
    else:
        assert report.best is None


def test_a_confirmation_for_one_budget_stays_in_the_report_of_another(searched: str) -> None:
    cheap = confirm(small_config(), name=NAME, storage=searched, budget=1.5)
    assert cheap.verdict is Verdict.INFEASIBLE and [entry.trial for entry in cheap.confirmed] == [0]
    other = rebuilt(searched, BUDGET)
    assert other.verdict is None and other.confirmed == cheap.confirmed
    whole = confirm(small_config(), name=NAME, storage=searched, budget=BUDGET)
    assert len(whole.confirmed) > 1 and whole.confirmed == finished().confirmed and whole.best == finished().best
    assert rebuilt(searched, 1.5).nearest == cheap.nearest


def test_the_smoothed_front_draws_all_trials_together() -> None:
    report = finished()
    assert [entry.trial for entry in report.smoothed] == [entry.trial for entry in report.trials]
    for smoothed, raw in zip(report.smoothed, report.trials, strict=True):
        assert smoothed.schedule == raw.schedule and smoothed.measured.num_responses == raw.measured.num_responses
        assert smoothed.measured.truncated_ratio == raw.measured.truncated_ratio
        for name in ("accuracy", "mean_tokens", "think_ratio"):
            one, other = getattr(smoothed.measured, name), getattr(raw.measured, name)
            assert one.low < one.value < one.high and one != other
            assert one.low < other.high and other.low < one.high  # they tell of the same
    assert report.smoothed_front and all(entry in report.smoothed for entry in report.smoothed_front)


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
    entries = [replace(entry, trial=i) for i, entry in enumerate(finished().trials[:2])]
    decision = verdict(confirmed, budget=1000, margin=0.0, weights={"t": 1.0})
    alike = _alike(decision, confirmed, entries, {"t": 1.0})
    assert [each.entry.trial for each in alike] == expected
    assert all(each.difference.low <= 0 <= each.difference.high for each in alike)


def test_the_stages_come_from_the_uniform_lambdas() -> None:
    stages = finished().stages
    assert stages.emergence is not None and 0 < stages.emergence.lam < 1
    assert stages.emergence.low <= stages.emergence.lam <= stages.emergence.high


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


@pytest.mark.parametrize(
    ("budget", "parents", "bundled", "expected"),
    [
        (4000, {"instruct": 2.0, "thinking": 54.26}, True, ("Thinking, needs 54.3", "autolambda search INSTRUCT")),
        (60, {"instruct": 60.0, "thinking": 50.0}, False, ("Instruct, needs 60.0", "give a lower one")),
        (59.9, {"instruct": 60.0, "thinking": 50.0}, False, None),
        (4000, {"thinking": 54.0}, True, None),
        (4000, {}, True, None),
    ],
)
def test_slack(budget: float, parents: dict[str, float], bundled: bool, expected: tuple[str, ...] | None) -> None:
    sentence = slack_sentence(budget, parents, bundled=bundled)
    assert sentence is None if expected is None else sentence and all(part in sentence for part in expected)


def test_a_budget_below_the_longest_merge_binds() -> None:
    report = finished()
    highest = max(entry.score.mean_tokens for entry in (*report.trials, *report.confirmed))
    thinking = report.parents["thinking"]
    assert thinking is not None
    cheap_parents = {name: replace(entry, measured=report.trials[0].measured) for name, entry in report.parents.items()}
    assert replace(report, budget=highest + 40).slack is not None
    assert replace(report, budget=highest - 0.01, parents=cheap_parents).slack is None
