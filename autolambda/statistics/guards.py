"""Guards: tasks on which a schedule may not fall behind the better of the parents by more than so much accuracy.

A guard counts in no average. It is a constraint beside the budget: shown to be kept, shown to be broken, or neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autolambda.statistics.estimates import Difference


@dataclass(frozen=True)
class Drop:
    """The accuracy that is lost against the better of several parents, with its 95 % interval, and what may be lost.

    ``kept`` says that no more is lost: shown at one-sided 95 % (``True``), shown to be false, or neither (``None``).
    """

    value: float
    low: float
    high: float
    max_drop: float
    kept: bool | None


def drop_of(gains: Iterable[Difference], *, max_drop: float) -> Drop:
    """The drop from the paired differences to each of the parents, the parent's accuracy taken off.

    It is kept where it is against each of them: an intersection-union test (Berger 1982), whose parts may each take
    the whole 5 %. To test against the one that did better in the same data would choose by luck.
    """
    gains = list(gains)
    kept = True if min(gain.lower_bound for gain in gains) > -max_drop else None
    if min(gain.upper_bound for gain in gains) < -max_drop:
        kept = False
    value, low, high = (max(0.0 - getattr(gain, name) for gain in gains) for name in ("value", "high", "low"))
    return Drop(value, low, high, max_drop, kept)


def keeps_guards(drops: Mapping[str, Drop]) -> bool | None:
    """Whether every guard is shown to be kept; ``False`` where one is shown to be broken, ``None`` else."""
    kept = {each.kept for each in drops.values()}
    return False if False in kept else None if None in kept else True
