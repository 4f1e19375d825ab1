"""What a response costs where tasks differ, from points whose cost is known."""

from dataclasses import replace

import pytest
from made_up import point

from autolambda.box import uniform_params
from autolambda.evidence import cost_at, near
from autolambda.surrogate import TOKENS

POINTS = [point(uniform_params(lam, num_knots=3), 64) for lam in (0.0, 0.42, 0.44, 0.46, 0.5, 0.54, 1.0)]  # 10 to 110


def test_one_task_costs_its_mean_to_the_bit():
    assert all(each.cost == each.observation.values[TOKENS] and each.cost_ratio == 1.0 for each in POINTS)
    assert cost_at(POINTS, 1 / 3) == 1 / 3


def test_the_nearest_points_by_tokens():
    lengths = [each.observation.values[TOKENS] for each in near(POINTS, 55.0)]
    assert lengths == pytest.approx([60.0, 40.0, 80.0, 30.0, 20.0])


def test_a_cost_is_judged_by_near_points():
    """A guard whose answers are always short: where the others are long, a response costs less than they."""
    mixed = [
        replace(each, num_guarding=32, tokens_a_response=(each.observation.values[TOKENS] + 10) / 2) for each in POINTS
    ]
    assert mixed[0].cost == 10.0 and mixed[-1].cost == 60.0 and mixed[0].counted == 0.5
    assert 10.0 < cost_at(mixed, 20.0) < 20.0
    assert cost_at(mixed, 200.0) == pytest.approx(200.0 * 50 / 80, rel=0.1)
