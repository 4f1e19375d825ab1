"""The slope of accuracy against tokens, the sweet spot, lengths that run away: closed forms, coverage, the paper."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from paths import ROOT

from autolambda.responses import Grade, Graded, Response
from autolambda.statistics.curve import CurvePoint
from autolambda.statistics.pareto import Objectives
from autolambda.statistics.token_value import (
    Length,
    Slope,
    curve_insights,
    runaway,
    runaway_sentence,
    slope_of,
    slope_of_curve,
    slope_sentences,
    sweet_spot,
)

PAPER = ROOT / "studies/paper/qwen3_4b.csv"
NUM_RESPONSES = {"aime25": 1920, "ifeval": 4328, "gpqa_diamond": 1584}


def graded(right, *, task="t", repeat=0, start=0):
    """A response a prompt, correct or not."""
    response, grades = Response("", 1, "stop"), (Grade.WRONG, Grade.CORRECT)
    return [
        Graded(task, str(start + place), repeat, response, grades[bool(each)], "", True)
        for place, each in enumerate(right)
    ]


def paper(benchmark):
    with PAPER.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["benchmark"] == benchmark]
    lams = {"instruct": 0.0, "thinking": 1.0}
    return [
        CurvePoint(
            lams[row["method"]] if row["method"] in lams else float(row["lambda"]),
            float(row["think_ratio"]) / 100,
            NUM_RESPONSES[benchmark],
            float(row["mean_at_k"]) / 100,
            float(row["mean_tokens"]),
        )
        for row in rows
        if row["method"] in (*lams, "mi")
    ]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([(0.5, 10), (0.8, 90), (0.795, 60)], 2),  # within a point, for fewer tokens
        ([(0.5, 10), (0.8, 90), (0.78, 60)], 1),  # two points are too much
        ([(0.8, 60), (0.805, 60)], 1),  # of equal cost the more accurate
        ([], None),
    ],
)
def test_the_sweet_spot(scores, expected):
    assert sweet_spot([Objectives(*pair) for pair in scores]) == expected


def test_the_slope_of_two_schedules_is_that_of_their_means():
    short, long = [True] * 12 + [False] * 8, [True] * 15 + [False] * 5
    found = slope_of([graded(short), graded(long)], [100.0, 150.0])
    assert found.value == pytest.approx((15 - 12) / 20 / 50)
    assert found.low < found.value < found.high and found.mean_tokens == 125 and found.num_schedules == 2


def test_a_prompt_that_one_schedule_alone_answered_says_nothing():
    both = [graded([True, False, True, False]), graded([True, True, True, False])]
    more = [both[0], [*both[1], *graded([False] * 50, start=4)]]
    assert slope_of(more, [10.0, 20.0]) == slope_of(both, [10.0, 20.0])


def test_repeats_are_means_of_their_prompt():
    once = slope_of([graded([True, False]), graded([True, True])], [10.0, 20.0])
    again = [graded([True, False]) + graded([True, False], repeat=1), graded([True, True])]
    assert slope_of(again, [10.0, 20.0]) == once


def test_several_tasks_count_by_weight_and_a_guard_not_at_all():
    task = [graded([True, False, False]), graded([True, True, False])]
    other = [graded([True] * 3, task="u"), graded([False] * 3, task="u")]
    sides = [[*one, *two] for one, two in zip(task, other, strict=True)]
    assert slope_of(sides, [0.0, 1.0], weights={"t": 0.5, "u": 0.5}).value == pytest.approx((1 / 3 - 1) / 2)
    assert slope_of(sides, [0.0, 1.0], weights={"t": 1.0, "u": 0.0}).value == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("schedules", "tokens"),
    [
        ([], []),
        ([graded([True, False])], [10.0]),
        ([graded([True, False]), graded([True, True])], [10.0, 10.0]),
        ([graded([True]), graded([False])], [10.0, 20.0]),
        ([graded([True, False]), graded([True, False], start=2)], [10.0, 20.0]),
    ],
)
def test_too_little_for_a_slope(schedules, tokens):
    assert slope_of(schedules, tokens) is None


def test_no_disagreement_is_not_certainty():
    found = slope_of([graded([True] * 30), graded([True] * 30)], [10.0, 20.0])
    assert found.value == 0 and found.low < 0 < found.high


def test_the_slopes_interval_holds_the_truth():
    """Schedules share hard and easy prompts; the slope of their true accuracies lies in the interval."""
    rng, tokens, held = np.random.default_rng(0), np.array([100.0, 120.0, 150.0, 200.0]), 0
    away = tokens - tokens.mean()
    for _ in range(400):
        ease = rng.normal(size=150)
        chance = 1 / (1 + np.exp(-(ease[:, None] + rng.normal(size=4) * 0.3)))
        truth = float(away @ chance.mean(axis=0)) / float(away @ away)
        right = rng.random(chance.shape) < chance
        found = slope_of([graded(column) for column in right.T], tokens.tolist())
        held += found.low <= truth <= found.high
    assert held / 400 >= 0.93


@pytest.mark.parametrize(
    ("benchmark", "spot", "sign", "longest"),
    [("aime25", 0.8, 1, None), ("ifeval", 0.6, 0, 0.4), ("gpqa_diamond", 0.8, 0, None)],
)
def test_the_papers_table(benchmark, spot, sign, longest):
    found = curve_insights(paper(benchmark))
    assert found.sweet_spot.lam == spot
    assert (found.slope.low > 0) - (found.slope.high < 0) == sign
    assert (found.runaway and found.runaway.lam) == longest
    said = " ".join(found.sentences())
    assert ("longest in the middle" in said) == bool(longest) and ("may be nothing" not in said) == bool(sign)
    assert f"Without a budget we would take lambda {spot:g}: " in said


def test_the_slope_of_a_curve_is_the_weighted_line():
    points = [CurvePoint(lam, 1.0, 1000, *pair) for lam, pair in ((0.8, (0.6, 100.0)), (0.9, (0.7, 200.0)))]
    assert slope_of_curve([CurvePoint(0.1, 0.0, 1000, 0.1, 50.0), *points]).value == pytest.approx(0.001)
    assert slope_of_curve(points[:1]) is None
    assert slope_of_curve([CurvePoint(0.8, 1.0), CurvePoint(0.9, 1.0)]) is None


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([(0.0, 10, 9, 11), (0.5, 30, 25, 40), (1.0, 12, 11, 13)], 0.5),
        ([(0.0, 10, 9, 11), (0.5, 30, 14, 60), (1.0, 12, 11, 13)], None),  # may be chance
        ([(0.0, 10, 9, 11), (0.5, 15, 15, 15), (1.0, 12, 11, 13)], None),  # longer, but not by far
        ([(0.0, 10, 9, 11), (1.0, 90, 80, 99)], None),
        ([(-0.2, 90, 80, 99), (0.0, 10, 9, 11), (0.5, 30, 25, 40), (1.0, 12, 11, 13), (1.2, 90, 80, 99)], 0.5),
        ([(-0.2, 9, 8, 10), (0.0, 10, 9, 11), (1.0, 90, 80, 99), (1.2, 8, 7, 9)], None),  # a parent is no middle
    ],
)
def test_lengths_that_run_away(lengths, expected):
    given = [Length(*each) for each in lengths]
    found = runaway(given[::-1])
    assert (found and found.lam) == expected
    if found:
        assert "30.0 tokens at lambda 0.5, 2.5 times those at lambda 1" in runaway_sentence(found, given)


@pytest.mark.parametrize(
    ("low", "high", "end"), [(-2e-3, -1e-3, ", a loss."), (1e-3, 2e-3, ")."), (-1e-3, 1e-3, ", which may be nothing.")]
)
def test_the_slope_in_words(low, high, end):
    [said] = slope_sentences(Slope((low + high) / 2, low, high, 200.0, 3))
    assert said.startswith("Where it nearly always thinks, 10 % more tokens bring ") and said.endswith(end)
    assert f" points ({2000 * low:+.1f} to {2000 * high:+.1f})" in said
    assert list(slope_sentences(None)) == []  # an unknown slope is no news
