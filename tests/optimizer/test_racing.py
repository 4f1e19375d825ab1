"""The race: how many tokens are too many in mid-rung, and which schedules are measured no further."""

import math

import numpy as np
import pytest
from made_up import GUARD as RULES
from made_up import RUNGS, aims, evidence, guarded_truth, point, settings_of

from autolambda.optimizer.racing import (
    GUARD,
    OFF_FRONT,
    OVER_BUDGET,
    Race,
    RungOutcome,
    bounds_of,
    most_tokens,
    stopped_for,
)
from autolambda.optimizer.space import to_schedule, uniform_params

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


def ended_for(found, *, budget=BUDGET, points=LADDER):
    known = evidence([*points, found])
    return stopped_for(found.schedule, known, CONFIG, aims(budget))


def test_one_far_over_the_budget_is_stopped():
    assert ended_for(point(at(0.8), RUNGS[0])) == OVER_BUDGET
    assert ended_for(point(at(0.8), RUNGS[0]), budget=1000.0) != OVER_BUDGET


def test_one_that_costs_more_for_less_is_stopped():
    assert ended_for(point(at(0.5, -0.4), values=(0.35, 58.0, 0.5))) == OFF_FRONT
    assert ended_for(point(at(0.5, -0.4), values=(0.35, 58.0, 0.5)), budget=None) == OFF_FRONT


@pytest.mark.parametrize("budget", [BUDGET, None])
def test_a_contender_goes_on(budget):
    assert ended_for(point(at(0.48, 0.2), RUNGS[0], values=(0.68, 52.0, 0.4)), budget=budget) is None
    assert ended_for(point(at(0.0, -0.2), RUNGS[0], values=(0.38, 8.0, 0.0)), budget=budget) is None  # the cheapest


@pytest.mark.parametrize("num_responses", [8, 16])
def test_few_responses_condemn_nothing_that_is_near(num_responses):
    found = point(at(0.52), num_responses, values=(0.5, 66.0, 0.6))
    assert ended_for(found, points=LADDER[:2]) is None
    assert ended_for(point(at(0.52), 4096, values=(0.5, 66.0, 0.6)), points=LADDER[:2]) == OVER_BUDGET


def test_the_same_evidence_gives_the_same_answer():
    found = point(at(0.55, 0.1), RUNGS[0], values=(0.6, 70.0, 0.7))
    assert ended_for(found) == ended_for(found)


def guarded_race(lam, *, max_drop=0.05, num_responses=1024, budget=BUDGET):
    """A race on a ladder whose guard accuracy falls to 0.3 between lambda 0.4 and 0.8."""
    points = [point(at(x), 1024, guard=guarded_truth(at(x))) for x in (0.0, 1.0, 0.5, 0.25, 0.9) if x != lam]
    known = evidence([*points, point(at(lam), num_responses, guard=guarded_truth(at(lam)))])
    return stopped_for(known.measured[-1].schedule, known, CONFIG, aims(budget, guards=((RULES, max_drop),)))


@pytest.mark.parametrize("budget", [80.0, None])
def test_one_that_breaks_a_guard_is_stopped(budget):
    assert guarded_race(0.45, budget=budget) == GUARD
    assert guarded_race(0.45, budget=budget, max_drop=0.9) is None
    assert guarded_race(0.2, budget=budget) is None


def test_few_responses_break_no_guard():
    near = point(at(0.45), 16, guard=0.7)
    ends = [point(at(lam), 64, guard=0.8) for lam in (0.0, 1.0)]
    known = evidence([*ends, near])
    assert stopped_for(near.schedule, known, CONFIG, aims(80.0, guards=((RULES, 0.05),))) is None


def test_the_ends_are_never_stopped_for_a_guard():
    """lambda 1 loses half of it, but the drop of all others is against the better end."""
    ends = [point(at(lam), 1024, guard=value) for lam, value in ((0.0, 0.8), (1.0, 0.3))]
    known = evidence([*ends, point(at(0.9), 1024, guard=0.3)])
    reasons = [stopped_for(each.schedule, known, CONFIG, aims(1e6, guards=((RULES, 0.05),))) for each in known.measured]
    assert reasons[1] != GUARD == reasons[2] and reasons[0] is None


def run_race(lam, measured, known, *, start=0, stop=RUNGS[-1], budget=BUDGET, aborted_at=None):
    """Runs a race with a list of observations, one a rung; the rung ``aborted_at`` is aborted."""
    asked, race = [], Race(to_schedule(at(lam)), start, stop, known, CONFIG, aims(budget))
    for number, rung in enumerate(race):
        asked.append(rung)
        is_aborted, num_tokens = number == aborted_at, 10 * (rung.stop - rung.start)
        race.tell(RungOutcome(None, num_tokens, 7.0) if is_aborted else RungOutcome(measured[number], num_tokens))
    return asked, race


def test_a_trial_of_the_ladder_has_no_limit_and_is_not_stopped():
    asked, end = run_race(1.0, [point(at(1.0), rung) for rung in RUNGS], evidence(LADDER[:1]), budget=5.0)
    assert [(rung.start, rung.stop, rung.max_tokens) for rung in asked] == [(0, 64, math.inf), (64, 256, math.inf)]
    assert end.stopped is None and end.observations.num_trials == 2
    assert end.observations.measured[-1].num_responses == 256 and end.observations.costs[-1] == 10 * 256


def test_a_race_ends_at_the_rung_that_shows_it_lost():
    asked, end = run_race(0.9, [point(at(0.9), 64)], evidence(LADDER), budget=30.0)
    assert [rung.stop for rung in asked] == [64] and asked[0].max_tokens == most_tokens(64, 30.0)
    assert end.stopped == OVER_BUDGET and not end.observations.censored
    assert end.observations.measured[-1].schedule == to_schedule(at(0.9))


def test_an_aborted_rung_leaves_a_lower_bound_alone():
    known = evidence(LADDER)
    asked, end = run_race(0.45, [point(at(0.45), 64)], known, aborted_at=1)
    assert len(asked) == 2 and end.stopped == OVER_BUDGET
    [censored] = end.observations.censored
    assert censored.tokens == 7.0 and end.observations.measured == known.measured
    assert end.observations.costs == (*known.costs, 10 * 256)


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (0, 64, [0, 64]),
        (0, 260, [0, 64, 260]),  # not for the last four alone
        (0, 320, [0, 64, 256, 320]),
        (64, 260, [64, 260]),
        (250, 600, [250, 600]),  # nor for the first six
        (0, 2000, [0, 64, 256, 1024, 2000]),
        (0, 40, [0, 40]),  # a small slice
        (256, 260, [256, 260]),  # what is left of a slice
    ],
)
def test_a_race_does_not_pause_for_a_few_responses(start: int, stop: int, expected: list[int]) -> None:
    assert bounds_of(start, stop, (64, 256, 1024, 2000)) == expected


def test_a_race_pauses_at_the_rungs_of_the_user() -> None:
    assert bounds_of(0, 256, (64, 96, 128, 256)) == [0, 64, 96, 128, 256]
    assert bounds_of(0, 300, (100, 150, 200, 300)) == [0, 100, 150, 200, 300]
    assert bounds_of(0, 40, (40,)) == [0, 40]
