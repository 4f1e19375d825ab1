"""What a response costs where tasks differ, from points whose cost is known."""

import time
from dataclasses import replace

import numpy as np
import pytest
from made_up import point, settings_of, truth

from autolambda.optimizer.aims import Aims
from autolambda.optimizer.observations import (
    ACCURACY,
    MOST_POINTS,
    TOKENS,
    Observations,
    cost_at,
    leading,
    near,
    part_of,
)
from autolambda.optimizer.racing import stopped_for
from autolambda.optimizer.space import ranges, uniform_params
from autolambda.optimizer.surrogate import Surrogate
from autolambda.statistics.estimates import Z_95, wilson

POINTS = [point(uniform_params(lam, num_knots=3), 64) for lam in (0.0, 0.42, 0.44, 0.46, 0.5, 0.54, 1.0)]  # 10 to 110


def test_one_task_costs_its_mean_to_the_bit():
    assert all(each.cost == each.values[TOKENS] and each.cost_ratio == 1.0 for each in POINTS)
    assert cost_at(POINTS, 1 / 3) == 1 / 3


def test_the_nearest_points_by_tokens():
    lengths = [each.values[TOKENS] for each in near(POINTS, 55.0)]
    assert lengths == pytest.approx([60.0, 40.0, 80.0, 30.0, 20.0])


def test_a_cost_is_judged_by_near_points():
    """A guard whose answers are always short: where the others are long, a response costs less than they."""
    mixed = [replace(each, num_guarding=32, tokens_per_response=(each.values[TOKENS] + 10) / 2) for each in POINTS]
    assert mixed[0].cost == 10.0 and mixed[-1].cost == 60.0 and mixed[0].counted == 0.5
    assert 10.0 < cost_at(mixed, 20.0) < 20.0
    assert cost_at(mixed, 200.0) == pytest.approx(200.0 * 50 / 80, rel=0.1)


def many(num_points):
    """Points all over the box, measured with the luck of 64 responses, after some uniform ones."""
    rng = np.random.default_rng(0)
    found = [point(uniform_params(lam, num_knots=3), 64) for lam in np.linspace(0, 1, 9).round(3)]
    while len(found) < num_points:
        params = {name: round(float(rng.uniform(*span)) / 2, 3) for name, span in ranges(3).items() if name != "lam"}
        params = {"lam": round(float(rng.uniform(0.1, 0.9)), 3), **params}
        accuracy, tokens, ratio = truth(params)
        lucky = min(max(accuracy + float(rng.normal(0, 0.06)), 0.02), 0.98)
        found.append(point(params, 64, values=(lucky, tokens * float(np.exp(rng.normal(0, 0.07))), ratio)))
    return found


def test_few_points_all_lead():
    points = many(30)
    assert leading(points, num_knots=3) == points and leading(points, num_knots=3, most=30) == points


def test_of_many_points_the_model_keeps_the_uniform_those_near_the_front_and_some_of_all():
    points = many(300)
    about = points[150].schedule
    kept = leading(points, num_knots=3, about=about, most=100)
    assert len(kept) == 100 and kept == [each for each in points if each in kept]
    assert all(each in kept for each in points if each.lam is not None)
    assert about in {each.schedule for each in kept}
    places = [points.index(each) for each in kept]
    assert all(any(low <= place < low + 50 for place in places) for low in range(0, 300, 50))


def test_what_leads_is_near_the_front_in_scale_too():
    """The front has a scale of 1.4; half of the others have it too, the other half are on the line below them."""
    splits = np.linspace(-0.5, 0.5, 40).round(3).tolist()
    pairs = [
        point({**uniform_params(0.5, num_knots=3), "split": split, "stretch": stretch}, 64, values=(0.6, 60.0, 0.5))
        for split in splits
        for stretch in (0.0, 0.4)
    ]
    best = point({**uniform_params(0.5, num_knots=3), "stretch": 0.4}, 64, values=(0.9, 20.0, 0.5))
    kept = leading([best, *pairs], num_knots=3, beyond=True, most=20)
    scaled = [each for each in pairs if each.params["stretch"] and abs(each.params["split"]) < 0.1]
    assert len(scaled) == 8 and all(each in kept for each in scaled)


def test_what_leads_predicts_nearly_as_well_as_all():
    """Against the truth, and without believing luck: the intervals hold it as often as those of all points."""
    points = many(300)
    true = np.array([truth(each.params)[0] for each in points[::3]])
    errors, covered = [], []
    for chosen in (points, leading(points, num_knots=3)):
        model = Surrogate(chosen, num_knots=3)
        found = model.predict([each.schedule for each in points[::3]], ACCURACY)
        errors.append(float(np.sqrt(np.square(found.value - true).mean())))
        covered.append(float(((found.low <= true) & (true <= found.high)).mean()))
    assert errors[1] < 1.25 * errors[0] and covered[1] > covered[0] - 0.03


def test_a_decision_among_thousands_takes_no_longer_than_among_some_hundred():
    aims = Aims(budget=60.0, rungs=(64, 256), num_confirm=256, num_confirm_prompts=256)
    config = settings_of(knots=3)
    seconds = []
    for size in (MOST_POINTS, 2000):
        points = many(size)
        began = time.process_time()
        stopped_for(points[20].schedule, Observations(points, costs=(1,) * size), config, aims)
        seconds.append(time.process_time() - began)
    assert seconds[1] < 2 * seconds[0] + 1.0


def outcomes_of(num_prompts, *, seed=0, repeats=1):
    """Responses [n, 2] (correct, tokens) to so many prompts, and the numbers of the prompts."""
    rng = np.random.default_rng(seed)
    size = num_prompts * repeats
    return np.stack([rng.random(size) < 0.6, rng.lognormal(4, 0.5, size)], axis=1), np.arange(size) % num_prompts


def test_nothing_is_no_part():
    assert part_of(np.array([], dtype=np.int64), np.zeros((0, 2)), np.zeros(0)) is None
    assert part_of(np.array([3]), np.ones((1, 2)), np.zeros(1)) is None  # it counts for nothing


def test_the_means_and_errors_of_a_part():
    outcomes, prompts = outcomes_of(400)
    found = part_of(prompts + 7, outcomes, np.full(400, 0.25))
    assert found.values == pytest.approx(outcomes.mean(axis=0))
    assert found.errors == pytest.approx(outcomes.std(axis=0, ddof=1) / 20, rel=0.02)
    assert found.prompts.tolist() == list(range(7, 407))
    assert found.prompt_effects == pytest.approx(outcomes - outcomes.mean(axis=0))


def test_the_weights_of_a_part_are_those_of_the_tasks():
    outcomes = np.array([[1.0, 10.0], [0.0, 40.0], [1.0, 90.0]])
    found = part_of(np.array([0, 1, 1]), outcomes, np.array([2.0, 1.0, 1.0]))
    assert found.values == pytest.approx((0.75, 37.5))
    assert found.prompt_effects == pytest.approx(np.array([[0.25, -27.5], [-0.25, 27.5]]))  # means of each prompt


def test_repeats_of_the_same_answers_make_no_error_smaller():
    outcomes, prompts = outcomes_of(50)
    once, often = (part_of(np.tile(prompts, n), np.tile(outcomes, (n, 1)), np.ones(50 * n)) for n in (1, 8))
    assert often.values == pytest.approx(once.values) and often.errors == pytest.approx(once.errors, rel=0.02)
    fresh, places = outcomes_of(50, repeats=8)
    assert part_of(places, fresh, np.ones(400)).errors[1] < 0.6 * often.errors[1]


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_equal_responses_are_not_certain(size):
    found = part_of(np.arange(size), np.tile([1.0, 50.0], (size, 1)), np.ones(size))
    assert found.errors[0] >= wilson(1.0, size)[1] / Z_95 > 0
    usual = 0.7 * 50.0 / size**0.5  # lengths usually vary, and that counts as four prompts
    assert found.errors[1] == pytest.approx(max(usual * (4 / (size + 3)) ** 0.5, 0.5), rel=1e-6)


def test_the_difference_of_two_tasks_is_no_error():
    """A short task and a long one, equally frequent: no luck decides how many responses each has."""
    outcomes, prompts = outcomes_of(400)
    groups = prompts % 2
    outcomes[:, 1] = np.where(groups, 1000.0, 10.0) * outcomes[:, 1] / outcomes[:, 1].mean()
    apart, together = (part_of(prompts, outcomes, np.ones(400), each) for each in (groups, None))
    assert apart.values == together.values and apart.errors[1] < 0.6 * together.errors[1]
    for task in (0, 1):
        assert apart.prompt_effects[groups == task].mean(axis=0) == pytest.approx(0.0, abs=1e-9)
