"""Proposals: the ladder, what each space frees, the box, the budget, and that the same points give the same next."""

import itertools
from dataclasses import replace

import pytest

from autolambda.config import SearchConfig
from autolambda.sampler import MAX_TILT, Point, box, next_rung, propose, to_schedule, uniform_params
from autolambda.schedule import Profile, Schedule

SAMPLERS = ["random", "tpe", "gp"]


def measure(params):
    """A made-up truth in the box: accuracy and tokens rise with lam, attention a little more than ffn."""
    lam, split = params["lam"], params["split"]
    ratio = min(1.0, max(0.0, (lam - 0.4) * 5))
    return Point(params, 0.4 + 0.5 * ratio + 0.05 * split, 10 + 100 * ratio, ratio)


def search(config, *, budget=None, points=(), num_points=None):
    """The points of a whole search, or of one that goes on from ``points``."""
    found = list(points)
    while len(found) < (config.trials if num_points is None else num_points):
        found.append(measure(propose(found, config, budget=budget)))
    return found


def is_uniform(point):
    return not any(value for name, value in point.params.items() if name != "lam")


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
def test_the_next_rung(curve, expected):
    assert next_rung(curve) == expected


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
def test_the_next_rung_passes_over_what_failed(curve, failed, expected):
    assert next_rung(curve, failed) == expected


@pytest.mark.parametrize("broken", [{0.0}, {1.0}, {0.0, 1.0}, {0.5}, {0.0, 0.5, 0.25}, {0.5, 0.4375, 0.46875}])
def test_a_ladder_with_failures_never_repeats_and_spans_the_range(broken):
    config, points, failed = SearchConfig(ladder=12, trials=12), [], []
    while len(points) < 12:
        params = propose(points, config, budget=None, failed=failed)
        assert params not in failed and params not in [point.params for point in points]
        if params["lam"] in broken:
            failed.append(params)
        else:
            points.append(measure(params))
    lams = sorted(point.params["lam"] for point in points)
    assert {params["lam"] for params in failed} <= broken
    assert max(b - a for a, b in itertools.pairwise([0.0, *lams, 1.0])) <= 0.4
    assert sum(0.4 <= lam <= 0.6 for lam in lams) >= 3  # where the Think ratio rises


@pytest.mark.parametrize("num_rungs", [2, 3, 9, 40])
def test_the_ladder_is_uniform_starts_with_the_ends_and_never_repeats(num_rungs):
    config = SearchConfig(ladder=num_rungs, trials=num_rungs)
    rungs = search(config)
    lams = [point.params["lam"] for point in rungs]
    assert lams[:2] == [0.0, 1.0]
    assert len(set(lams)) == num_rungs
    assert all(is_uniform(point) for point in rungs)
    if num_rungs == 9:
        assert sum(0.4 <= lam <= 0.6 for lam in lams) >= 3  # where the Think ratio rises


def test_fewer_trials_than_the_ladder_are_rungs():
    config = SearchConfig(trials=4, ladder=9)
    assert search(config) == search(replaced(config, trials=20), num_points=4)


def replaced(config, **changes):
    return config.model_copy(update=changes)


def test_a_lengthened_ladder_goes_by_the_uniform_points_alone():
    points = search(SearchConfig(trials=6, ladder=4, spaces=("module",), sampler="random"))
    assert not is_uniform(points[-1])
    lam = propose(points, SearchConfig(trials=12, ladder=9), budget=None)["lam"]
    assert lam == next_rung([(p.params["lam"], p.think_ratio) for p in points[:4]])


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    ("space", "free"),
    [
        ("uniform", {"lam"}),
        ("module", {"lam", "split"}),
        ("depth", {"lam", "tilt_0", "tilt_1", "tilt_2"}),
        ("both", {"lam", "split", "tilt_0", "tilt_1", "tilt_2"}),
    ],
)
def test_a_space_frees_its_own_and_holds_the_others(sampler, space, free):
    config = SearchConfig(trials=8, ladder=4, spaces=(space,), sampler=sampler)
    after = search(config)[4:]
    moved = {name for point in after for name, value in point.params.items() if value != 0}
    assert moved == free


@pytest.mark.parametrize(
    ("space", "holds"),
    [
        ("uniform", lambda s: s.lam is not None),
        ("module", lambda s: len(s.attention.values) == len(s.ffn.values) == 1 and s.attention != s.ffn),
        ("depth", lambda s: s.attention == s.ffn and len(s.attention.values) == 3),
        ("both", lambda s: s.attention != s.ffn),
    ],
)
def test_the_schedules_of_a_space(space, holds):
    config = SearchConfig(trials=9, ladder=4, spaces=(space,), sampler="random", seed=1)
    assert all(holds(to_schedule(point.params)) for point in search(config)[4:])


def test_the_trials_after_the_ladder_are_shared_out():
    config = SearchConfig(trials=13, ladder=4, spaces=("uniform", "module", "both"), sampler="random")
    freedom = [sum(value != 0 for name, value in point.params.items() if name != "lam") for point in search(config)]
    assert freedom == [0] * 7 + [1] * 3 + [4] * 3


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("budget", [None, 50.0])
def test_values_lie_in_the_box_and_are_round(sampler, budget):
    config = SearchConfig(trials=10, ladder=5, sampler=sampler)
    for point in search(config, budget=budget):
        assert point.params.keys() == box(3).keys()
        assert all(box(3)[name].low <= value <= box(3)[name].high for name, value in point.params.items())
        assert all(round(value, 4) == value for value in point.params.values())


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("knots", range(2, 7))
def test_any_number_of_knots(sampler, knots):
    config = SearchConfig(trials=6, ladder=4, knots=knots, spaces=("both",), sampler=sampler)
    for point in search(config)[4:]:
        schedule = to_schedule(point.params)
        assert len(schedule.attention.values) in (1, knots)  # 1 where all tilts are equal
        assert len(point.params) == 2 + knots


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("budget", [None, 50.0])
def test_a_resumed_search_proposes_the_same_to_the_bit(sampler, budget):
    config = SearchConfig(trials=7, ladder=4, sampler=sampler, seed=3)
    whole = search(config, budget=budget)
    for num_done in (3, 4, 6):
        assert search(config, budget=budget, points=whole[:num_done]) == whole


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_seed_changes_what_follows_the_ladder(sampler):
    first, second = (search(SearchConfig(trials=5, ladder=4, sampler=sampler, seed=seed)) for seed in (0, 1))
    assert first[:4] == second[:4]
    assert first[4] != second[4]


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_budget_keeps_the_search_below_it(sampler):
    config = SearchConfig(trials=16, ladder=6, spaces=("uniform",), sampler=sampler)
    within = [sum(point.mean_tokens <= 40 for point in search(config, budget=budget)[6:]) for budget in (40.0, 1000.0)]
    assert within[0] >= 5 > 4 >= within[1]


def test_a_first_space_of_two_points_works():
    for sampler, budget in itertools.product(SAMPLERS, (None, 50.0)):
        search(SearchConfig(trials=4, ladder=2, sampler=sampler), budget=budget)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_ties_do_not_stop_it(sampler):
    config = SearchConfig(trials=7, ladder=4, sampler=sampler)
    points = [replace(point, accuracy=0.5, mean_tokens=20.0, think_ratio=0.0) for point in search(config)[:4]]
    for budget in (None, 5.0, 20.0):
        propose(points, config, budget=budget)


@pytest.mark.parametrize(
    ("params", "schedule"),
    [
        ({"lam": 0.3}, Schedule.uniform(0.3)),
        ({"lam": 0.5, "split": 0.4}, Schedule.by_module(attention=0.7, ffn=0.3)),
        ({"lam": 0.9, "split": 1.0}, Schedule.by_module(attention=1.0, ffn=0.4)),
        ({"lam": 0.5, "tilt_0": -0.2, "tilt_2": 0.4}, Schedule.by_depth(Profile((0.3, 0.5, 0.9)))),
        ({"lam": 1.0, "tilt_0": 0.4, "tilt_1": -0.4}, Schedule.by_depth(Profile((1.0, 0.6, 1.0)))),
        (
            {"lam": 0.5, "split": -0.2, "tilt_0": 0.1},
            Schedule.by_depth_and_module(Profile((0.5, 0.4, 0.4)), Profile((0.7, 0.6, 0.6))),
        ),
    ],
)
def test_the_schedule_at_a_point(params, schedule):
    assert to_schedule(uniform_params(0.0, num_knots=3) | params) == schedule


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("budget", [None, 50.0])
def test_what_failed_is_not_proposed_again(sampler, budget):
    config = SearchConfig(trials=8, ladder=4, sampler=sampler)
    points = search(config, budget=budget, num_points=5)
    proposed = []
    for _ in range(4):  # each of them fails
        params = propose(points, config, budget=budget, failed=proposed)
        assert params == propose(points, config, budget=budget, failed=proposed)
        assert all(max(abs(params[name] - other[name]) for name in other) >= 0.01 for other in proposed)
        proposed.append(params)


def test_a_proposal_near_one_that_failed_gives_way():
    """On a flat truth the sampler insists on its place, so that only the check can move it."""
    config = SearchConfig(trials=9, ladder=4, spaces=("uniform",), sampler="gp")
    points = search(config, num_points=4)
    first = propose(points, config, budget=40.0)
    second = propose(points, config, budget=40.0, failed=[{**first, "lam": first["lam"] - 0.009}])
    assert abs(second["lam"] - first["lam"]) > 0.01
    far = propose(points, config, budget=40.0, failed=[{**first, "split": 1.0}])
    assert abs(far["lam"] - first["lam"]) < 0.01


def test_the_box_holds_all_tilts():
    assert {name: (span.low, span.high) for name, span in box(2).items()} == {
        "lam": (0.0, 1.0),
        "split": (-1.0, 1.0),
        "tilt_0": (-MAX_TILT, MAX_TILT),
        "tilt_1": (-MAX_TILT, MAX_TILT),
    }


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_schedule_is_measured_twice(sampler):
    """On a flat truth a sampler has no reason to move; the same responses again would tell nothing."""
    config = SearchConfig(trials=14, ladder=4, spaces=("uniform",), sampler=sampler)
    points = search(config, budget=40.0)
    for i, point in enumerate(points):
        for other in points[:i]:
            assert max(abs(point.params[name] - other.params[name]) for name in other.params) > 1e-3
