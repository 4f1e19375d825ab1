"""The front, the hypervolume and the verdict, against brute force and against simulated confirmations."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolambda.errors import InputError
from autolambda.statistics.pareto import Objectives, front, hypervolume
from autolambda.statistics.verdict import Confirmed, Verdict, confirmation_order, decide

scores = st.lists(
    st.builds(Objectives, st.integers(0, 8).map(lambda n: n / 8), st.integers(1, 8).map(float)), max_size=8
)


def same(score):
    return score


def dominates(one, other):
    return one.accuracy >= other.accuracy and one.mean_tokens <= other.mean_tokens and one != other


@given(scores)
def test_front_is_the_non_dominated_points_in_order(points):
    kept = front(points, key=same)
    assert set(kept) == {p for p in points if not any(dominates(q, p) for q in points)}
    assert [p.mean_tokens for p in kept] == sorted({p.mean_tokens for p in kept})


def test_front_keeps_the_first_of_equal_points():
    points = {"a": Objectives(0.5, 10), "b": Objectives(0.5, 10), "c": Objectives(0.4, 11)}
    assert front(points, key=points.__getitem__) == ["a"]


@given(scores)
def test_hypervolume_against_counted_cells(points):
    cells = sum(
        any(p.mean_tokens <= tokens and p.accuracy >= (height + 1) / 8 for p in points)
        for tokens in range(7)
        for height in range(8)
    )
    assert hypervolume(points, reference_tokens=7) == pytest.approx(cells / 8)


@given(scores, st.builds(Objectives, st.floats(0, 1), st.floats(0, 10)))
def test_hypervolume_never_falls_when_a_point_is_added(points, extra):
    before, after = (hypervolume(p, reference_tokens=9) for p in (points, [*points, extra]))
    assert after >= before - 1e-12


def test_empty_sets():
    assert front([], key=same) == []
    assert hypervolume([], reference_tokens=5) == 0


@pytest.mark.parametrize("bad", [(math.nan, 1.0), (0.5, math.inf), (0.5, math.nan)])
def test_a_score_is_finite(bad):
    with pytest.raises(InputError, match="finite"):
        Objectives(*bad)


def test_confirmation_order_is_ascending_and_stable():
    assert confirmation_order([30.0, 10.0, 20.0, 10.0]) == (1, 3, 2, 0)
    assert confirmation_order([]) == ()
    with pytest.raises(InputError, match="predicted"):
        confirmation_order([1.0, math.nan])


def finalist(accuracy, tokens, reach=5.0, *, guard=True):
    return Confirmed(accuracy, tokens, tokens - reach, tokens + reach, guard is True, guard is False)


def never(*pair):
    return -1.0


CASES = {
    "one that passes": ([finalist(0.5, 80)], "feasible", 0, (0,)),
    "the bound may equal the budget": ([finalist(0.5, 95)], "feasible", 0, (0,)),
    "the most accurate that passed": ([finalist(0.5, 60), finalist(0.7, 80)], "feasible", 1, (0, 1)),
    "equal accuracy goes to the cheaper": ([finalist(0.7, 80), finalist(0.7, 60)], "feasible", 1, (0, 1)),
    "all equal goes to the first": ([finalist(0.7, 60), finalist(0.7, 60)], "feasible", 0, (0, 1)),
    "testing stops at the first that fails": (
        [finalist(0.5, 60), finalist(0.9, 98), finalist(0.8, 70)],
        "feasible",
        0,
        (0,),
    ),
    "a failed first test ends it": ([finalist(0.5, 98), finalist(0.9, 60)], "uncertain", None, ()),
    "one cannot be excluded": ([finalist(0.5, 104), finalist(0.9, 150)], "uncertain", None, ()),
    "all are above": ([finalist(0.5, 106), finalist(0.9, 150)], "infeasible", None, ()),
    "a lower bound at the budget is not above": ([finalist(0.5, 105)], "uncertain", None, ()),
    "an unknown bound does not pass": ([Confirmed(0.5, 60, 50, math.nan)], "uncertain", None, ()),
    "an unsure guard does not pass": ([finalist(0.5, 60, guard=None)], "uncertain", None, ()),
    "and ends the testing": (
        [finalist(0.5, 60), finalist(0.9, 70, guard=None), finalist(0.8, 80)],
        "feasible",
        0,
        (0,),
    ),
    "a broken guard is no answer": ([finalist(0.5, 60, guard=False)], "infeasible", None, ()),
    "too long or broken": ([finalist(0.5, 60, guard=False), finalist(0.9, 150)], "infeasible", None, ()),
    "too long and broken": ([finalist(0.5, 150, guard=False)], "infeasible", None, ()),
    "broken or perhaps not": ([finalist(0.5, 60, guard=False), finalist(0.9, 70, guard=None)], "uncertain", None, ()),
    "kept but too long": ([finalist(0.5, 150, guard=None)], "infeasible", None, ()),
}


@pytest.mark.parametrize("name", CASES)
def test_decide(name):
    finalists, verdict, pick, passed = CASES[name]
    decision = decide(finalists, budget=100, difference_lower=never)
    assert (decision.verdict, decision.pick, decision.passed) == (Verdict(verdict), pick, passed)
    unbroken = [i for i, each in enumerate(finalists) if not each.breaks] or range(len(finalists))
    assert decision.nearest == min(unbroken, key=lambda i: finalists[i].mean_tokens)


def test_nothing_to_decide_on():
    with pytest.raises(InputError, match="finalist"):
        decide([], budget=100, difference_lower=never)


@pytest.mark.parametrize(
    ("lower", "pick"),
    [({}, 2), ({1: -0.009}, 1), ({0: -0.009}, 0), ({0: -0.005, 1: 0.0}, 0), ({1: -0.01}, 2), ({1: -0.02}, 2)],
)
def test_a_cheaper_one_is_picked_when_its_loss_is_bounded(lower, pick):
    finalists = [finalist(0.6, 40), finalist(0.69, 60), finalist(0.7, 90)]

    def difference_lower(cheaper, best):
        assert best == 2
        return lower.get(cheaper, -1.0)

    decision = decide(finalists, budget=100, difference_lower=difference_lower)
    assert (decision.pick, decision.best) == (pick, 2)


def test_a_cheaper_one_that_did_not_pass_is_never_picked():
    finalists = [finalist(0.6, 40), finalist(0.9, 98), finalist(0.6, 30)]
    decision = decide(finalists, budget=100, difference_lower=lambda i, j: 1.0)
    assert (decision.pick, decision.passed) == (0, (0,))


@pytest.mark.parametrize("means", [(101, 101, 101, 101), (90, 101, 102, 103), (101, 90, 80, 70)])
def test_a_false_feasible_stays_at_five_percent(means):
    rng = np.random.default_rng(0)
    false = 0
    for _ in range(2000):
        seen = [Confirmed(0.5, m, m - 1.645, m + 1.645) for m in rng.normal(means, 1.0)]
        passed = decide(seen, budget=100, difference_lower=never).passed
        false += any(means[index] > 100 for index in passed)
    assert false / 2000 <= 0.06


def test_a_false_infeasible_stays_at_five_percent():
    rng = np.random.default_rng(0)
    verdicts = [
        decide(
            [Confirmed(0.5, m, m - 1.645, m + 1.645) for m in rng.normal((99.99, 104), 1.0)],
            budget=100,
            difference_lower=never,
        ).verdict
        for _ in range(2000)
    ]
    assert verdicts.count(Verdict.INFEASIBLE) / 2000 <= 0.06
