"""The search of a cap: it ends at the aim or between two neighbours, in few steps, however wrong the estimate is."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from autolambda.driver.baselines.cap_search import TOLERANCE, rank, search_cap


def found(measure: Callable[[int], float], estimate: Callable[[int], float], aim: float, longest: int) -> list[int]:
    return list(search_cap(measure, estimate, aim=aim, longest=longest))


def test_an_exact_estimate_takes_one_step() -> None:
    assert found(float, float, 40.5, 1000) == [40]


def test_what_the_estimate_missed_is_corrected() -> None:
    """Answers after a cut are 100 tokens longer than expected."""
    caps = found(lambda cap: cap + 100.0, float, 400.0, 1000)
    assert caps[-1] == 300 and len(caps) == 2


@pytest.mark.parametrize("aim", [1.5, 7, 99, 640, 4000, 31_000])
@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_a_wrong_estimate_costs_few_steps(power: float, aim: float) -> None:
    longest = 32_768

    def mean(cap: int) -> float:
        return longest * (cap / longest) ** power

    caps = found(mean, float, aim, longest)
    assert len(caps) <= 24
    near = [mean(caps[-1] + step) for step in (-1, 1) if caps[-1] + step > 0]
    is_met = abs(mean(caps[-1]) - aim) <= TOLERANCE * aim
    assert is_met or all(abs(mean(caps[-1]) - aim) <= abs(other - aim) for other in near)


def test_if_even_one_token_is_too_much_it_ends_there() -> None:
    assert found(lambda cap: 50.0 + cap, float, 10.0, 500)[-1] == 1


def test_a_noisy_measure_ends_too() -> None:
    noise = random.Random(0)
    caps = search_cap(lambda cap: cap * noise.uniform(0.8, 1.2), float, aim=100, longest=4000)
    assert abs(list(caps.values())[-1] - 100) <= 10 and len(caps) <= 20


def test_without_tokens_left_it_ends_with_the_nearest() -> None:
    left = [True, False]
    caps = search_cap(
        lambda cap: cap + 100.0, lambda cap: cap / 2, aim=400, longest=1000, may_go_on=lambda: left.pop(0)
    )
    assert len(caps) == 2 and abs(list(caps.values())[-1] - 400) == min(abs(mean - 400) for mean in caps.values())


def test_closings_that_miss_the_aim_are_ranked_by_how_little() -> None:
    """A long phrase may make Thinking answer at length, however short its thinking is."""
    meets, exact, long, longest = (40.0, 0.4), (40.5, 0.5), (55.0, 0.6), (70.0, 0.9)
    assert sorted([longest, meets, long, exact], key=lambda each: rank(*each, aim=40.0)) == [
        longest, long, meets, exact,
    ]  # fmt: skip
