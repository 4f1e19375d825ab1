"""Guards: tasks on which a schedule may lose only so much accuracy against the better of the parents.

A guard counts in no average. It is a constraint like the budget: shown to be kept, shown to be broken, or neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autolambda.statistics.estimates import Difference


@dataclass(frozen=True)
class Drop:
    """The accuracy lost against the better parent, with its 95 % interval, and the accuracy that may be lost.

    ``kept`` is ``True`` if the loss is shown to be within ``max_drop`` (one-sided 95 %). It is ``False`` if the loss is
    shown to be larger, and ``None`` if neither is shown.
    """

    value: float
    low: float
    high: float
    max_drop: float
    kept: bool | None


def drop_of(gains: Iterable[Difference], *, max_drop: float) -> Drop:
    """Returns the drop from the paired differences, schedule minus parent, for each parent.

    A guard is kept if it is kept against each parent. In this intersection-union test (Berger 1982) each part may use
    the whole 5 %. Testing only against the parent that did better in these data would select on noise.
    """
    gains = list(gains)
    kept = True if min(gain.lower_bound for gain in gains) > -max_drop else None
    if min(gain.upper_bound for gain in gains) < -max_drop:
        kept = False
    value, low, high = (max(0.0 - getattr(gain, name) for gain in gains) for name in ("value", "high", "low"))
    return Drop(value, low, high, max_drop, kept)


def keeps_guards(drops: Mapping[str, Drop]) -> bool | None:
    """Returns ``True`` if every guard is shown to be kept, ``False`` if one is shown to be broken, else ``None``."""
    kept = {each.kept for each in drops.values()}
    return False if False in kept else None if None in kept else True
