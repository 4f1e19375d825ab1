"""The race: how many tokens are too many in mid-rung, and which schedules are measured no further."""

import math

import numpy as np
import pytest
from made_up import GUARD as RULES
from made_up import RUNGS, aims, evidence, guarded_truth, point, settings_of

from autolambda.optimizer.racing import GUARD, OFF_FRONT, OVER_BUDGET, most_tokens, stopped_for
from autolambda.optimizer.space import uniform_params

CONFIG = settings_of(ladder=4)
BUDGET = 60.0


def at(lam, split=0.0):
    return {**uniform_params(lam, num_knots=3), "split": split}


LADDER = [point(at(lam)) for lam in (0.0, 1.0, 0.5, 0.4, 0.6)]


@pytest.mark.parametrize(
    ("num_responses", "expected"), [(1, 4 * 30.0), (9, 9 * 30.0 * 2), (900, 900 * 30.0 * 1.1), (10**6, 3.009e7)]
)
def test_the_most_tokens_of_a_rung(num_responses, expected):
    assert most_tokens(num_responses, 30.0) == pytest.approx(expected)


def test_without_a_budget_no_tokens_are_too_many():
    assert most_tokens(128, None) == math.inf


def test_lengths_at_the_budget_are_hardly_ever_too_many():
    """Exponential ones, which vary as much as they are long."""
    rng = np.random.default_rng(0)
    sums = rng.exponential(30.0, size=(20_000, 64)).sum(axis=1)
    assert 1e-4 < (sums > most_tokens(64, 30.0)).mean() < 0.01


def race(found, *, budget=BUDGET, points=LADDER):
    known = evidence([*points, found])
    return stopped_for(found.observation.schedule, known, CONFIG, aims(budget))


def test_one_far_over_the_budget_is_stopped():
    assert race(point(at(0.8), RUNGS[0])) == OVER_BUDGET
    assert race(point(at(0.8), RUNGS[0]), budget=1000.0) != OVER_BUDGET


def test_one_that_costs_more_for_less_is_stopped():
    assert race(point(at(0.5, -0.4), values=(0.35, 58.0, 0.5))) == OFF_FRONT
    assert race(point(at(0.5, -0.4), values=(0.35, 58.0, 0.5)), budget=None) == OFF_FRONT


@pytest.mark.parametrize("budget", [BUDGET, None])
def test_a_contender_goes_on(budget):
    assert race(point(at(0.48, 0.2), RUNGS[0], values=(0.68, 52.0, 0.4)), budget=budget) is None
    assert race(point(at(0.0, -0.2), RUNGS[0], values=(0.38, 8.0, 0.0)), budget=budget) is None  # the cheapest


@pytest.mark.parametrize("num_responses", [8, 16])
def test_few_responses_condemn_nothing_that_is_near(num_responses):
    found = point(at(0.52), num_responses, values=(0.5, 66.0, 0.6))
    assert race(found, points=LADDER[:2]) is None
    assert race(point(at(0.52), 4096, values=(0.5, 66.0, 0.6)), points=LADDER[:2]) == OVER_BUDGET


def test_the_same_evidence_gives_the_same_answer():
    found = point(at(0.55, 0.1), RUNGS[0], values=(0.6, 70.0, 0.7))
    assert race(found) == race(found)


def guarded_race(lam, *, max_drop=0.05, num_responses=1024, budget=BUDGET):
    """A race on a ladder whose guard accuracy falls to 0.3 between lambda 0.4 and 0.8."""
    points = [point(at(x), 1024, guard=guarded_truth(at(x))) for x in (0.0, 1.0, 0.5, 0.25, 0.9) if x != lam]
    known = evidence([*points, point(at(lam), num_responses, guard=guarded_truth(at(lam)))])
    return stopped_for(known.points[-1].observation.schedule, known, CONFIG, aims(budget, guards=((RULES, max_drop),)))


@pytest.mark.parametrize("budget", [80.0, None])
def test_one_that_breaks_a_guard_is_stopped(budget):
    assert guarded_race(0.45, budget=budget) == GUARD
    assert guarded_race(0.45, budget=budget, max_drop=0.9) is None
    assert guarded_race(0.2, budget=budget) is None


def test_few_responses_break_no_guard():
    near = point(at(0.45), 16, guard=0.7)
    ends = [point(at(lam), 64, guard=0.8) for lam in (0.0, 1.0)]
    known = evidence([*ends, near])
    assert stopped_for(near.observation.schedule, known, CONFIG, aims(80.0, guards=((RULES, 0.05),))) is None


def test_the_ends_are_never_stopped_for_a_guard():
    """lambda 1 loses half of it, but the drop of all others is against the better end."""
    ends = [point(at(lam), 1024, guard=value) for lam, value in ((0.0, 0.8), (1.0, 0.3))]
    known = evidence([*ends, point(at(0.9), 1024, guard=0.3)])
    reasons = [
        stopped_for(each.observation.schedule, known, CONFIG, aims(1e6, guards=((RULES, 0.05),)))
        for each in known.points
    ]
    assert reasons[1] != GUARD == reasons[2] and reasons[0] is None
