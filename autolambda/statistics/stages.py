"""The stages of a Think-ratio curve: where reasoning emerges and where it saturates, with 95 % intervals.

The curve is assumed to rise. It is fitted by isotonic regression (Robertson, Wright & Dykstra 1988, ch. 1). A boundary
is the lambda at which the fit passes a level, interpolated linearly on the probit scale. The interval inverts the
likelihood-ratio test, {x: 2 (l_free - l_x) <= 3.84}. Here l_x is the highest binomial log-likelihood of a rising curve
through (x, level). The interval also spans the two neighbours, because nothing was measured between them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from autolambda.errors import InputError
from autolambda.statistics.curve import DEFAULT_RESPONSES, CurvePoint
from autolambda.statistics.estimates import Floats

EMERGENCE_AT, SATURATION_AT = 0.05, 0.95

_CUTOFF = 3.841458820694124  # chi-square with 1 degree of freedom, 95 %
_STRAY_CUTOFF = 10.827566170662733  # chi-square with 1 degree of freedom, 99.9 %
_SHARES = np.linspace(0.0, 1.0, 21)  # positions tried inside a gap
_RISES = np.concatenate([[0.0], np.geomspace(0.02, 16.0, 40)])  # probit rises tried over a gap
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Boundary:
    """The lambda at which the Think ratio passes a level, with its 95 % interval."""

    lam: float
    low: float
    high: float


@dataclass(frozen=True)
class Stages:
    """Emergence ends stage 1, saturation starts stage 3. ``notes`` say what was assumed, left out or not observed.

    A boundary is ``None`` if the data exclude a crossing of its level within the measured lambdas. If only the estimate
    lies outside them, ``lam`` is the outermost measured lambda and the interval extends to it, or to 0 or 1 if that
    is farther out. If ``falls``, the curve fits a falling one better (1 in 1,000), so the boundaries mean nothing.
    """

    emergence: Boundary | None
    saturation: Boundary | None
    notes: tuple[str, ...]
    falls: bool = False


@dataclass(frozen=True)
class _Curve:
    """One point per lambda, ascending. ``hits`` of the ``counts`` responses closed their thinking."""

    lams: Floats
    hits: Floats
    counts: Floats

    def turned(self) -> _Curve:
        """The curve with its points in the opposite order: a falling one rises."""
        return _Curve(self.lams, self.hits[::-1], self.counts[::-1])

    def without(self, index: int) -> _Curve:
        return _Curve(np.delete(self.lams, index), np.delete(self.hits, index), np.delete(self.counts, index))


def detect_stages(points: Iterable[CurvePoint]) -> Stages:
    """Returns the two boundaries of a curve. Points may be in any order; points at one lambda are pooled.

    A stray point is left out and noted if the curve falls significantly (1 in 1,000) and this point alone is the
    cause. At most one point in five is left out. Raises ``InputError`` for fewer than two lambdas.
    """
    given = list(points)
    curve = _pooled(given)
    falls = _misfit(curve) - _misfit(curve.turned()) > _STRAY_CUTOFF
    notes = []
    if num_missing := sum(point.num_responses is None for point in given):
        notes.append(f"{num_missing} of {len(given)} points have no count: {DEFAULT_RESPONSES:g} responses assumed")
    for _ in range(len(curve.lams) // 5):
        misfits = np.array([_misfit(curve.without(index)) for index in range(len(curve.lams))])
        stray = int(np.argmin(misfits))
        alone = bool(np.delete(misfits, stray).min() - misfits[stray] > _CUTOFF)
        if not alone or _misfit(curve) - misfits[stray] <= _STRAY_CUTOFF:
            break
        notes.append(f"the measurement at lambda {curve.lams[stray]:g} does not fit the others and was left out")
        curve = curve.without(stray)
    if _misfit(curve) > _STRAY_CUTOFF:
        notes.append("the share of thinking responses goes up and down; do not trust the ranges of these lambdas")
    emergence, saturation = (_boundary(curve, level, notes) for level in (EMERGENCE_AT, SATURATION_AT))
    return Stages(emergence, saturation, () if falls else tuple(notes), falls)


def stage_of(think_ratio: float) -> Literal[1, 2, 3]:
    """Returns the stage of a schedule from its Think ratio: 1 below emergence, 3 above saturation, else 2."""
    if not 0 <= think_ratio <= 1:
        raise InputError(f"a Think ratio lies between 0 and 1, seen {think_ratio!r}")
    if think_ratio < EMERGENCE_AT:
        return 1
    return 3 if think_ratio > SATURATION_AT else 2


def sentence(stages: Stages) -> str:
    """Returns the stages in words."""
    first, last = stages.emergence, stages.saturation
    if stages.falls:
        return "The higher lambda, the less it thinks: were the Instruct and the Thinking model swapped?"
    if first and last:
        return f"Below lambda {_shown(first)} it hardly ever thinks; from {_shown(last)} it nearly always does."
    if first:
        return f"Below lambda {_shown(first)} it hardly ever thinks; no lambda measured makes it think nearly always."
    if last:
        return f"At every lambda measured it thinks at times; from {_shown(last)} it nearly always does."
    return "How often it thinks hardly changes with lambda."


def _shown(boundary: Boundary) -> str:
    return f"{boundary.lam:.2f} ({boundary.low:.2f} to {boundary.high:.2f})"


def _pooled(points: list[CurvePoint]) -> _Curve:
    hits: dict[float, float] = defaultdict(float)
    counts: dict[float, float] = defaultdict(float)
    for point in points:
        count = DEFAULT_RESPONSES if point.num_responses is None else point.num_responses
        hits[point.lam] += count * point.think_ratio
        counts[point.lam] += count
    if len(counts) < 2:
        raise InputError(f"stages need a curve with at least 2 lambdas, seen {len(counts)}")
    lams = sorted(counts)
    return _Curve(np.array(lams), np.array([hits[lam] for lam in lams]), np.array([counts[lam] for lam in lams]))


def _isotonic(hits: Floats, counts: Floats) -> Floats:
    """Returns fit_i = max over a <= i of min over b >= i of the mean of points a to b (the min-max formula)."""
    size = len(hits)
    if size == 0:
        return np.zeros(0)
    sums, weights = np.concatenate([[0.0], np.cumsum(hits)]), np.concatenate([[0.0], np.cumsum(counts)])
    widths = weights[None, 1:] - weights[:-1, None]
    means = np.where(widths > 0, (sums[None, 1:] - sums[:-1, None]) / np.where(widths > 0, widths, 1.0), np.inf)
    smallest = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]
    fit: Floats = np.clip(np.maximum.accumulate(smallest, axis=0)[np.arange(size), np.arange(size)], 0.0, 1.0)
    return fit


def _log_likelihood(curve: _Curve, fit: Floats) -> Floats:
    """Returns the binomial log-likelihood of ``fit`` [..., points] without its constant. 0 log 0 is 0."""
    from scipy.special import xlog1py, xlogy  # type: ignore[import-untyped]  # scipy ships no annotations

    misses = np.maximum(curve.counts - curve.hits, 0.0)
    total: Floats = np.sum(xlogy(curve.hits, fit) + xlog1py(misses, -fit), axis=-1)
    return total


def _misfit(curve: _Curve) -> float:
    """Returns the deviance of the rising fit against the points."""
    free = _log_likelihood(curve, curve.hits / curve.counts)
    return float(2 * (free - _log_likelihood(curve, _isotonic(curve.hits, curve.counts))))


def _boundary(curve: _Curve, level: float, notes: list[str]) -> Boundary | None:
    fit, lams = _isotonic(curve.hits, curve.counts), curve.lams
    right, last = int(np.searchsorted(fit, level)), len(lams) - 1  # the first point at or above the level
    least = float(_log_likelihood(curve, fit)) - _CUTOFF / 2
    inside = np.concatenate([_accepted(curve, gap, level, least) for gap in range(last)])
    low = min([lams[max(right - 1, 0)], *inside])
    high = max([lams[min(right, last)], *inside])
    if _log_likelihood(curve, np.maximum(fit, level)) >= least:  # passed before the first point
        low = min(0.0, lams[0])
    if _log_likelihood(curve, np.minimum(fit, level)) >= least:  # not passed up to the last
        high = max(1.0, lams[-1])
    if 0 < right <= last:
        return Boundary(_crossing(curve, fit, right, level), float(low), float(high))
    end, where = (0, "over") if right == 0 else (last, "under")
    doubt = ", which may be chance" if len(inside) else ""
    seen = f"{100 * fit[end]:.3g} % at lambda {lams[end]:g}"
    notes.append(f"{where} {100 * level:g} % of the responses think at every lambda measured ({seen}){doubt}")
    return Boundary(float(lams[end]), float(low), float(high)) if len(inside) else None


def _accepted(curve: _Curve, gap: int, level: float, least: float) -> Floats:
    """Returns the lambdas in a gap at which a curve through ``level`` has at least the log-likelihood ``least``."""
    from scipy.special import ndtr

    shares, rises = _SHARES[:, None, None], _RISES[None, :, None]
    middle, before, after = _NORMAL.inv_cdf(level), slice(0, gap), slice(gap + 2, None)
    left, right = ndtr(middle - shares * rises), ndtr(middle + (1 - shares) * rises)
    fits = np.concatenate(
        [
            np.minimum(_isotonic(curve.hits[before], curve.counts[before]), left),
            left,
            right,
            np.maximum(_isotonic(curve.hits[after], curve.counts[after]), right),
        ],
        axis=-1,
    )
    highest = _log_likelihood(curve, fits).max(axis=1)
    lams = curve.lams[gap] + _SHARES * (curve.lams[gap + 1] - curve.lams[gap])
    accepted: Floats = lams[highest >= least]
    return accepted


def _crossing(curve: _Curve, fit: Floats, right: int, level: float) -> float:
    """Returns the lambda at which the line between the points around the crossing reaches ``level`` (probit scale).

    Half a response is added to both outcomes of the points that share a fitted value, so that 0 and 1 have a probit.
    """
    ends = []
    for index in (right - 1, right):
        count = float(curve.counts[fit == fit[index]].sum())
        ends.append(_NORMAL.inv_cdf((float(fit[index]) * count + 0.5) / (count + 1)))
    below, above = min(ends[0], _NORMAL.inv_cdf(level)), max(ends[1], _NORMAL.inv_cdf(level))
    share = (_NORMAL.inv_cdf(level) - below) / (above - below) if above > below else 1.0
    return float(curve.lams[right - 1] + share * (curve.lams[right] - curve.lams[right - 1]))
