"""A cap on a merge's tail: few responses are cut, the search chooses, and the confirmation only measures."""

from __future__ import annotations

import json
from contextlib import closing

import pytest
from small_search import NAME, capped, capped_storage, database

from autolambda.driver.baselines.tail import LEAST_SAVED, SHARES
from autolambda.report.report import Report
from autolambda.responses import Capped, Graded, with_cut
from autolambda.statistics.metrics import measure
from autolambda.study.store import Store


@pytest.fixture(scope="module")
def report() -> Report:
    return capped()


def tried(report: Report) -> list[tuple[Capped, list[Graded], list[Graded]]]:
    """The caps on merges that the search's prompts tried: the cap, the whole responses, those with the cap."""
    with closing(Store(capped_storage())) as store:
        caps = [(Capped.from_key(each.key), each) for each in store.evaluations(NAME, kind="cap")]
        trials = store.evaluations(NAME, kind="trial")
        return [
            (capped, whole, with_cut(whole, store.graded(row)))
            for capped, row in caps
            if capped.of != "thinking" and capped.phase == "search"
            if (whole := [each for trial in trials if trial.schedule == row.schedule for each in store.graded(trial)])
        ]


def test_only_the_tail_of_confirmed_merges_is_cut(report: Report) -> None:
    confirmed = {each.schedule.key for each in report.confirmed if each.parent is None}
    assert tried(report)
    for capped_, whole, cut in tried(report):
        num_cut = sum(one is not other for one, other in zip(whole, cut, strict=True))
        assert capped_.of in confirmed and 0 < num_cut <= max(SHARES) * len(whole)


def test_the_search_chooses_by_expected_accuracy(report: Report) -> None:
    expected = {}
    (pick,) = (each for each in report.smoothed if report.is_pick(each))
    for capped_, whole, cut in tried(report):
        (smoothed,) = (each for each in report.smoothed if each.schedule.key == capped_.of)
        before, after = measure(whole), measure(cut)
        share = after.mean_tokens.value / before.mean_tokens.value
        if share <= 1 - LEAST_SAVED and share * smoothed.score.mean_tokens <= pick.score.mean_tokens:
            gain = after.accuracy.value - before.accuracy.value
            expected[capped_.of, capped_.tokens] = smoothed.score.accuracy + gain
    merge = report.capped_merge
    assert merge is not None and expected, "the small search has one"
    chosen = (merge.capped.of, merge.capped.tokens)
    assert expected[chosen] == max(expected.values()) and merge.capped.phase == "confirm"
    assert merge.result.trial is not None and merge.num_cut < merge.capped.num_responses


def test_it_is_measured_from_the_merges_own_confirmation(report: Report) -> None:
    merge = report.capped_merge
    assert merge is not None
    whole = next(each for each in report.confirmed if each.trial == merge.result.trial)
    assert merge.result.measured.num_responses == whole.measured.num_responses == merge.capped.num_responses
    assert merge.result.score.mean_tokens <= whole.score.mean_tokens
    rows = database(capped_storage())["evaluations"]
    assert sum(json.loads(row[2])["of"] == merge.capped.of for row in rows if row[1] == "cap") >= 2
