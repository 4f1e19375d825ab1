"""The value of a set of finalists, on draws made by hand."""

import numpy as np
import pytest

from autolambda.optimizer.portfolio import MISFIT, WORTH, Portfolio, Precision
from autolambda.optimizer.surrogate import PosteriorSamples

BUDGET, NUM_DRAWS = 100.0, 4000
EXACT = Precision(spread=0.01, shared=0.005, reach=1.645, error=1e-6)


def draw_of(*schedules, allowed=None, doubt=0.0, seed=0):
    """Draws of schedules, each an accuracy and mean tokens; ``doubt`` is the deviation of each accuracy."""
    accuracy, tokens = np.array(schedules).T
    size = (NUM_DRAWS, len(schedules))
    unsure = doubt * np.random.default_rng(seed).standard_normal(size)
    allowed = np.ones(size, dtype=bool) if allowed is None else np.broadcast_to(np.array(allowed), size)
    return PosteriorSamples(accuracy + unsure, np.broadcast_to(tokens, size).astype(np.float64), allowed)


def portfolio_of(draw, *, precision=EXACT, fallback=0.4, seed=0):
    return Portfolio(
        draw,
        budget=BUDGET,
        precision=precision if callable(precision) else lambda members: precision,
        fallback=np.full(NUM_DRAWS, fallback),
        seed=seed,
    )


def test_one_that_is_sure_is_worth_its_accuracy():
    assert portfolio_of(draw_of((0.7, 50.0))).value([0]) == pytest.approx(0.7, abs=1e-6)


def test_where_nothing_passes_the_parents_remain():
    found = portfolio_of(draw_of((0.9, 200.0), (0.8, 150.0)))
    assert found.parents == pytest.approx(0.4)
    assert found.value([0]) == found.value([0, 1]) == pytest.approx(0.4)
    chosen, worth = found.best([0, 1], 3)
    assert chosen == [1] and worth == pytest.approx(0.4)  # the cheaper of two that are worth the same


def test_a_merge_below_the_parents_is_no_answer():
    assert portfolio_of(draw_of((0.3, 50.0)), fallback=0.6).value([0]) == pytest.approx(0.6)


def test_near_the_budget_a_cheaper_one_is_a_fallback():
    """All predicted tokens may be wrong together: then only the cheaper one is shown within the budget."""
    found = portfolio_of(draw_of((0.8, 94.0), (0.75, 70.0)))
    near, cheap, both = (found.value(members) for members in ([0], [1], [0, 1]))
    assert 0.4 < near < 0.7 and cheap == pytest.approx(0.75, abs=0.01) and both > max(near, cheap) + 0.01
    chosen, worth = found.best([0, 1], 3)
    assert set(chosen) == {0, 1} and worth == both


def test_predicted_tokens_may_all_be_wrong_by_a_common_factor():
    """Without it, one that is 6 % below the budget would surely pass."""
    shown = (portfolio_of(draw_of((0.8, 94.0))).value([0]) - 0.4) / 0.4
    limit = np.log(BUDGET / (1 + EXACT.reach * EXACT.spread) / 94.0) / np.hypot(MISFIT, EXACT.spread)
    assert shown == pytest.approx(0.5 * (1 + np.tanh(limit * 0.8)), abs=0.03)


def test_a_copy_gains_nothing_and_is_not_added():
    """It answers the same prompts. Even a copy with luck of its own is worth less than one more finalist costs."""
    found = portfolio_of(draw_of((0.8, 60.0), (0.8, 60.0), (0.8, 60.0)))
    assert found.value([0, 1]) - found.value([0]) < WORTH
    chosen, _ = found.best([0, 1, 2], 3)
    assert len(chosen) == 1


def test_of_equal_values_the_cheaper_is_first():
    found = portfolio_of(draw_of((0.8, 60.0), (0.8, 40.0), (0.8, 50.0)))
    assert found.best([0, 1, 2], 3)[0] == [1] and found.best([0, 2], 3)[0] == [2]


def test_the_testing_ends_at_the_first_that_fails():
    """A cheaper one that breaks a guard hides the good one that is tested after it."""
    draw = draw_of((0.7, 40.0), (0.8, 60.0), allowed=[False, True])
    found = portfolio_of(draw)
    assert found.value([1]) == pytest.approx(0.8, abs=1e-6) and found.value([0, 1]) == pytest.approx(0.4)
    assert found.best([0, 1], 3)[0] == [1]


def test_two_whose_accuracy_is_open_are_worth_more_than_one():
    found = portfolio_of(draw_of((0.7, 50.0), (0.7, 55.0), doubt=0.05))
    gain = found.value([0, 1]) - found.value([0])
    assert gain == pytest.approx(0.05 / np.pi**0.5, abs=0.004)  # the mean of the better of two normal numbers
    unclear = Precision(spread=0.01, shared=0.005, reach=1.645, error=0.5)  # the confirmation cannot tell them apart
    blind = portfolio_of(draw_of((0.7, 50.0), (0.7, 55.0), doubt=0.05), precision=unclear, fallback=-5.0)
    assert blind.value([0, 1]) - blind.value([0]) < 0.3 * gain


def test_more_finalists_make_the_confirmation_less_precise():
    def precision(members):
        return Precision(0.02 * len(members), 0.0, 1.645, 1e-6)

    draw = draw_of((0.8, 85.0), (0.79, 85.0), doubt=0.0)
    found = portfolio_of(draw, precision=precision)
    assert found.value([0, 1]) < found.value([0]) and found.best([0, 1], 3)[0] == [0]


def test_no_more_than_the_most_are_chosen():
    draw = draw_of(*((0.7, 40.0 + i) for i in range(6)), doubt=0.1)
    found = portfolio_of(draw)
    sizes = [len(found.best(range(6), most)[0]) for most in (1, 2, 3)]
    worths = [found.best(range(6), most)[1] for most in (1, 2, 3)]
    assert sizes == [1, 2, 3] and worths == sorted(worths)
    assert found.best([], 3) == ([], found.parents)


def test_equal_seeds_give_equal_values():
    draw = draw_of((0.8, 94.0), (0.75, 70.0), doubt=0.02)
    one, again, other = (portfolio_of(draw, seed=seed).value([0, 1]) for seed in (0, 0, 1))
    assert one == again != other
