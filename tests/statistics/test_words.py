"""Numbers in words: one way for each, whatever the sign."""

from __future__ import annotations

import pytest

from autolambda.statistics.estimates import Difference, Estimate
from autolambda.statistics.words import lead, limit, percent, percent_of, points, points_of, saving, signed, tokens_of


def change(value: float, low: float, high: float) -> Difference:
    return Difference(value, 0.1, low, high, low, high, 100)


def test_estimates_have_their_interval_in_brackets() -> None:
    assert percent(0.885) == "88.5 %"
    assert percent_of(Estimate(0.885, 0.01, 0.858, 0.908, 100, 100)) == "88.5 % (85.8 to 90.8)"
    assert tokens_of(Estimate(1234.4, 1.0, 1200.0, 1300.0, 9, 9)) == "1,234 tokens (1,200 to 1,300)"
    assert tokens_of(Estimate(33.8, 1.0, 31.0, 36.5, 9, 9)) == "33.8 tokens (31.0 to 36.5)"


@pytest.mark.parametrize(("budget", "words"), [(40.0, "40 tokens"), (37.5, "37.5 tokens"), (4000.0, "4,000 tokens")])
def test_a_budget_has_no_needless_decimals(budget: float, words: str) -> None:
    assert limit(budget) == words


@pytest.mark.parametrize(
    ("value", "interval", "words"),
    [
        (-0.121, (-0.211, -0.024), "12.1 points less accurate (2.4 to 21.1)"),
        (0.03, (0.01, 0.05), "3.0 points more accurate (1.0 to 5.0)"),
        (-0.005, (-0.014, 0.004), "as accurate within the error: -0.5 points (-1.4 to +0.4)"),
        (-0.05, None, "5.0 points less accurate"),
    ],
)
def test_a_difference_in_plain_words(value: float, interval: tuple[float, float] | None, words: str) -> None:
    assert lead(value, change(value, *interval) if interval else None) == words


def test_a_difference_that_rounds_to_nothing_has_no_minus() -> None:
    assert signed(-0.0001) == "+0.0" and points_of(change(-0.0001, -0.01, 0.01)) == "+0.0 points (-1.0 to +1.0)"
    assert points(0.01) == "1 point" and points(-0.025) == "2.5 points"


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (0.41, "59 % fewer tokens"),
        (1.12, "12 % more tokens"),
        (1.002, "as many tokens"),
        (8.76, "8.8 times the tokens"),
    ],
)
def test_what_is_saved(ratio: float, words: str) -> None:
    assert saving(ratio) == words
