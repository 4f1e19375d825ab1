"""What stages mean for a budget, from whole studies and by hand: sweet spot, gain over both parents, sentences."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from small_search import finished

from autolambda.report.insights import insight_sentences, insights_of
from autolambda.report.results import ScheduleResult
from autolambda.schedule import Schedule
from autolambda.statistics.metrics import measure
from tests.statistics.test_token_value import graded

WEIGHTS = {"t": 1.0}


def result(trial, lam, right, *, confirmed=True):
    responses = graded(right)
    return ScheduleResult(
        trial, Schedule.uniform(lam), measure(responses, weights=WEIGHTS), confirmed=confirmed
    ), responses


def found_insights(merges, parents):
    """The insights of confirmed merges beside parents, each given by which of the same prompts it answers."""
    searched = [result(0, 0.0, [True, False], confirmed=False)]
    seen = [SimpleNamespace(schedule=e.schedule, graded=each, measured=e.measured) for e, each in searched]
    shown = [result(number, lam, right) for number, (lam, right) in enumerate(merges)]
    own = {name: graded(right) for name, right in zip(("instruct", "thinking"), parents, strict=False)}
    return insights_of(seen, [e for e, _ in searched], shown, own, weights=WEIGHTS)


def test_a_study_says_where_its_sweet_spot_is():
    report = finished()
    found = report.insights
    near = [e for e in report.smoothed if e.score.accuracy >= found.highest.score.accuracy - 0.01]
    assert found.sweet_spot.score.mean_tokens == min(e.score.mean_tokens for e in near)
    assert found.highest.score.accuracy == max(e.score.accuracy for e in report.smoothed)
    assert {length.lam for length in found.lengths} == {e.schedule.lam for e in report.trials} - {None}


def test_a_studys_lead_over_the_parents_is_paired():
    report = finished()
    gain = report.insights.gain
    assert gain is not None and gain.over.keys() == {"instruct", "thinking"}
    change = report.insights.gain_over("thinking", gain.result)
    means = gain.result.score.accuracy - report.parents["thinking"].score.accuracy
    assert change.value == pytest.approx(means) and change.low < change.value < change.high


def test_a_merge_that_is_better_than_both_parents_is_said_to_beat_them():
    weak, strong, best = [True] * 40 + [False] * 160, [True] * 100 + [False] * 100, [True] * 150 + [False] * 50
    found = found_insights([(0.5, best)], [weak, strong])
    assert found.gain.is_shown and "Trial 0 is more accurate than both parents" in " ".join(insight_sentences(found))


@pytest.mark.parametrize(
    ("merge", "parents"),
    [
        ([True] * 60 + [False] * 140, ([True] * 40 + [False] * 160, [True] * 100 + [False] * 100)),  # than one only
        ([True] * 102 + [False] * 98, ([True] * 40 + [False] * 160, [True] * 100 + [False] * 100)),  # by chance
    ],
)
def test_a_merge_that_is_not_shown_to_be_better_is_not_said_to_beat_them(merge, parents):
    found = found_insights([(0.5, merge)], parents)
    assert not found.gain.is_shown and "No merge is shown to be more accurate than both parents" in " ".join(
        insight_sentences(found)
    )


def test_neither_a_parent_nor_a_merge_beside_one_parent_has_a_gain():
    right = [True] * 10
    assert found_insights([(1.0, right), (0.0, right)], (right, right)).gain is None
    assert found_insights([(0.5, right)], (right,)).gain is None


def test_of_several_merges_one_false_claim_is_rare():
    """Five merges as good as the Thinking parent: one of them is called better in no more than one draw of twenty."""
    rng, claims = np.random.default_rng(1), 0
    for _ in range(200):
        chance = 1 / (1 + np.exp(-rng.normal(size=120)))
        merges = [(0.5 + number / 100, rng.random(120) < chance) for number in range(5)]
        claims += found_insights(merges, (rng.random(120) < chance - 1, rng.random(120) < chance)).gain.is_shown
    assert claims / 200 <= 0.05 + 2 * (0.05 * 0.95 / 200) ** 0.5
