"""Pass@k and Vote@k by brute force."""

import itertools
from dataclasses import astuple
from statistics import fmean

import pytest
from coded_responses import respond, slice_of
from hypothesis import given
from hypothesis import strategies as st

from autolambda.errors import InputError
from autolambda.statistics import metrics
from autolambda.statistics.at_k import pass_at_k, vote_at_k


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.data())
def test_pass_at_k_against_all_subsets(correct, data):
    k = data.draw(st.integers(1, len(correct)))
    codes = "".join("c" if right else "w" for right in correct)
    expected = fmean(any(chosen) for chosen in itertools.combinations(correct, k))
    assert pass_at_k(slice_of(codes), k=k).value == pytest.approx(expected)


def test_pass_at_one_is_accuracy():
    graded = slice_of("ccw", "wut", "c")
    assert astuple(pass_at_k(graded, k=1)) == pytest.approx(astuple(metrics.accuracy(graded)))


@given(st.lists(st.sampled_from(["A", "B", "C", None]), min_size=1, max_size=6), st.data())
def test_vote_at_k_against_every_way_to_break_ties(answers, data):
    k = data.draw(st.integers(1, len(answers)))
    graded = [
        respond("u" if answer is None else "c" if answer == "A" else "w", repeat, answer=answer)
        for repeat, answer in enumerate(answers)
    ]
    order = data.draw(st.permutations(graded))
    given_votes = [answer for answer in answers[:k] if answer is not None]
    winners = [
        answer
        for answer in set(given_votes)
        if all(given_votes.count(answer) >= given_votes.count(other) for other in given_votes)
    ]
    expected = fmean(winner == "A" for winner in winners) if winners else 0
    assert vote_at_k(order, k=k).value == pytest.approx(expected)


def test_truncated_responses_do_not_vote():
    graded = [respond("t", 0, answer="B"), respond("t", 1, answer="B"), respond("c", 2, answer="A")]
    assert vote_at_k(graded, k=3).value == 1
    assert vote_at_k(graded, k=2).value == 0


@pytest.mark.parametrize("metric", [pass_at_k, vote_at_k])
@pytest.mark.parametrize("k", [0, 3])
def test_k_must_be_there(metric, k):
    with pytest.raises(InputError, match=f"k = {k} needs k >= 1 and k responses"):
        metric(slice_of("ccc", "cw"), k=k)


@given(st.lists(st.lists(st.sampled_from(["A", "B", "C", None]), min_size=3, max_size=4), min_size=1, max_size=5))
def test_vote_at_k_over_prompts_against_every_way_to_break_ties(prompts):
    graded = [
        respond("u" if answer is None else "c" if answer == "A" else "w", repeat, sample=str(i), answer=answer)
        for i, answers in enumerate(prompts)
        for repeat, answer in enumerate(answers)
    ]
    votes = [[answer for answer in answers[:3] if answer] for answers in prompts]
    winners = [[a for a in sorted(set(v)) if v.count(a) == max(map(v.count, v))] or [None] for v in votes]
    ways = [fmean(winner == "A" for winner in way) for way in itertools.product(*winners)]
    assert vote_at_k(graded, k=3).value == pytest.approx(fmean(ways))


@pytest.mark.parametrize("metric", [pass_at_k, vote_at_k])
def test_a_guard_needs_no_repeats(metric):
    enough = [*slice_of("ccw", "wut"), *slice_of("w", task="rules")]
    assert metric(enough, k=3, weights={"math": 1.0, "rules": 0.0}) == metric(enough[:6], k=3)
