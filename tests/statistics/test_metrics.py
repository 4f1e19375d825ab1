"""Metrics from graded responses: the arithmetic by brute force; the errors by simulation in test_estimates.py."""

import itertools
import math
import random
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
from coded_responses import respond, slice_of
from hypothesis import given, settings
from hypothesis import strategies as st

from autolambda.errors import InputError
from autolambda.statistics import metrics
from autolambda.statistics.at_k import pass_at_k, vote_at_k
from autolambda.statistics.metrics import measure, paired_difference, token_bounds


def test_shares_are_means_over_prompts():
    measured = measure(slice_of("cccc", "w", "ut"))
    assert measured.accuracy.value == pytest.approx(1 / 3)
    assert measured.think_ratio.value == pytest.approx(1 / 3)
    assert measured.unparsed_ratio.value == measured.truncated_ratio.value == pytest.approx(1 / 6)
    assert (measured.num_responses, measured.accuracy.num_prompts, measured.accuracy.num_responses) == (7, 3, 7)


def test_the_functions_agree_with_measure():
    graded = [*slice_of("cw", "ut", "cc"), *slice_of("w", "c", task="code", tokens=40)]
    measured = measure(graded)
    assert metrics.accuracy(graded) == measured.accuracy
    assert metrics.mean_tokens(graded) == measured.mean_tokens
    assert list(measured.tasks) == ["math", "code"]
    assert measured.tasks["code"].mean_tokens.value == 40
    assert measured.tasks["code"].tasks == {}


def test_tasks_are_averaged_by_weight():
    graded = [*slice_of(*["c"] * 30), *slice_of("c", "w", task="code", tokens=40)]
    assert measure(graded).accuracy.value == pytest.approx(0.75)
    weighted = measure(graded, weights={"math": 0.2, "code": 0.8})
    assert weighted.accuracy.value == pytest.approx(0.6)
    assert weighted.mean_tokens.value == pytest.approx(34)
    errors = [weighted.tasks[name].accuracy.standard_error for name in ("math", "code")]
    assert weighted.accuracy.standard_error == pytest.approx(math.hypot(0.2 * errors[0], 0.8 * errors[1]))
    assert 0 <= weighted.accuracy.low < 0.6 < weighted.accuracy.high <= 1


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"math": 1.0},
        {"math": 0.5, "code": 0.6},
        {"math": 1.5, "code": -0.5},
        {"math": 0.5, "code": 0.25, "law": 0.25},
        {"math": math.nan, "code": 0.5},
    ],
)
def test_weights_must_fit(weights):
    with pytest.raises(InputError, match="code, math and sum to 1"):
        measure([*slice_of("c"), *slice_of("w", task="code")], weights=weights)


@pytest.mark.parametrize("call", [measure, token_bounds, metrics.accuracy, metrics.mean_tokens])
def test_no_responses_and_double_ones(call):
    with pytest.raises(InputError, match="no responses"):
        call([])
    with pytest.raises(InputError, match="twice"):
        call([*slice_of("c"), *slice_of("w")])


def test_a_truncated_response_shows_the_cap():
    graded = [respond("t" if index else "c", 0, sample=str(index), tokens=500 if index else 300) for index in range(20)]
    assert measure(graded).mean_tokens.high <= 500
    assert token_bounds(graded).upper <= 500
    stopped = [respond("w", 0, sample=each.sample_id, tokens=each.response.num_tokens) for each in graded]
    assert token_bounds(stopped).upper > 500


def test_bounds_lie_inside_the_interval_and_repeat():
    rng = np.random.default_rng(0)
    graded = [
        respond("c", repeat, sample=str(sample), tokens=int(rng.lognormal(6, 1)) + 1)
        for sample in range(40)
        for repeat in range(3)
    ]
    measured, bounds = measure(graded).mean_tokens, token_bounds(graded)
    assert measured.low < bounds.lower < measured.value < bounds.upper < measured.high
    assert token_bounds(graded) == bounds
    assert measured.high - measured.value > measured.value - measured.low


def test_paired_difference_matches_prompts_not_places():
    left, right = slice_of("cc", "cw", "ww", "cc"), slice_of("w", "w", "w", "c")
    found = paired_difference(left, right[::-1])
    assert found.value == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    assert found.num_prompts == 4
    assert found.low < found.lower_bound < found.value < found.high
    back = paired_difference(right, left)
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))


def test_paired_difference_by_weight():
    left, right = ([*slice_of(*math_), *slice_of(*code, task="code")] for math_, code in (("cc", "cw"), ("cw", "ww")))
    assert paired_difference(left, right, weights={"math": 0.9, "code": 0.1}).value == pytest.approx(0.5)


def test_other_prompts_cannot_be_paired():
    with pytest.raises(InputError, match="same prompts"):
        paired_difference(slice_of("c", "w"), slice_of("c"))
    with pytest.raises(InputError, match="same prompts"):
        paired_difference(slice_of("c"), slice_of("c", task="code"))


def test_numbers_do_not_follow_the_order_in_which_responses_were_stored():
    graded = [*slice_of("cw", "ut", "cc", "wc", "cu"), *slice_of("w", "c", "c", task="code", tokens=40)]
    graded = [replace(g, response=replace(g.response, num_tokens=7 * i * i + 3)) for i, g in enumerate(graded)]
    weights = {"math": 0.3, "code": 0.7}
    measured, bounds = measure(graded, weights=weights), metrics.token_bounds(graded, weights=weights)
    for seed in range(5):
        mixed = random.Random(seed).sample(graded, len(graded))
        assert measure(mixed, weights=weights) == measured
        assert list(measure(mixed, weights=weights).tasks) == ["math", "code"]
        assert metrics.token_bounds(mixed, weights=weights) == bounds


WITH_GUARD = {"math": 0.75, "code": 0.25, "rules": 0.0}
WITHOUT = {"math": 0.75, "code": 0.25}


def two_tasks():
    return [*slice_of("ccw", "wut", "c"), *slice_of("w", "c", task="code", tokens=40)]


def test_a_guard_plays_no_part_in_what_is_averaged():
    counted, guard = two_tasks(), slice_of("wwww", "c", task="rules", tokens=5000)
    alone, beside = measure(counted, weights=WITHOUT), measure([*guard, *counted], weights=WITH_GUARD)
    for name in ("accuracy", "mean_tokens", "think_ratio", "truncated_ratio", "unparsed_ratio", "token_quantiles"):
        assert getattr(beside, name) == getattr(alone, name)
    assert beside.tasks == {**alone.tasks, "rules": measure(guard).tasks["rules"]}
    assert (beside.num_responses, beside.accuracy.num_responses) == (len(counted) + 5, len(counted))
    assert token_bounds([*counted, *guard], weights=WITH_GUARD) == token_bounds(counted, weights=WITHOUT)
    single = {"math": 1.0, "rules": 0.0}
    assert measure([*slice_of("cw", "w"), *guard], weights=single).accuracy == measure(slice_of("cw", "w")).accuracy


def test_a_guard_need_not_have_the_same_prompts():
    left, right = two_tasks(), [*slice_of("ccc", "cut", "w"), *slice_of("c", "c", task="code")]
    both = [[*side, *slice_of(*guard, task="rules")] for side, guard in ((left, "c"), (right, ("w", "c")))]
    expected = paired_difference(left, right, weights=WITHOUT)
    assert paired_difference(*both, weights=WITH_GUARD) == expected != paired_difference(right, left, weights=WITHOUT)


def test_a_guard_may_be_missing_but_no_task_that_weighs():
    assert measure(two_tasks(), weights=WITH_GUARD) == measure(two_tasks(), weights=WITHOUT)
    with pytest.raises(InputError, match="sum to 1"):
        measure(slice_of("c"), weights={"math": 0.5, "code": 0.5, "rules": 0.0})
    with pytest.raises(InputError, match="sum to 1"):
        measure(slice_of("c", task="rules"), weights=WITH_GUARD)


@settings(max_examples=30)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=5), min_size=40, max_size=60))
def test_errors_are_clustered_by_prompt_as_the_formula_says(prompts):
    """SE^2 = sum (m_i - m)^2 / (n (n - 1)), but never below Wilson's."""
    graded = slice_of(*("".join("c" if right else "w" for right in repeats) for repeats in prompts))
    for found, each in (
        (metrics.accuracy(graded), [fmean(repeats) for repeats in prompts]),
        (pass_at_k(graded, k=2), [fmean(map(any, itertools.combinations(repeats, 2))) for repeats in prompts]),
    ):
        mean = sum(each) / len(each)
        clustered = math.sqrt(sum((one - mean) ** 2 for one in each) / (len(each) * (len(each) - 1)))
        assert found.value == pytest.approx(mean)
        assert found.standard_error >= clustered * (1 - 1e-9)
        reach = max(found.high - found.low, 1e-9) / 2 / 1.96
        assert found.standard_error == pytest.approx(clustered) or clustered <= reach * 1.01 + 1e-9


def test_the_error_of_several_prompts_by_a_bootstrap_of_prompts():
    rng = random.Random(0)
    prompts = ["".join(rng.choice("cccw" if i % 2 else "wwwc") for _ in range(4)) for i in range(60)]
    graded = [replace(each, answer=str(each.grade)) for each in slice_of(*prompts)]
    for metric, k in ((pass_at_k, 2), (vote_at_k, 3), (metrics.accuracy, None)):
        more = {} if k is None else {"k": k}
        each = [metric([g for g in graded if g.sample_id == str(i)], **more).value for i in range(len(prompts))]
        drawn = np.random.default_rng(1).choice(each, size=(4000, len(each))).mean(axis=1)
        assert metric(graded, **more).standard_error == pytest.approx(drawn.std(), rel=0.06)


@given(st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=3), min_size=1, max_size=8))
def test_quantiles_count_each_prompt_alike(lengths):
    """By brute force: each prompt's lengths repeated until all have as many, then counted off."""
    graded = [
        respond("c", repeat, sample=str(i), tokens=tokens)
        for i, each in enumerate(lengths)
        for repeat, tokens in enumerate(each)
    ]
    ordered = sorted(tokens for each in lengths for tokens in each * (6 // len(each)))
    found = measure(graded).token_quantiles
    for level, quantile in ((10, found.p10), (50, found.p50), (90, found.p90), (99, found.p99)):
        assert quantile.tokens == ordered[-(-level * len(ordered) // 100) - 1] and not quantile.is_bound


def test_quantiles_over_tasks_are_those_of_the_mixture():
    graded = [*slice_of(*["c"] * 90, tokens=10), *slice_of(*["c"] * 10, task="code", tokens=1000)]
    for weight, expected in ((0.95, 10), (0.85, 1000)):
        found = measure(graded, weights={"math": weight, "code": 1 - weight})
        assert found.token_quantiles.p90.tokens == expected and found.tasks["math"].token_quantiles.p99.tokens == 10
