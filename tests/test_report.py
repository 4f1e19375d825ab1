"""The report: picks, confirmed entries, stages, slack, and what is refused."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from small_search import BUDGET, NAME, copy_finished, finished, finished_storage, small_config, storage_in

from autolambda.errors import StudyError
from autolambda.job import open_job
from autolambda.pareto import Verdict
from autolambda.report import Report, build_report, slack_sentence
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


def test_a_budget_that_was_not_confirmed_has_no_verdict_but_keeps_the_confirmed_front() -> None:
    report = rebuilt(finished_storage(), 8.0)
    assert report.verdict is None and not report.is_done and report.nearest is None
    assert report.confirmed == finished().confirmed
    assert report.best is None or (not report.best.confirmed and report.best.measured.mean_tokens.high <= 8.0)


def test_a_confirmation_for_one_budget_stays_in_the_report_of_another(tmp_path: Path) -> None:
    storage = copy_finished(storage_in(tmp_path))
    cheap = confirm(small_config(), name=NAME, storage=storage, budget=1.5)
    assert cheap.verdict is Verdict.INFEASIBLE and {e.trial for e in cheap.confirmed} > {
        e.trial for e in finished().confirmed
    }
    assert rebuilt(storage, BUDGET).best == finished().best


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
