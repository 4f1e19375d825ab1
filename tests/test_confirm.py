"""Confirmation: which schedules are measured again, in which order, on how many responses, and the verdict."""

import pytest
from made_up import aims, evidence, point

from autolambda import acquisition
from autolambda.box import uniform_params
from autolambda.config import Config, parse_config
from autolambda.confirm import NUM_DRAWS, _even, difference, plan, verdict
from autolambda.pareto import Verdict
from autolambda.responses import Grade, Graded, Response
from autolambda.sampler import allowance_of, fit, targets_of
from autolambda.surrogate import TOKENS


def responses(*, num_correct, tokens, count=40, spread=0, repeats=1):
    """``count`` prompts, the first ``num_correct`` right, of ``tokens`` plus or minus ``spread`` tokens."""
    return [
        Graded(
            "t",
            str(i),
            repeat,
            Response("x", tokens + (spread if i % 2 else -spread), "stop"),
            Grade.CORRECT if i < num_correct else Grade.WRONG,
            "x",
            False,
        )
        for repeat in range(repeats)
        for i in range(count)
    ]


LAMS = [0.0, 1.0, 0.5, 0.42, 0.44, 0.46, 0.54, 0.58]
KNOWN = evidence([point(uniform_params(lam, num_knots=3), 4096) for lam in LAMS])  # tokens 10, 110, 60, 20, 30, ...


def config(finalists=3, **confirm) -> Config:
    search = {"max_tokens_generated": confirm.pop("cap", 1_000_000)}
    return parse_config({"confirm": {"finalists": finalists, **confirm}, "search": search})


def lams(found):
    return [LAMS[index] for index in found.finalists]


@pytest.mark.parametrize(
    ("budget", "picked"),
    [(1e6, 1.0), (75.0, 0.5), (45.0, 0.46), (35.0, 0.44), (12.0, 0.0), (2.0, 0.0)],
)
def test_the_most_accurate_that_is_sure_to_be_within_is_a_finalist(budget, picked):
    assert picked in lams(plan(KNOWN, config(), aims(budget)))
    assert lams(plan(KNOWN, config(finalists=1), aims(budget))) == [picked]


@pytest.mark.parametrize("budget", [1e6, 75.0, 61.0, 45.0, 20.0, 2.0])
@pytest.mark.parametrize("margin", [0.01, 0.9])
def test_the_finalists_are_a_safe_a_bold_and_a_frugal_one(budget, margin):
    found = plan(KNOWN, config(margin=margin), aims(budget))
    granted = allowance_of(KNOWN.points, config().search, aims(budget))
    target = targets_of(KNOWN.points, granted, budget)[0]
    draw = fit(KNOWN, 3).draw([each.observation.schedule for each in KNOWN.points], num_draws=NUM_DRAWS, seed=0)
    first = acquisition.safe(draw, target)
    others = {acquisition.bold(draw, target, than=first), acquisition.frugal(draw, than=first, margin=margin)}
    assert set(found.finalists) == {first, *others} - {None}
    assert (margin == 0.9 and budget > 60) <= (len(found.finalists) > 1)  # then a cheaper one is good enough


@pytest.mark.parametrize("budget", [None, 1e6, 61.0, 2.0])
@pytest.mark.parametrize("finalists", [1, 2, 3, 99])
def test_the_order_is_mean_tokens_ascending(budget, finalists):
    found = plan(KNOWN, config(finalists=finalists, margin=0.9), aims(budget))
    tokens = [KNOWN.points[index].observation.values[TOKENS] for index in found.finalists]
    assert tokens == sorted(tokens) and 1 <= len(set(tokens)) == len(tokens) <= finalists


def test_without_a_budget_the_finalists_are_spread_over_the_front():
    every, few = (lams(plan(KNOWN, config(finalists=limit), aims(None))) for limit in (99, 3))
    assert len(every) >= 6 and every == sorted(every)  # all rise together
    assert len(few) == 3 and (few[0], few[-1]) == (every[0], every[-1]) and set(few) <= set(every)


@pytest.mark.parametrize(
    ("count", "limit", "expected"), [(3, 5, [0, 1, 2]), (10, 3, [0, 4, 9]), (10, 2, [0, 9]), (10, 1, [0])]
)
def test_an_even_choice_holds_both_ends(count, limit, expected):
    assert _even(count, limit) == expected


@pytest.mark.parametrize("budget", [None, 61.0])
@pytest.mark.parametrize("cap", [50_000, 300_000, 3_000_000])
def test_the_numbers_of_responses_are_what_is_left_for_them(budget, cap):
    found = plan(KNOWN, config(cap=cap), aims(budget))
    granted = allowance_of(KNOWN.points, config(cap=cap).search, aims(budget))
    predicted = [KNOWN.points[index].observation.values[TOKENS] for index in found.finalists]
    assert found.num_parent == granted.num_parent
    assert found.num_responses == pytest.approx(granted.num_final(predicted), rel=0.1)
    assert 64 <= found.num_responses <= 1024


def test_a_ladder_without_an_end_has_what_there_is():
    one = evidence(KNOWN.points[2:3])
    found = plan(one, config(), aims(60.0, num_confirm=77))
    assert (found.finalists, found.num_responses, found.num_parent) == ((0,), 77, 77)


def test_a_plan_follows_from_the_evidence_alone():
    assert plan(KNOWN, config(), aims(61.0)) == plan(evidence(KNOWN.points), config(), aims(61.0))


def test_a_difference_is_over_the_responses_that_both_have():
    long, short = responses(num_correct=30, tokens=10, repeats=2), responses(num_correct=20, tokens=10)
    found = difference(long, short, weights={"t": 1.0})
    assert found == difference(long[:40], short, weights={"t": 1.0}) and found.value == pytest.approx(0.25)
    fewer = difference(long, short[:16], weights={"t": 1.0})
    assert fewer.num_prompts == 16 and fewer.value == 0.0  # the first are right in both
    back = difference(short, long, weights={"t": 1.0})
    assert back.value == -found.value and back.low == pytest.approx(-found.high)


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
