"""Confirmation: which candidates are measured again, in which order, and the verdict over them."""

import pytest

from autolambda.confirm import choose_finalists, verdict
from autolambda.entry import Entry
from autolambda.metrics import Measured, measure
from autolambda.pareto import Verdict
from autolambda.responses import Grade, Graded, Response
from autolambda.schedule import Schedule


def responses(*, num_correct, tokens, count=40, spread=0):
    """``count`` prompts, the first ``num_correct`` right, of ``tokens`` plus or minus ``spread`` tokens."""
    return [
        Graded(
            "t",
            str(i),
            0,
            Response("x", tokens + (spread if i % 2 else -spread), "stop"),
            Grade.CORRECT if i < num_correct else Grade.WRONG,
            "x",
            False,
        )
        for i in range(count)
    ]


def measured(*, num_correct, tokens, spread=0) -> Measured:
    return measure(responses(num_correct=num_correct, tokens=tokens, spread=spread))


def candidate(trial, num_correct, tokens, *, spread=0, lam=None):
    schedule = Schedule.uniform(trial / 100 if lam is None else lam)
    numbers = measured(num_correct=num_correct, tokens=tokens, spread=spread)
    return Entry(trial, schedule, numbers, confirmed=False)


# accuracy and tokens rise together, all of them on the front
FRONT = [candidate(trial, 10 + 2 * trial, 100 * (trial + 1)) for trial in range(10)]


@pytest.mark.parametrize(
    ("budget", "limit", "trials"),
    [
        (None, 3, [0, 4, 9]),
        (None, 2, [0, 9]),
        (None, 1, [0]),
        (None, 99, list(range(10))),
        (99_999, 4, [6, 7, 8, 9]),
        (99_999, 1, [9]),
        (50, 4, [0, 1]),  # below all: the two cheapest
        (50, 1, [0]),
        (50, 3, [0, 1]),
        (99_999, 99, list(range(10))),
    ],
)
def test_the_finalists_in_testing_order(budget, limit, trials):
    assert [c.trial for c in choose_finalists(FRONT, budget=budget, limit=limit)] == trials


def test_half_of_the_places_can_be_proven():
    safe = [candidate(trial, 10 + trial, 100) for trial in range(4)]
    risky = [candidate(10 + trial, 30 + trial, 199, spread=100) for trial in range(4)]
    assert all(c.measured.mean_tokens.high <= 200 for c in safe)
    assert all(c.measured.mean_tokens.high > 200 for c in risky)
    assert [c.trial for c in choose_finalists([*risky, *safe], budget=200, limit=4)] == [3, 2, 13, 12]


@pytest.mark.parametrize("budget", [None, 99_999, 1])
def test_the_order_is_mean_tokens_ascending(budget):
    tokens = [c.score.mean_tokens for c in choose_finalists(FRONT[::-1], budget=budget, limit=5)]
    assert tokens == sorted(tokens)
    assert len(tokens) > 1


def test_fewer_candidates_than_places():
    assert choose_finalists([], budget=None, limit=4) == choose_finalists([], budget=10, limit=4) == []
    for budget in (None, 99_999, 1):
        assert choose_finalists(FRONT[:1], budget=budget, limit=4) == FRONT[:1]


def test_of_equal_accuracy_the_cheaper_is_tested():
    twins = [candidate(0, 20, 300), candidate(1, 20, 100), candidate(2, 20, 200)]
    assert [c.trial for c in choose_finalists(twins, budget=99_999, limit=2)] == [1, 2]
    assert [c.trial for c in choose_finalists(twins, budget=None, limit=2)] == [1]


def test_equal_schedules_take_one_place():
    again = [candidate(trial, 30, 100, lam=0.5) for trial in range(3)]
    for budget in (None, 99_999, 1):
        assert [c.trial for c in choose_finalists([*again, FRONT[0]], budget=budget, limit=2)] in ([0, 0], [0])
    chosen = choose_finalists([*again, candidate(9, 20, 200, lam=0.9)], budget=99_999, limit=2)
    assert [c.trial for c in chosen] == [0, 9]


@pytest.mark.parametrize(
    ("finalists", "budget", "expected", "pick", "best", "nearest"),
    [
        ([(20, 100), (35, 200)], 1000, Verdict.FEASIBLE, 1, 1, 0),
        ([(20, 100), (35, 2000)], 1000, Verdict.FEASIBLE, 0, 0, 0),
        ([(20, 2000), (35, 3000)], 1000, Verdict.INFEASIBLE, None, None, 0),
        ([(20, 999)], 1000, Verdict.UNCERTAIN, None, None, 0),
    ],
)
def test_the_verdict(finalists, budget, expected, pick, best, nearest):
    graded = [responses(num_correct=right, tokens=tokens, spread=tokens // 4) for right, tokens in finalists]
    decision = verdict(graded, budget=budget, margin=0.01, weights={"t": 1.0})
    assert (decision.verdict, decision.pick, decision.best, decision.nearest) == (expected, pick, best, nearest)


def test_a_wide_margin_picks_the_cheaper_and_names_the_better():
    graded = [responses(num_correct=34, tokens=100), responses(num_correct=35, tokens=200)]
    decisions = [verdict(graded, budget=1000, margin=margin, weights={"t": 1.0}) for margin in (0.0, 0.5)]
    assert [(decision.pick, decision.best) for decision in decisions] == [(1, 1), (0, 1)]
