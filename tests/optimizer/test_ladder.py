"""The ladder: which uniform lambda comes next, what failed is passed over, and when no further one is needed."""

import itertools

import pytest

from autolambda.optimizer.aims import Aims
from autolambda.optimizer.ladder import KNOWN_WITHIN, LADDER_SHARE, LEAST_POINTS, is_known, next_lambda, paced
from autolambda.optimizer.token_allowance import TokenAllowance
from autolambda.statistics.curve import CurvePoint
from autolambda.statistics.pace import Pace
from autolambda.statistics.stages import detect_stages


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([], 0.0),
        ([(0.0, 0.0)], 1.0),
        ([(1.0, 1.0)], 0.0),
        ([(0.0, 0.0), (1.0, 1.0)], 0.5),
        ([(0.0, 0.0), (0.5, 0.1), (1.0, 1.0)], 0.75),
        ([(0.0, 0.0), (0.5, 0.9), (1.0, 1.0)], 0.25),
        ([(1.0, 1.0), (0.5, 0.9), (0.0, 0.0)], 0.25),  # in any order
        ([(0.0, 0.0), (0.5, 0.0), (1.0, 0.0)], 0.25),  # a flat curve: the lower half first
        ([(0.0, 0.0), (0.25, 0.0), (0.5, 0.0), (1.0, 0.0)], 0.75),  # then the widest gap
        ([(0.0, 0.5), (0.5, 0.0), (0.5, 0.9), (1.0, 0.9)], 0.25),  # one lam twice has no middle
    ],
)
def test_the_next_lambda(curve, expected):
    assert next_lambda(curve) == expected


@pytest.mark.parametrize(
    ("curve", "failed", "expected"),
    [
        ([], {0.0}, 1.0),
        ([(0.0, 0.0)], {1.0}, 0.5),  # an end that failed: the range goes on to it
        ([(1.0, 1.0)], {0.0}, 0.5),
        ([], {0.0, 1.0}, 0.5),
        ([(0.5, 0.3)], {0.0, 1.0}, 0.25),
        ([(0.5, 0.9), (1.0, 1.0)], {0.0}, 0.75),  # beside it no rise is known: the measured one goes first
        ([(0.5, 1.0), (1.0, 1.0)], {0.0}, 0.25),
        ([(0.0, 0.0), (1.0, 1.0)], {0.5}, 0.25),
        ([(0.0, 0.0), (1.0, 1.0)], {0.5, 0.25}, 0.125),
        ([(0.0, 0.0), (0.25, 0.0), (1.0, 1.0)], {0.5}, 0.625),
        ([(0.0, 0.0), (0.5, 0.1), (1.0, 1.0)], {0.75}, 0.625),  # the steepest rise stays the one to halve
        ([(0.0, 0.0), (0.5, 0.1), (1.0, 1.0)], {0.1}, 0.75),
        ([(0.0, 0.5), (0.5, 0.0), (0.5, 0.9), (1.0, 0.9)], {0.5, 0.0}, 0.25),  # failed once, measured later
    ],
)
def test_the_next_lambda_passes_over_what_failed(curve, failed, expected):
    assert next_lambda(curve, failed) == expected


def climbed(lams, *, num_prompts=10_000):
    """The points of a curve that rises from 0 at 0.4 to 1 at 0.6."""
    return [CurvePoint(lam, min(1.0, max(0.0, (lam - 0.4) * 5)), num_prompts) for lam in lams]


@pytest.mark.parametrize("curve", [[], climbed([0.0]), climbed([0.5, 0.5])])
def test_fewer_than_two_lambdas_tell_nothing(curve):
    assert not is_known(curve)


def test_a_curve_is_known_where_both_boundaries_are_narrow_and_not_before():
    lams, known = [0.0, 1.0], []
    while not (known and known[-1]):
        lams.append(next_lambda([(point.lam, point.think_ratio) for point in climbed(lams)]))
        known.append(is_known(climbed(lams)))
        assert len(lams) < 40
        for boundary in (detect_stages(climbed(lams)).emergence, detect_stages(climbed(lams)).saturation):
            assert not known[-1] or boundary.high - boundary.low <= 2 * KNOWN_WITHIN
    assert len(known) >= 4 and not any(known[:-1])


def test_few_prompts_leave_the_boundaries_open():
    lams = [i / 64 for i in range(0, 65)]
    assert is_known(climbed(lams)) and not is_known(climbed(lams[::4], num_prompts=3))


@pytest.mark.parametrize("ratios", [[0.0, 0.0, 0.0], [0.0, 0.5, 0.6], [1.0, 1.0, 1.0]])
def test_a_boundary_that_is_not_there_is_not_known(ratios):
    assert not is_known([CurvePoint(lam, ratio, 10_000) for lam, ratio in zip((0.0, 0.5, 1.0), ratios, strict=True)])


def test_a_long_ladder_gathers_where_the_ratio_rises():
    lams = []
    for _ in range(16):
        lams.append(next_lambda([(point.lam, point.think_ratio) for point in climbed(lams)]))
    assert len(set(lams)) == 16 and sum(0.4 <= lam <= 0.6 for lam in lams) >= 6
    assert max(b - a for a, b in itertools.pairwise(sorted(lams))) <= 0.25


AIMS = Aims(1500.0, (64, 256, 1024, 4000), 1000, 500)


@pytest.mark.parametrize(
    ("pace", "expected"),
    [
        (Pace(6e-3, 3e-5, longest=1.0), (200, 1024, 4000)),  # the tail is half of a call of 200
        (Pace(6e-3, 3e-5, longest=0.5), (100, 256, 1024, 4000)),
        (Pace(1e-5, 3e-5, longest=4.0), (64, 256, 1024, 4000)),  # a CPU: the steps cost next to nothing
        (Pace(6e-3, 0.0, longest=4.0), (360, 1024, 4000)),  # rows cost nothing to speak of
        (Pace(6e-3, 3e-6, longest=4.0), (360, 1024, 4000)),  # as the tokens allow
    ],
)
def test_the_first_rung_grows_until_a_call_does_not_mostly_wait(pace, expected):
    allowance = TokenAllowance(total=12e6, ends=3000.0, num_confirm=1000, num_confirm_prompts=500)
    grown = paced(AIMS, pace, allowance)
    assert grown.rungs == expected
    assert LEAST_POINTS * grown.rungs[0] * allowance.ends / 2 <= LADDER_SHARE * allowance.search


def test_a_grown_rung_is_at_most_the_whole_slice():
    allowance = TokenAllowance(total=12e6, ends=3000.0, num_confirm=1000, num_confirm_prompts=500)
    few = Aims(1500.0, (64, 90), 100, 100)
    assert paced(few, Pace(6e-3, 3e-5, longest=4.0), allowance).rungs == (90,)
