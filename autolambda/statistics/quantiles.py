"""Quantiles of the lengths of single responses, where some of them were cut.

A cut response is as long as the cap, and nobody knows how much longer it would have been.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autolambda.statistics.estimates import Floats

LEVELS = (0.1, 0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Quantile:
    """A quantile of the lengths; ``is_bound``: so many were cut that the true one is only known to be at least that."""

    tokens: float
    is_bound: bool


@dataclass(frozen=True)
class Quantiles:
    """What 10, 50, 90 and 99 % of the responses do not exceed, in tokens."""

    p10: Quantile
    p50: Quantile
    p90: Quantile
    p99: Quantile


def quantiles(lengths: Floats, shares: Floats, *, cut: NDArray[np.bool_]) -> Quantiles:
    """The quantiles of lengths [n] that stand for ``shares`` [n] of all, which sum to 1.

    A quantile is the shortest length with so much at or below it. One that moves when the ``cut`` lengths are taken to
    have no end is a lower bound.
    """
    seen = _quantiles(lengths, shares)
    endless = _quantiles(np.where(cut, np.inf, lengths), shares)
    return Quantiles(*(Quantile(float(one), bool(one != other)) for one, other in zip(seen, endless, strict=True)))


def _quantiles(lengths: Floats, shares: Floats) -> Floats:
    order = np.argsort(lengths, kind="stable")
    reached = np.cumsum(shares[order])
    places = np.searchsorted(reached, np.array(LEVELS) * reached[-1] - 1e-9)
    found: Floats = lengths[order][places]
    return found
