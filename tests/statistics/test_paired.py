"""Two schedules on the same prompts: the ratio of their tokens, and equivalence within the margins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from coded_responses import slice_of
from numpy.typing import NDArray

from autolambda.errors import InputError
from autolambda.responses import Grade, Graded, Response
from autolambda.statistics.estimates import Difference
from autolambda.statistics.paired import Change, Kept, Ratio, compare, token_ratio


def of_lengths(lengths: Sequence[int] | NDArray[np.float64], *, task: str = "math") -> list[Graded]:
    return [
        Graded(task, f"{index:04d}", 0, Response("", int(length), "stop"), Grade.CORRECT, None, False)
        for index, length in enumerate(lengths)
    ]


def test_the_ratio_is_of_the_means_and_its_interval_is_paired() -> None:
    right = [10 * (index % 20 + 1) for index in range(200)]
    ratio = token_ratio(of_lengths([2 * each for each in right]), of_lengths(right))
    assert ratio.value == pytest.approx(2.0)
    assert ratio.low < ratio.lower_bound < 2 < ratio.upper_bound < ratio.high < 2.05  # lengths vary, their ratio not
    turned = token_ratio(of_lengths([2 * each for each in right][::-1]), of_lengths(right))
    assert turned.high > 2.2


def test_equal_responses_leave_an_interval() -> None:
    few, many = (token_ratio(of_lengths([50] * size), of_lengths([50] * size)) for size in (20, 500))
    assert few.value == many.value == 1.0
    assert few.low < 0.97 and few.high > 1.03 and 0.99 < many.low < 1 < many.high < 1.01


def test_tasks_are_averaged_by_weight_and_guards_left_out() -> None:
    left = [*of_lengths([20] * 30), *of_lengths([400] * 30, task="code"), *of_lengths([9] * 30, task="rules")]
    right = [*of_lengths([10] * 30), *of_lengths([200] * 30, task="code"), *of_lengths([90] * 30, task="rules")]
    assert token_ratio(left, right, weights={"math": 0.5, "code": 0.5, "rules": 0.0}).value == pytest.approx(2.0)
    assert token_ratio(left, right, weights={"math": 0.0, "code": 0.0, "rules": 1.0}).value == pytest.approx(0.1)


@pytest.mark.parametrize(("size", "thinking"), [(100, (0.8, 0.5)), (200, (0.5, 0.5)), (200, (1.0, 1.0))])
def test_ratios_of_heavy_tails_are_covered(size: int, thinking: tuple[float, float]) -> None:
    rng = np.random.default_rng(size)

    def draw(prompts: NDArray[np.float64], share: float) -> NDArray[np.float64]:
        long = np.minimum(np.exp(prompts + rng.normal(6, 0.7, size=len(prompts))).round() + 1, 8192)
        return np.where(rng.random(len(prompts)) < share, long, 2.0)

    everything = rng.normal(0, 0.7, 1_000_000)
    truth = draw(everything, thinking[0]).mean() / draw(everything, thinking[1]).mean()
    held = upper = lower = 0
    for _ in range(300):
        prompts = rng.normal(0, 0.7, size)
        found = token_ratio(*(of_lengths(draw(prompts, share)) for share in thinking))
        held += found.low <= truth <= found.high
        upper, lower = upper + (truth <= found.upper_bound), lower + (truth >= found.lower_bound)
    assert min(held, upper, lower) / 300 >= 0.91


def test_only_responses_that_both_have_are_compared() -> None:
    change = compare(slice_of("c", "w", "c"), slice_of("c", "c"))
    assert change.accuracy.value == -0.5 and change.accuracy.num_prompts == 2
    with pytest.raises(InputError):
        compare(slice_of("c"), slice_of("c", task="code"))


def changed(accuracy: tuple[float, float], tokens: tuple[float, float]) -> Change:
    """A change with these one-sided bounds."""
    difference = Difference(sum(accuracy) / 2, 0.01, *accuracy, *accuracy, 100)
    return Change(difference, Ratio(1.0, *tokens, *tokens))


@pytest.mark.parametrize(
    ("accuracy", "tokens", "kept"),
    [
        ((-0.04, 0.04), (0.95, 1.05), Kept.KEPT),
        ((-0.06, 0.04), (0.95, 1.05), Kept.UNDECIDED),
        ((-0.04, 0.04), (0.95, 1.15), Kept.UNDECIDED),
        ((-0.20, -0.06), (0.95, 1.05), Kept.NOT_KEPT),
        ((0.06, 0.20), (0.95, 1.05), Kept.NOT_KEPT),  # another model, even if a better one
        ((-0.06, 0.04), (1.2, 1.4), Kept.NOT_KEPT),
        ((-0.04, 0.04), (0.5, 0.9), Kept.NOT_KEPT),
    ],
)
def test_kept_is_shown_and_not_assumed(accuracy: tuple[float, float], tokens: tuple[float, float], kept: Kept) -> None:
    assert changed(accuracy, tokens).kept is kept


def test_how_many_prompts_would_show_that_it_is_kept() -> None:
    undecided = changed((-0.06, 0.06), (0.95, 1.05))
    assert undecided.kept is Kept.UNDECIDED and undecided.num_prompts_enough == 150  # (6 / 5)^2 times 100, rounded up
    assert changed((-0.04, 0.04), (0.95, 1.05)).num_prompts_enough == 64
    assert changed((0.0, 0.12), (0.95, 1.05)).num_prompts_enough is None  # 6 points apart
