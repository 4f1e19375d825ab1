"""Confirmation: which schedules are measured again, in which order, on how many responses, and the verdict."""

from dataclasses import replace

import numpy as np
import pytest
from made_up import GUARD, aims, evidence, guarded_truth, point, searched, settings_of, truth

from autolambda.optimizer.aims import allowance_of
from autolambda.optimizer.finalists import Plan, _even, _ParentCosts, plan
from autolambda.optimizer.observations import TOKENS
from autolambda.optimizer.space import uniform_params
from autolambda.optimizer.surrogate import fit
from autolambda.responses import Grade, Graded, Response
from autolambda.schedule import Schedule
from autolambda.statistics.metrics import difference
from autolambda.statistics.verdict import Verdict, drops_of, verdict


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
    [(75.0, 0.5), (45.0, 0.46), (35.0, 0.44)],
)
def test_the_most_accurate_that_is_sure_to_be_within_is_a_finalist(budget, picked):
    assert picked in lams(plan(KNOWN, config(), aims(budget)))
    assert lams(plan(KNOWN, config(finalists=1), aims(budget))) == [picked]


@pytest.mark.parametrize("budget", [1e6, 75.0, 61.0, 45.0, 20.0, 12.0, 2.0])
def test_a_parent_is_no_finalist_for_a_budget(budget):
    """Parents are confirmed anyway, and may be the answer."""
    found = lams(plan(KNOWN, config(finalists=9), aims(budget)))
    assert found and not {0.0, 1.0} & set(found)


def test_if_only_parents_are_measured_they_are_the_finalists():
    assert plan(evidence(KNOWN.measured[:2]), config(), aims(75.0)).finalists == (0, 1)


@pytest.mark.parametrize("budget", [12.0, 2.0])
def test_for_a_hopeless_budget_the_cheapest_merge_is_confirmed(budget):
    assert lams(plan(KNOWN, config(), aims(budget))) == [0.42]


def test_near_the_budget_a_cheaper_fallback_is_confirmed_too():
    """One at 60 tokens may not be shown within 64; what is well below stands by."""
    assert lams(plan(KNOWN, config(), aims(64.0)))[-1] == 0.5
    assert len(plan(KNOWN, config(), aims(64.0)).finalists) > 1
    shorter = evidence([each for each in KNOWN.measured if each.lam in (0.0, 1.0, 0.42, 0.44, 0.46, 0.5)])
    assert lams(plan(shorter, config(), aims(100.0))) == [0.5]  # surely within: nothing need stand by


@pytest.mark.parametrize("finalists", [2, 3])
def test_a_uniform_lambda_stands_beside_other_schedules(finalists):
    splits = [{**uniform_params(0.5, num_knots=3), "split": 0.1 * i} for i in range(1, 6)]
    better = [point(params, 4096, values=(0.8 + 0.01 * i, 50.0, 0.5)) for i, params in enumerate(splits)]
    known = evidence([*KNOWN.measured, *better])
    found = plan(known, config(finalists=finalists), aims(75.0)).finalists
    uniform = [index for index in found if known.measured[index].lam is not None]
    assert len(uniform) == 1 and len(found) <= finalists and len(found) > 1
    assert LAMS[uniform[0]] == 0.5  # the best of them within the budget


@pytest.mark.parametrize("share", [0.8, 0.9])
def test_the_uniform_lambda_beside_other_schedules_is_the_best_and_not_the_surest(share):
    """Beside schedules that lead every uniform lambda, even where a cheaper one stands by as a fallback."""
    splits = [{**uniform_params(0.5, num_knots=3), "split": 0.1 * i} for i in range(1, 6)]
    better = [point(params, 256, values=(0.8 + 0.01 * i, share * 45, 0.5)) for i, params in enumerate(splits)]
    known = evidence([*(point(uniform_params(lam, num_knots=3), 256) for lam in LAMS), *better])
    found = plan(known, config(finalists=3), aims(45.0)).finalists
    assert 0.46 in [known.measured[index].lam for index in found]
    assert any(known.measured[index].lam is None for index in found)


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


@pytest.mark.parametrize(("budget", "playing"), [(None, (0, 1)), (61.0, (0,)), (1e6, (0, 1)), (2.0, ())])
@pytest.mark.parametrize("cap", [50_000, 300_000, 3_000_000])
def test_the_numbers_of_responses_are_what_is_left_for_them(budget, playing, cap):
    """A parent within the budget may be the answer: it gets the finalists' repeats, not only their prompts."""
    found = plan(KNOWN, config(cap=cap), aims(budget))
    granted = allowance_of(KNOWN.measured, config(cap=cap), aims(budget))
    parents = [each.values[TOKENS] for each in KNOWN.measured[:2]]
    costs = sum(KNOWN.measured[index].values[TOKENS] for index in found.finalists) + sum(parents[i] for i in playing)
    once = sum(parents[i] for i in (0, 1) if i not in playing)
    expected = granted.num_final(costs, spent=KNOWN.num_tokens, once=once)
    assert found.num_responses == pytest.approx(expected, rel=0.1)
    prompts = granted.num_prompts(found.num_responses)
    assert found.num_parents == tuple(found.num_responses if i in playing else prompts for i in (0, 1))
    assert 64 <= found.num_responses <= 1024


def test_a_parent_that_cannot_be_the_answer_responds_once_to_each_prompt_of_the_finalists():
    found = plan(KNOWN, config(cap=300_000), replace(aims(61.0), num_confirm_prompts=100))
    assert found.num_parents == (found.num_responses, 100) and found.num_responses > 200
    found = plan(KNOWN, config(cap=300_000), aims(61.0))
    assert found.num_parents == (found.num_responses,) * 2


def test_tokens_that_the_search_left_are_confirmed_with():
    frugal = replace(KNOWN, costs=(1000,) * len(LAMS))
    costly = replace(KNOWN, costs=(33_000,) * len(LAMS))
    one, other = (plan(each, config(cap=300_000), aims(None)).num_responses for each in (frugal, costly))
    assert one > 1.5 * other


def test_a_ladder_without_an_end_has_what_there_is():
    one = evidence(KNOWN.measured[2:3])
    found = plan(one, config(), aims(60.0, num_confirm=77))
    assert (found.finalists, found.num_responses, found.num_parents) == ((0,), 77, (77, 77))
    assert found.combined([0.6]) == [0.6]  # nothing is expected of it


def test_what_the_search_expects_of_the_finalists():
    found = plan(KNOWN, config(), aims(64.0))
    assert found.expected == pytest.approx([truth(KNOWN.measured[i].params)[0] for i in found.finalists], abs=0.02)
    covariance = np.array(found.covariance)
    assert covariance.shape == (len(found.finalists),) * 2 and np.all(np.linalg.eigvalsh(covariance) > 0)
    assert np.sqrt(np.diag(covariance)) == pytest.approx(0.5 / 4096**0.5, rel=0.6)


def planned(*, deviation, correlation=0.0, shared=0.0, num_responses=400):
    covariance = deviation**2 * (correlation + (1 - correlation) * np.eye(2))
    return Plan((0, 1), num_responses, (9, 9), (0.6, 0.7), tuple(map(tuple, covariance.tolist())), shared)


def test_search_and_confirmation_count_as_much_as_they_know():
    """400 responses know an accuracy of .6 to within .0245."""
    seen = [0.7, 0.6]
    assert planned(deviation=1e-4).combined(seen) == pytest.approx([0.6, 0.7], abs=1e-3)  # the search knew
    assert planned(deviation=0.5).combined(seen) == pytest.approx(seen, abs=1e-3)  # the search knew nothing
    even = planned(deviation=(0.65 * 0.35 / 400) ** 0.5).combined(seen)
    assert even == pytest.approx([0.65, 0.65], abs=1e-6)
    more = planned(deviation=0.02, num_responses=4000).combined(seen)
    fewer = planned(deviation=0.02, num_responses=40).combined(seen)
    assert fewer[0] < even[0] < more[0] < 0.7


def test_the_first_of_the_finalists_are_combined_alone():
    """The testing may end before the last."""
    one = planned(deviation=0.02).combined([0.7])
    assert len(one) == 1 and 0.6 < one[0] < 0.7
    together = planned(deviation=0.02, correlation=0.9).combined([0.7, 0.7])
    assert together[0] > planned(deviation=0.02, correlation=0.9).combined([0.7])[0] - 0.02


def test_luck_that_the_finalists_share_moves_all_and_turns_no_order():
    """Both are 10 points better on the prompts of the confirmation: with shared luck that says little."""
    lucky = [0.7, 0.8]
    apart, together = (planned(deviation=0.02, shared=shared).combined(lucky) for shared in (0.0, 0.9))
    assert 0.6 < together[0] < apart[0] and 0.7 < together[1] < apart[1]
    turned = [0.65, 0.64]  # a difference says more if the luck is shared
    apart, together = (planned(deviation=0.02, shared=shared).combined(turned) for shared in (0.0, 0.9))
    assert together[1] - together[0] < apart[1] - apart[0]


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
        assert found.num_parents == (found.num_responses, found.num_responses)
        ends = points[0].cost + points[1].cost
        cost = found.num_responses * (ends + sum(points[i].cost for i in found.finalists))
        assert 0.9 * 135_000 < cost < 1.1 * 135_000


def test_with_guards_the_likeliest_is_tested_first():
    """The cheapest may well break a guard; to test it first could end the testing."""
    sure, doubtful = uniform_params(0.2, num_knots=3), {**uniform_params(0.1, num_knots=3), "split": 0.9}
    points = [
        point(uniform_params(0.0, num_knots=3), 4096, guard=0.8),
        point(uniform_params(1.0, num_knots=3), 4096, guard=0.2),
        point(sure, 4096, values=(0.6, 30.0, 0.0), guard=0.8),
        point(doubtful, 512, values=(0.75, 20.0, 0.0), guard=0.78),
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
        assert max(lost) < 0.2 and np.mean([each <= max_drop + 1e-9 for each in lost]) >= 0.6


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


def test_a_lambda_outside_the_parents_costs_nothing_of_theirs():
    far = point(uniform_params(1.3, num_knots=3), 4096, values=(0.7, 900.0, 1.0))
    one, other = (allowance_of(points, config(), aims(75.0)) for points in (KNOWN.measured, [*KNOWN.measured, far]))
    assert one == other


def test_a_parent_that_failed_costs_what_the_outermost_lambda_does_wherever_it_stands():
    """A surrogate of many schedules knows some of the measured ones alone, at other places."""
    near = point(uniform_params(0.9, num_knots=3), values=(0.8, 777.0, 1.0))
    known = evidence([KNOWN.measured[0], KNOWN.measured[2], near])
    granted = allowance_of(known.measured, config(), aims(75.0))
    for schedules in ([0.0, 0.9, 0.7], [0.3, 0.9, 0.0], [0.0, 0.5, 0.9]):
        asked = [Schedule.uniform(lam) for lam in schedules]
        draw = fit(known, config()).draw(asked, num_draws=16, seed=0)
        costs = _ParentCosts.of(draw, asked, known, aims(75.0), granted).costs
        assert costs == (KNOWN.measured[0].cost, 777.0)


LINE = [  # accuracy and tokens of line schedules by module, and of three with a scale that lead them
    ({"lam": 0.5}, (0.50, 50.0, 0.5)),
    ({"lam": 0.5, "split": 0.2}, (0.60, 52.0, 0.5)),
    ({"lam": 0.5, "split": 0.4}, (0.70, 54.0, 0.5)),
]
SCALED = [({"lam": 0.5, "stretch": 0.1 * i}, (0.86 + 0.02 * i, 56.0 + 2 * i, 0.5)) for i in range(1, 4)]


def beside_the_line(finalists):
    """The finalists of a search of which the schedules with a scale lead all on the line."""
    ends = [point(uniform_params(0.0, num_knots=3), 4096), point(uniform_params(1.0, num_knots=3), 4096)]
    own = [
        point({**uniform_params(0.5, num_knots=3), **params}, 4096, values=seen) for params, seen in (*LINE, *SCALED)
    ]
    known = evidence([*ends, *own])
    settings = replace(config(finalists=finalists), spaces=("uniform", "module", "scale"))
    return [known.measured[index].params for index in plan(known, settings, aims(75.0)).finalists]


def test_the_best_on_the_line_and_the_best_uniform_lambda_stand_beside_any_beyond_it():
    """They displace other schedules beyond the line, never each other."""
    found = beside_the_line(3)
    assert [each["split"] for each in found if not each.get("stretch")] == [0.0, 0.4]
    assert len(found) == 3
    found = beside_the_line(2)
    assert [bool(each.get("stretch")) for each in found] == [False, True] and found[0]["split"] == 0.4


def test_a_single_finalist_is_on_the_line():
    [found] = beside_the_line(1)
    assert not found.get("stretch") and found["split"] == 0.4
