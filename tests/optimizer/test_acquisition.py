"""What is read off joint draws, against brute force on draws made by hand, and the places that are looked at."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from autolambda.optimizer.acquisition import (
    SURE,
    Target,
    candidates,
    chances,
    distinct,
    expected_gains,
    is_dominated,
    surest,
    thompson,
)
from autolambda.optimizer.space import DECIMALS
from autolambda.optimizer.surrogate import PosteriorSamples

TARGET = Target(100.0, 0.05, float(norm.ppf(0.95)))


def draw(accuracy, tokens, allowed=None):
    """From a row a draw; all are allowed where nothing is said."""
    accuracy = np.array(accuracy, dtype=np.float64)
    allowed = np.ones(accuracy.shape, dtype=bool) if allowed is None else np.array(allowed, dtype=bool)
    return PosteriorSamples(accuracy, np.array(tokens, dtype=np.float64), allowed)


def certain(*pairs):
    """Draws that all agree on each schedule's accuracy and tokens."""
    accuracy, tokens = zip(*pairs, strict=True)
    return draw([accuracy] * 3, [tokens] * 3)


def draws():
    """Any few draws of any few schedules."""
    share, length = st.floats(0.01, 0.99), st.floats(5.0, 500.0)
    sizes = st.tuples(st.integers(1, 6), st.integers(2, 5))

    def of(size):
        rows = [st.lists(st.lists(each, min_size=size[1], max_size=size[1]), min_size=size[0], max_size=size[0])
                for each in (share, length, st.booleans())]  # fmt: skip
        return st.builds(draw, *rows[:2], st.none() | rows[2])

    return sizes.flatmap(of)


targets = st.builds(Target, st.floats(10.0, 400.0), st.floats(0.001, 0.3), st.floats(0.5, 4.0))


def test_the_highest_mean_has_its_upper_bound_at_the_budget():
    assert TARGET.highest * (1 + norm.ppf(0.95) * 0.05) == pytest.approx(100.0)
    assert Target(100.0, 0.05, 3.0).highest < TARGET.highest  # fewer prompts, a higher bound


@settings(deadline=None)  # the first call of scipy's loads much
@given(draws(), targets)
def test_the_chance_to_be_shown_within(drawn, target):
    for index, found in enumerate(chances(drawn, target)):
        rows = zip(drawn.tokens[:, index], drawn.allowed[:, index], strict=True)
        each = [norm.cdf((target.highest - n) / (target.spread * n)) if allowed else 0.0 for n, allowed in rows]
        assert found == pytest.approx(np.mean(each), abs=1e-9)


def test_at_the_highest_mean_the_chance_is_even_and_below_it_grows():
    found = chances(certain((0.5, TARGET.highest), (0.5, 80.0), (0.5, 60.0), (0.5, 200.0)), TARGET)
    assert found[0] == pytest.approx(0.5) and found[2] > found[1] > SURE and found[3] < 1e-6


@given(draws(), targets)
def test_the_safe_one_is_the_most_accurate_that_is_sure(drawn, target):
    chance, index = chances(drawn, target), surest(drawn, target)
    ahead = drawn.accuracy.mean(axis=0)
    sure = [i for i in range(len(chance)) if chance[i] >= SURE]
    assert (index in sure and ahead[index] == max(ahead[sure])) if sure else chance[index] == max(chance)


@given(draws(), targets)
def test_the_sampled_one_is_the_best_within_in_its_draw(drawn, target):
    for row, (accuracy, tokens, allowed) in enumerate(zip(drawn.accuracy, drawn.tokens, drawn.allowed, strict=True)):
        index = thompson(drawn, target, index=row)
        within = [i for i in range(len(tokens)) if tokens[i] <= target.highest and allowed[i]]
        if within:
            assert index in within and accuracy[index] == max(accuracy[within])
        elif allowed.any():
            assert allowed[index] and tokens[index] == min(tokens[allowed])
        else:
            assert tokens[index] == min(tokens)


@given(draws(), targets)
def test_the_expected_gains_over_the_safe_one(drawn, target):
    safe = surest(drawn, target)
    for index, found in enumerate(expected_gains(drawn, target)):
        leads = []
        for accuracy, tokens, allowed in zip(drawn.accuracy, drawn.tokens, drawn.allowed, strict=True):
            ours = accuracy[safe] if allowed[safe] else 0.0
            counts = tokens[index] <= target.highest and allowed[index]
            leads.append(max(accuracy[index] - ours, 0.0) if counts else 0.0)
        assert found == pytest.approx(np.mean(leads), abs=1e-9)


def test_nothing_is_to_be_gained_where_all_draws_agree():
    assert not expected_gains(certain((0.5, 20.0), (0.7, 60.0), (0.9, 300.0)), TARGET).any()


def test_an_unsure_guard_leaves_something_to_learn():
    even = draw([[0.5, 0.5]] * 20, [[50.0, 50.0]] * 20, [[i % 2 == 0, i % 2 == 1] for i in range(20)])
    assert expected_gains(even, TARGET).max() == pytest.approx(0.25)
    hopeless = draw([[0.5, 0.5]] * 20, [[50.0, 50.0]] * 20, [[False, False]] * 20)
    assert not expected_gains(hopeless, TARGET).any()


@pytest.mark.parametrize(
    ("accuracy", "tokens", "is_distinct"),
    [
        (0.5, 50.0, False),
        (0.505, 51.0, False),  # hardly more accurate, hardly longer
        (0.52, 50.0, True),
        (0.5, 52.0, True),
        (0.7, 80.5, False),  # as another measured one
        (0.7, 50.0, True),  # as accurate as one, as long as another
    ],
)
def test_a_new_point_is_distinct_if_no_measured_one_is_predicted_alike(accuracy, tokens, is_distinct):
    drawn = certain((0.5, 50.0), (0.7, 80.0), (accuracy, tokens), (0.9, 20.0))
    assert distinct(drawn, 2) == ([0, 1] if is_distinct else [1])  # counted from the first new one


def test_points_that_differ_only_in_their_draws_are_distinct():
    """Equal means are not enough: where the draws go apart, a measurement tells something new."""
    drawn = draw([[0.5, 0.4], [0.5, 0.6]], [[50.0, 50.0]] * 2)
    assert distinct(drawn, 1) == [0]
    together = draw([[0.4, 0.4], [0.6, 0.6]], [[50.0, 50.0]] * 2)
    assert distinct(together, 1) == []


@given(draws())
def test_distinct_against_brute_force(drawn):
    expected = [
        index - 1
        for index in range(1, drawn.tokens.shape[1])
        if np.sqrt(np.mean((drawn.accuracy[:, index] - drawn.accuracy[:, 0]) ** 2)) >= 0.01
        or np.sqrt(np.mean(np.log(drawn.tokens[:, index] / drawn.tokens[:, 0]) ** 2)) >= 0.03
    ]
    assert distinct(drawn, 1) == expected


@given(draws())
def test_dominated_is_so_in_almost_all_draws(drawn):
    for index in range(drawn.tokens.shape[1]):
        beaten = [
            any(
                drawn.accuracy[row, i] >= drawn.accuracy[row, index]
                and drawn.tokens[row, i] <= drawn.tokens[row, index]
                and (drawn.allowed[row, i] or not drawn.allowed[row, index])
                for i in range(drawn.tokens.shape[1])
                if i != index
            )
            for row in range(len(drawn.tokens))
        ]
        assert is_dominated(drawn, index) == (np.mean(beaten) >= SURE)


def test_beaten_by_one_here_and_another_there_is_dominated():
    drawn = draw([[0.6, 0.4, 0.5], [0.4, 0.6, 0.5]], [[10.0, 10.0, 20.0]] * 2)
    assert [is_dominated(drawn, index) for index in range(3)] == [False, False, True]


BOX = {"lam": (0.0, 1.0), "split": (-1.0, 1.0), "tilt_0": (-0.4, 0.4), "tilt_1": (-0.4, 0.4)}
CENTRE = {"lam": 0.98, "split": -0.2, "tilt_0": 0.39, "tilt_1": 0.0}


@pytest.mark.parametrize("free", [["lam"], ["lam", "split"], ["lam", "tilt_0", "tilt_1"], list(BOX)])
def test_candidates_lie_in_the_box_and_only_free_ones_move(free):
    found = candidates(free, BOX, [CENTRE], np.random.default_rng(0))
    held = [name for name in BOX if name not in free]
    for params in found:
        assert params.keys() == BOX.keys()
        assert all(BOX[name][0] <= value <= BOX[name][1] for name, value in params.items())
        assert all(round(value, DECIMALS) == value for value in params.values())
        assert all(params[name] in (0.0, CENTRE[name]) for name in held)
    moved = {name for params in found for name in BOX if params[name] not in (0.0, CENTRE[name])}
    assert moved == set(free)


def test_uniform_candidates_are_a_fine_grid_of_lambdas():
    found = candidates(["lam"], BOX, [CENTRE], np.random.default_rng(0))
    assert [params["lam"] for params in found] == pytest.approx(np.linspace(0, 1, 401))
    assert all(params["split"] == params["tilt_0"] == params["tilt_1"] == 0.0 for params in found)


def test_some_candidates_are_uniform_some_near_a_centre_and_some_far():
    found = candidates(["lam", "split"], BOX, [CENTRE], np.random.default_rng(0))
    near = [p for p in found if abs(p["split"] - CENTRE["split"]) < 0.1 and p["tilt_0"] == CENTRE["tilt_0"]]
    assert len(near) >= 20
    assert {params["lam"] for params in found} >= {0.0, 0.5, 1.0}
    assert np.ptp([params["lam"] for params in found if params["tilt_0"] == 0.0 != params["split"]]) > 0.8


def test_the_same_generator_gives_the_same_candidates():
    first, again, other = (candidates(["lam", "split"], BOX, [CENTRE], np.random.default_rng(s)) for s in (1, 1, 2))
    assert first == again != other


def test_what_breaks_a_guard_is_no_answer_however_good():
    accuracy, tokens = [[0.5, 0.9, 0.6]] * 20, [[50.0, 20.0, 60.0]] * 20
    broken = draw(accuracy, tokens, [[True, False, True]] * 20)
    assert surest(broken, TARGET) == 2 and thompson(broken, TARGET, index=0) == 2
    assert not expected_gains(broken, TARGET).any()
    assert [is_dominated(broken, i) for i in range(3)] == [False, False, False]
    free = draw(accuracy, tokens)
    assert surest(free, TARGET) == 1 and [is_dominated(free, i) for i in range(3)] == [True, False, True]
