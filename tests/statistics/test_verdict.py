"""The verdict beside the parents, by scores of search and confirmation, and the finalist that is likely."""

import math

import pytest

from autolambda.responses import Grade, Graded, Response
from autolambda.statistics.estimates import Bounds, chance_within
from autolambda.statistics.verdict import LEAST_PROMPTS, LIKELY, Confirmed, Verdict, confirmed_of, decide, verdict

BUDGET = 100.0


def confirmed(accuracy, tokens, reach=5.0, *, guard=True):
    bounds = Bounds(tokens - reach, tokens + reach)
    chance = chance_within(tokens, bounds, budget=BUDGET)
    return Confirmed(accuracy, tokens, bounds.lower, bounds.upper, guard is True, guard is False, chance)


def decided(finalists, *, lower=None, **more):
    return decide(finalists, budget=BUDGET, difference_lower=lambda i, j: (lower or {}).get(i, -1.0), **more)


PARENTS = {
    "both are too long": ({"instruct": confirmed(0.9, 120), "thinking": confirmed(0.95, 300)}, None),
    "one may be too long": ({"instruct": confirmed(0.9, 97), "thinking": confirmed(0.95, 300)}, None),
    "less accurate": ({"instruct": confirmed(0.6, 30), "thinking": confirmed(0.95, 300)}, None),
    "more accurate": ({"instruct": confirmed(0.8, 30), "thinking": confirmed(0.95, 300)}, "instruct"),
    "as accurate": ({"instruct": confirmed(0.7, 30), "thinking": confirmed(0.95, 300)}, "instruct"),
    "the better of both": ({"instruct": confirmed(0.8, 30), "thinking": confirmed(0.9, 80)}, "thinking"),
    "the cheaper of equals": ({"thinking": confirmed(0.8, 80), "instruct": confirmed(0.8, 30)}, "instruct"),
    "one that breaks a guard": ({"instruct": confirmed(0.8, 30, guard=False)}, None),
}


@pytest.mark.parametrize("name", PARENTS)
def test_a_parent_within_the_budget_that_no_merge_surpasses_is_the_answer(name):
    parents, expected = PARENTS[name]
    decision = decided([confirmed(0.7, 60)], parents=parents)
    assert (decision.verdict, decision.parent) == (Verdict.FEASIBLE, expected)
    assert (decision.pick, decision.best, decision.passed) == (0, 0, (0,))  # the best merge is told all the same


def test_a_parent_within_the_budget_is_an_answer_if_no_merge_is():
    for finalists in ([confirmed(0.9, 98)], [confirmed(0.9, 150)]):
        decision = decided(finalists, parents={"instruct": confirmed(0.5, 30)})
        assert (decision.verdict, decision.parent, decision.pick) == (Verdict.FEASIBLE, "instruct", None)
    assert decided([confirmed(0.9, 150)], parents={"instruct": confirmed(0.5, 150)}).verdict is Verdict.INFEASIBLE


def test_a_parent_is_compared_with_the_score_and_not_with_the_luck_of_the_confirmation():
    parents = {"instruct": confirmed(0.75, 30)}
    lucky = [confirmed(0.8, 60)]
    assert decided(lucky, parents=parents).parent is None
    assert decided(lucky, parents=parents, scores=[0.72]).parent == "instruct"
    assert decided([confirmed(0.7, 60)], parents=parents, scores=[0.78]).parent is None


def test_a_cheaper_pick_does_not_help_a_parent():
    """The pick may be a cheaper one that loses less than the margin; the most accurate is what a parent must reach."""
    finalists, parents = [confirmed(0.7, 40), confirmed(0.8, 60)], {"instruct": confirmed(0.75, 30)}
    decision = decided(finalists, lower={0: -0.005}, parents=parents)
    assert (decision.pick, decision.best, decision.parent) == (0, 1, None)


def test_the_pick_has_the_highest_score():
    finalists = [confirmed(0.7, 40), confirmed(0.72, 60), confirmed(0.9, 150)]
    assert decided(finalists).pick == 1
    assert decided(finalists, scores=[0.71, 0.69, 0.9]).pick == 0
    assert decided(finalists, scores=[0.7, 0.7, 0.9]).pick == 0  # of equals the cheaper


UNIFORM = {  # accuracy and tokens of each finalist, the uniform ones, and what is best, picked and passed over
    "a lead below the margin": ([(0.70, 50), (0.705, 60)], {0}, (0, 0, 1)),
    "a lead of the margin": ([(0.70, 50), (0.71, 60)], {0}, (1, 1, None)),
    "none is uniform": ([(0.70, 50), (0.705, 60)], set(), (1, 1, None)),
    "all are uniform": ([(0.70, 50), (0.705, 60)], {0, 1}, (1, 1, None)),
    "the uniform one leads": ([(0.70, 50), (0.705, 60)], {1}, (1, 1, None)),
    "the uniform one is too long": ([(0.70, 50), (0.705, 150)], {1}, (0, 0, None)),
    "the best of two uniform ones": ([(0.69, 40), (0.70, 50), (0.705, 60)], {0, 1}, (1, 1, 2)),
}


@pytest.mark.parametrize("name", UNIFORM)
def test_a_uniform_lambda_is_preferred_unless_another_schedule_leads_by_the_margin(name):
    numbers, uniform, expected = UNIFORM[name]
    decision = decided([confirmed(*each) for each in numbers], margin=0.01, uniform=uniform)
    assert (decision.best, decision.pick, decision.passed_over) == expected
    within = [i for i in uniform if numbers[i][1] < BUDGET]
    assert decision.uniform == (max(within, key=lambda i: numbers[i]) if within else None)


def test_the_lead_of_a_schedule_is_the_expected_one():
    finalists = [confirmed(0.70, 50), confirmed(0.73, 60)]
    assert decided(finalists, uniform={0}).pick == 1
    assert decided(finalists, uniform={0}, scores=[0.70, 0.708]).pick == 0  # the confirmation was lucky


def test_what_is_cheaper_than_a_preferred_uniform_lambda_is_uniform_and_keeps_up_with_the_most_accurate():
    finalists = [confirmed(0.698, 30), confirmed(0.699, 40), confirmed(0.70, 50), confirmed(0.705, 60)]
    pick = decided(finalists, lower={0: -0.005, 1: -0.005}, uniform={1, 2}).pick
    assert pick == 1  # 0 is cheaper, but no simpler
    assert decided(finalists, lower={1: -0.011}, uniform={1, 2}).pick == 2


FAR = {  # accuracy and tokens, the paired bound of the second, and what is picked, beyond the line, and its rival
    "shown to be better": ([(0.70, 50), (0.74, 60)], 0.01, (1, 1, 0)),
    "not shown": ([(0.70, 50), (0.74, 60)], -0.001, (0, 1, 0)),
    "by less than the margin": ([(0.70, 50), (0.705, 60)], 0.001, (0, 1, 0)),
    "less accurate": ([(0.70, 50), (0.60, 60)], -0.1, (0, None, None)),
    "the only one within the budget": ([(0.70, 150), (0.60, 60)], -0.1, (None, None, None)),
    "the cheaper and better one": ([(0.70, 50), (0.74, 40)], 0.01, (1, 1, 0)),
    "a cheaper one that is as good": ([(0.70, 50), (0.701, 40)], -0.005, (0, 1, 0)),
}


@pytest.mark.parametrize("name", FAR)
def test_a_schedule_beyond_the_line_must_be_shown_to_beat_the_best_on_it(name):
    numbers, bound, (pick, beyond, line) = FAR[name]
    decision = decided([confirmed(*each) for each in numbers], lower={1: bound}, uniform={0}, beyond={1})
    assert (decision.pick, decision.beyond, decision.line) == (pick, beyond, line)


def test_without_a_rival_on_the_line_a_schedule_beyond_it_is_picked():
    decision = decided([confirmed(0.6, 60), confirmed(0.7, 150)], beyond={0}, uniform={1})
    assert (decision.pick, decision.beyond, decision.line) == (0, None, None)


def by_pair(finalists, lower, **more):
    """The decision if these pairs of finalists, or of a finalist and a parent, have these lower bounds."""
    return decide(finalists, budget=BUDGET, difference_lower=lambda i, j: lower.get((i, j), -1.0), **more)


def test_a_cheaper_pick_beyond_the_line_must_be_shown_to_beat_it_too():
    finalists = [confirmed(0.70, 40), confirmed(0.739, 50), confirmed(0.74, 60)]
    lower = {(2, 0): 0.01, (0, 2): -0.005, (1, 2): -0.005}
    assert by_pair(finalists, lower, beyond={1, 2}, uniform={0}).pick == 2
    decision = by_pair(finalists, lower | {(1, 0): 0.01}, beyond={1, 2}, uniform={0})
    assert (decision.pick, decision.best, decision.beyond, decision.line) == (1, 2, 2, 0)
    decision = by_pair(finalists, lower | {(1, 0): 0.01}, beyond={1, 2}, uniform={0}, margin=0.0395)
    assert decision.pick == 2  # the cheaper one leads by less than the margin


def test_a_schedule_beyond_the_line_must_be_shown_to_beat_a_parent_within_the_budget():
    finalists, parents = [confirmed(0.70, 50), confirmed(0.74, 60)], {"instruct": confirmed(0.69, 30)}
    lower, given = {(1, 0): 0.01}, {"beyond": {1}, "uniform": {0}}
    decision = by_pair(finalists, lower, parents=parents, **given)
    assert (decision.pick, decision.parent, decision.beyond, decision.rival) == (0, None, 1, "instruct")
    decision = by_pair(finalists, lower | {(1, "instruct"): 0.01}, parents=parents, **given)
    assert (decision.pick, decision.parent, decision.beyond, decision.rival) == (1, None, 1, None)
    too_long = {"instruct": confirmed(0.69, 130)}
    assert by_pair(finalists, lower, parents=too_long, **given).pick == 1
    alone = by_pair(finalists[1:], {}, parents=parents, beyond={0})
    assert (alone.pick, alone.parent, alone.beyond, alone.line, alone.rival) == (None, "instruct", 0, None, "instruct")
    shown = by_pair(finalists[1:], {(0, "instruct"): 0.01}, parents=parents, beyond={0})
    assert (shown.pick, shown.parent, shown.beyond) == (0, None, None)


def test_on_the_line_a_uniform_lambda_is_preferred_as_before():
    finalists = [confirmed(0.700, 50), confirmed(0.705, 60), confirmed(0.72, 70)]
    decision = decided(finalists, uniform={0}, beyond={2})
    assert (decision.pick, decision.passed_over, decision.beyond, decision.line) == (0, 1, 2, 1)


def test_a_parent_needs_only_reach_the_uniform_lambda_that_would_be_picked():
    finalists, parents = [confirmed(0.70, 50), confirmed(0.705, 60)], {"instruct": confirmed(0.702, 30)}
    assert decided(finalists, uniform={0}, parents=parents).parent == "instruct"
    assert decided(finalists, parents=parents).parent is None


LIKELY_ONES = {
    "surely too long": ([confirmed(0.6, 60), confirmed(0.9, 150)], None),
    "an even chance": ([confirmed(0.6, 60), confirmed(0.9, 100)], None),
    "nearly proven": ([confirmed(0.6, 60), confirmed(0.9, 97)], 1),
    "nearly proven and worse": ([confirmed(0.6, 60), confirmed(0.5, 97)], None),
    "the most accurate of them": ([confirmed(0.6, 60), confirmed(0.8, 96), confirmed(0.9, 97)], 2),
    "no answer at all": ([confirmed(0.6, 97)], 0),
    "never tested": ([confirmed(0.6, 60), confirmed(0.7, 150), confirmed(0.9, 50)], 2),
    "all pass": ([confirmed(0.6, 60), confirmed(0.9, 80)], None),
}


@pytest.mark.parametrize("name", LIKELY_ONES)
def test_the_likely_one_is_better_than_the_answer_and_not_proven(name):
    finalists, expected = LIKELY_ONES[name]
    decision = decided(finalists)
    assert decision.likely == expected
    assert expected is None or (finalists[expected].chance >= LIKELY and expected not in decision.passed)


def test_the_likely_one_is_better_than_a_parent_that_is_the_answer():
    finalists = [confirmed(0.6, 60), confirmed(0.9, 97)]
    assert decided(finalists, parents={"instruct": confirmed(0.8, 30)}).likely == 1
    assert decided(finalists, parents={"instruct": confirmed(0.95, 30)}).likely is None
    assert decided(finalists, scores=[0.6, 0.55]).likely is None  # by score


def test_the_likely_one_changes_neither_verdict_nor_pick():
    decision = decided([confirmed(0.6, 97)])
    assert (decision.verdict, decision.pick, decision.likely) == (Verdict.UNCERTAIN, None, 0)


def responses(num_correct, tokens, *, count=40):
    return [
        Graded(
            "t",
            str(i),
            0,
            Response("x", tokens + (i % 2 or -1) * tokens // 4, "stop"),
            Grade.CORRECT if i < num_correct else Grade.WRONG,
            "x",
            False,
        )
        for i in range(count)
    ]


def test_the_numbers_of_a_confirmed_schedule():
    found = confirmed_of(responses(30, 80), budget=85.0, weights={"t": 1.0})
    assert found.accuracy == 0.75 and found.mean_tokens == 80.0 and found.keeps and not found.breaks
    assert found.tokens_lower < 80.0 < found.tokens_upper
    bounds = Bounds(found.tokens_lower, found.tokens_upper)
    assert found.chance == chance_within(80.0, bounds, budget=85.0) and 0.5 < found.chance < 1.0


def test_a_verdict_hears_the_search_and_the_parents():
    graded = [responses(30, 40), responses(31, 60)]
    weights, parent = {"t": 1.0}, confirmed_of(responses(29, 8), budget=100.0, weights={"t": 1.0})
    plain = verdict(graded, budget=100.0, margin=0.0, weights=weights)
    assert (plain.pick, plain.parent) == (1, None)

    def combined(accuracies):
        assert accuracies == [30 / 40, 31 / 40]
        return [0.74, 0.7]

    swayed = verdict(graded, budget=100.0, margin=0.0, weights=weights, combined=combined)
    assert swayed.pick == 0
    beaten = verdict(
        graded,
        budget=100.0,
        margin=0.0,
        weights=weights,
        combined=lambda seen: [0.6, 0.7],
        parents={"instruct": parent},
    )
    assert beaten.parent == "instruct" and beaten.verdict is Verdict.FEASIBLE


def test_an_unknown_bound_has_no_chance():
    unknown = Confirmed(0.5, 60, 50, math.nan)
    assert decided([unknown]).likely is None


@pytest.mark.parametrize("tokens", [10, 1000])
def test_too_few_prompts_show_nothing(tokens):
    def responses(num_prompts, length):
        return [
            Graded("t", str(i), 0, Response("", length + i % 3, "stop"), Grade.CORRECT, "1", False)
            for i in range(num_prompts)
        ]

    def found(num_prompts):
        parent = confirmed_of(responses(num_prompts, 1), budget=BUDGET, weights={"t": 1.0})
        return verdict(
            [responses(num_prompts, tokens)],
            budget=BUDGET,
            margin=0.01,
            weights={"t": 1.0},
            parents={"instruct": parent} if tokens < BUDGET else {},
        )

    few = found(LEAST_PROMPTS - 1)
    assert (few.verdict, few.pick, few.parent, few.likely) == (Verdict.UNCERTAIN, None, None, None)
    assert found(LEAST_PROMPTS).verdict is (Verdict.FEASIBLE if tokens < BUDGET else Verdict.INFEASIBLE)
