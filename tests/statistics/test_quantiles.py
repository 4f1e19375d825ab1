"""Quantiles of lengths, of which some were cut."""

import numpy as np
import pytest

from autolambda.statistics.quantiles import Quantile, quantiles


def of(lengths, cut=(), shares=None):
    lengths = np.array(lengths, dtype=np.float64)
    shares = np.full(len(lengths), 1 / len(lengths)) if shares is None else np.array(shares)
    return quantiles(lengths, shares, cut=np.isin(np.arange(len(lengths)), cut))


def test_one_length_is_every_quantile():
    found = of([7])
    assert found.p10 == found.p50 == found.p90 == found.p99 == Quantile(7.0, False)


def test_a_hundred_lengths():
    found = of(np.random.default_rng(0).permutation(np.arange(1, 101)))
    assert [each.tokens for each in (found.p10, found.p50, found.p90, found.p99)] == [10, 50, 90, 99]


def test_a_length_counts_by_its_share():
    found = of([5, 1, 9], shares=[0.3, 0.6, 0.1])
    assert [each.tokens for each in (found.p10, found.p50, found.p90, found.p99)] == [1, 1, 5, 9]


@pytest.mark.parametrize(
    ("lengths", "cut", "bounds"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 9], [9], [False, False, False, True]),  # one in ten at the cap of 9
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 9], [8], [False, False, False, True]),  # the one that was cut stands before
        ([1, 2, 3, 4, 5, 9, 9, 9, 9, 9], [5, 6, 7, 8, 9], [False, False, True, True]),
        ([9] * 10, range(10), [True] * 4),
        ([4] * 10, [0], [False, False, False, True]),  # the others ended by themselves, just there
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [0], [True] * 4),  # cut at 1: it may be the longest of all
    ],
)
def test_a_quantile_that_a_longer_response_would_move_is_a_lower_bound(lengths, cut, bounds):
    found = of(lengths, list(cut))
    assert [each.is_bound for each in (found.p10, found.p50, found.p90, found.p99)] == bounds
    uncut = of(lengths)
    assert [found.p50.tokens, found.p99.tokens] == [uncut.p50.tokens, uncut.p99.tokens]
