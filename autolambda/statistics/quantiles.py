"""Quantiles of the lengths of single responses.

Some responses are cut at the cap, so their full length is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autolambda.statistics.estimates import Floats

LEVELS = (0.1, 0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Quantile:
    """A quantile of the lengths. If ``is_bound``, too many were cut: the true quantile is at least ``tokens``."""

    tokens: float
    is_bound: bool


@dataclass(frozen=True)
class Quantiles:
    """The numbers of tokens that 10, 50, 90 and 99 % of the responses do not exceed."""

    p10: Quantile
    p50: Quantile
    p90: Quantile
    p99: Quantile


def quantiles(lengths: Floats, shares: Floats, *, cut: NDArray[np.bool_]) -> Quantiles:
    """Returns the quantiles of ``lengths`` [n] with weights ``shares`` [n] that sum to 1.

    A quantile is the shortest length that at least this share of the responses does not exceed. It is a lower bound if
    it changes when the ``cut`` lengths are taken to be infinite.
    """
    seen = _quantiles(lengths, shares)
    endless = _quantiles(np.where(cut, np.inf, lengths), shares)
    return Quantiles(*(Quantile(float(one), bool(one != other)) for one, other in zip(seen, endless, strict=True)))


def _quantiles(lengths: Floats, shares: Floats) -> Floats:
    # unlike np.quantile(weights=...) this allows for rounding: half of 2 n equal shares is reached by the n-th length
    order = np.argsort(lengths, kind="stable")
    reached = np.cumsum(shares[order])
    indices = np.searchsorted(reached, np.array(LEVELS) * reached[-1] - 1e-9)
    values: Floats = lengths[order][indices]
    return values
