"""Confirmation: which schedules are measured again, in which order, on how many responses, and the verdict."""

from dataclasses import replace

import numpy as np
import pytest
from made_up import GUARD, aims, evidence, guarded_truth, point, searched, settings_of, truth

from autolambda.optimizer import acquisition
from autolambda.optimizer.aims import allowance_of, targets_of
from autolambda.optimizer.finalists import NUM_DRAWS, _even, plan
from autolambda.optimizer.observations import TOKENS
from autolambda.optimizer.space import uniform_params
from autolambda.optimizer.surrogate import fit
from autolambda.responses import Grade, Graded, Response
from autolambda.statistics.verdict import Verdict, difference, drops_of, verdict


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


def config(cap=1_000_000, **changes):
    return settings_of(max_tokens_generated=cap, **changes)


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
    granted = allowance_of(KNOWN.measured, config(), aims(budget))
    target = targets_of(KNOWN.measured, granted, budget)[0]
    draw = fit(KNOWN, 3).draw([each.schedule for each in KNOWN.measured], num_draws=NUM_DRAWS, seed=0)
    first = acquisition.surest(draw, target)
    others = {
        acquisition.best_expected(draw, target, than=first),
        acquisition.cheapest_equal(draw, than=first, margin=margin),
    }
    assert set(found.finalists) == {first, *others} - {None}
    assert (margin == 0.9 and budget > 60) <= (len(found.finalists) > 1)  # then a cheaper one is good enough


@pytest.mark.parametrize("budget", [None, 1e6, 61.0, 2.0])
@pytest.mark.parametrize("finalists", [1, 2, 3, 99])
def test_the_order_is_mean_tokens_ascending(budget, finalists):
    found = plan(KNOWN, config(finalists=finalists, margin=0.9), aims(budget))
    tokens = [KNOWN.measured[index].values[TOKENS] for index in found.finalists]
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
    granted = allowance_of(KNOWN.measured, config(cap=cap), aims(budget))
    predicted = [KNOWN.measured[index].values[TOKENS] for index in found.finalists]
    assert found.num_parent == granted.num_parent
    assert found.num_responses == pytest.approx(granted.num_final(predicted), rel=0.1)
    assert 64 <= found.num_responses <= 1024


def test_a_ladder_without_an_end_has_what_there_is():
    one = evidence(KNOWN.measured[2:3])
    found = plan(one, config(), aims(60.0, num_confirm=77))
    assert (found.finalists, found.num_responses, found.num_parent) == ((0,), 77, 77)


def test_a_plan_follows_from_the_evidence_alone():
    assert plan(KNOWN, config(), aims(61.0)) == plan(evidence(KNOWN.measured), config(), aims(61.0))


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


@pytest.mark.parametrize(
    ("budget", "seed", "expected"),
    [(45.0, 0, ((6, 8), 1024, 200)), (60.0, 1, ((6, 2), 1024, 200)), (None, 2, ((6, 9, 1), 947, 200))],
)
def test_without_guards_the_plan_is_that_from_before_there_were_any(budget, seed, expected):
    settings = {"max_tokens_generated": 400_000, "trials": 10, "ladder": 4, "spaces": ["module"], "min_gain": 0.0}
    whole = settings_of(**settings, seed=seed)
    found = plan(searched(whole, budget=budget)[0], whole, aims(budget))
    assert (found.finalists, found.num_responses, found.num_parent) == expected


RULES = ((GUARD, 0.05),)
GUARDED_KNOWN = evidence(
    [
        point(uniform_params(lam, num_knots=3), 4096, guard=guarded_truth({"lam": lam}))
        for lam in [*LAMS, 0.1, 0.2, 0.28, 0.95]
    ]
)


@pytest.mark.parametrize("budget", [80.0, 45.0, 1e6, None])
def test_what_breaks_a_guard_is_no_finalist(budget):
    chosen = plan(GUARDED_KNOWN, config(), aims(budget, guards=RULES)).finalists
    assert chosen and all(guarded_truth(GUARDED_KNOWN.measured[i].params) >= 0.75 for i in chosen)
    free = plan(GUARDED_KNOWN, config(), aims(budget)).finalists
    assert budget == 1e6 or any(guarded_truth(GUARDED_KNOWN.measured[i].params) < 0.75 for i in free)


def test_with_guards_the_parents_are_confirmed_as_the_finalists_are_and_all_is_paid_for():
    whole = config(cap=300_000)
    for points in (
        GUARDED_KNOWN.measured,
        [replace(each, tokens_per_response=2 * each.cost) for each in GUARDED_KNOWN.measured],
    ):
        found = plan(evidence(points), whole, aims(1e6, guards=RULES))
        assert found.num_parent == found.num_responses
        ends = points[0].cost + points[1].cost
        cost = found.num_responses * (ends + sum(points[i].cost for i in found.finalists))
        assert 0.9 * 150_000 < cost < 1.1 * 150_000
        assert found.num_responses > plan(evidence(points), whole, aims(1e6)).num_parent


def test_with_guards_the_likeliest_is_tested_first():
    """The cheapest may well break a guard; to test it first could end the testing."""
    sure, doubtful = uniform_params(0.2, num_knots=3), {**uniform_params(0.1, num_knots=3), "split": 0.9}
    points = [
        point(uniform_params(0.0, num_knots=3), 4096, guard=0.8),
        point(uniform_params(1.0, num_knots=3), 4096, guard=0.2),
        point(sure, 4096, values=(0.6, 30.0, 0.0), guard=0.8),
        point(doubtful, 256, values=(0.75, 20.0, 0.0), guard=0.75),
    ]
    found = plan(evidence(points), config(), aims(100.0, guards=RULES))
    assert set(found.finalists) >= {2, 3} and found.finalists[-1] == 3
    assert plan(evidence(points), config(), aims(100.0)).finalists[0] == 3


@pytest.mark.parametrize("max_drop", [None, 0.05])
def test_the_finalists_of_a_search_avoid_where_a_guard_collapses(max_drop):
    """With luck in what is seen of the guard. Most of the accuracy lies where it collapses."""
    lost, won = [], []
    for seed in range(3):
        whole = settings_of(trials=18, ladder=6, seed=seed, max_tokens_generated=3_000_000)
        known = searched(whole, budget=80.0, max_drop=max_drop)[0]
        goal = aims(80.0, guards=() if max_drop is None else RULES)
        for index in plan(known, whole, goal).finalists:
            lost.append(0.8 - guarded_truth(known.measured[index].params))
            won.append(truth(known.measured[index].params)[0])
    if max_drop is None:
        assert min(lost) > 0.4 and min(won) > 0.5
    else:
        assert max(lost) < 0.1 and np.mean([each <= max_drop + 1e-9 for each in lost]) >= 0.75


def graded(task, right, *, tokens=100):
    grades = [Grade.CORRECT if each else Grade.WRONG for each in right]
    return [
        Graded(task, str(i), 0, Response("x", tokens + i % 7, "stop"), grade, "x", False)
        for i, grade in enumerate(grades)
    ]


def test_a_drop_is_on_the_task_alone_over_what_both_have():
    ours = [*graded("rules", [True] * 50 + [False] * 50), *graded("t", [False] * 90)]
    parents = [[*graded("rules", [True] * 80 + [False] * 40), *graded("t", [True] * 90)], graded("rules", [True] * 60)]
    found = drops_of(ours, parents, guards={"rules": 0.02})["rules"]
    assert found.value == pytest.approx(0.3) and found.kept is False and found.max_drop == 0.02  # against the first
    assert found.low < 0.3 < found.high
    assert drops_of(ours, parents, guards={}) == {}


def test_a_guard_of_which_nothing_is_known_is_unsure():
    found = drops_of(graded("t", [True]), [graded("rules", [True])] * 2, guards={"rules": 0.02})["rules"]
    assert found.kept is None and (found.low, found.high) == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("lost", "expected", "pick"),
    [
        ((0, 0), "feasible", 1),
        ((0, 200), "feasible", 0),
        ((200, 0), "uncertain", None),
        ((200, 200), "infeasible", None),
    ],
)
def test_a_verdict_asks_for_the_guards_too(lost, expected, pick):
    """400 prompts of a guard, of which both parents answer 300; a drop of a tenth is allowed."""
    weights = {"t": 1.0, "rules": 0.0}
    parent = graded("rules", [True] * 300 + [False] * 100)
    finalists = [
        [
            *graded("t", [True] * right + [False] * (40 - right)),
            *graded("rules", [True] * (300 - n) + [False] * (100 + n)),
        ]
        for n, right in zip(lost, (20, 35), strict=True)
    ]
    drops = [drops_of(each, [parent, parent], guards={"rules": 0.1}) for each in finalists]
    decision = verdict(finalists, budget=1000, margin=0.01, weights=weights, drops=drops)
    assert (decision.verdict, decision.pick) == (expected, pick)
    free = verdict(finalists, budget=1000, margin=0.01, weights=weights)
    assert (free.verdict, free.pick) == ("feasible", 1)


@pytest.mark.parametrize("parents_differ", [False, True])
def test_a_false_feasible_stays_at_five_percent_with_a_guard(parents_differ):
    """Two finalists, both a little below what the guard allows; prompts are shared, and some are hard."""
    rng, max_drop, num_false, draws = np.random.default_rng(7), 0.05, 0, 250
    right = graded("t", [True] * 40)
    for _ in range(draws):
        chances = 0.1 + 0.8 * rng.beta(3, 2, size=100)
        worse = np.clip(chances - 0.15, 0.0, 1.0) if parents_differ else chances
        parents = [graded("rules", rng.random(100) < each) for each in (chances, worse)]
        finalists = [[*right, *graded("rules", rng.random(100) < chances - max_drop)] for _ in range(2)]
        drops = [drops_of(each, parents, guards={"rules": max_drop}) for each in finalists]
        decision = verdict(finalists, budget=1000, margin=0.01, weights={"t": 1.0, "rules": 0.0}, drops=drops)
        num_false += decision.verdict is Verdict.FEASIBLE
    assert 0 < num_false / draws <= 0.05
