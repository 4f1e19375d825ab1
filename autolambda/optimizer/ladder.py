"""The ladder: uniform lambdas, both ends, then bisections of the steepest rise of the Think ratio.

It serves the stages, stands beside the parents, and gives the surrogate its first points.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

from autolambda.statistics.curve import CurvePoint
from autolambda.statistics.stages import detect_stages

KNOWN_WITHIN = 0.03  # of lambda, either way: no further rung is needed


def is_known(curve: Sequence[CurvePoint]) -> bool:
    """Whether emergence and saturation both have a 95 % interval of at most ``KNOWN_WITHIN`` either way."""
    if len({point.lam for point in curve}) < 2:
        return False
    stages = detect_stages(curve)
    return all(
        boundary is not None and boundary.high - boundary.low <= 2 * KNOWN_WITHIN
        for boundary in (stages.emergence, stages.saturation)
    )


def next_rung(curve: Sequence[tuple[float, float]], failed: Collection[float] = ()) -> float:
    """The next uniform lambda from (lam, think_ratio) pairs: 0, 1, then the middle of the steepest rise.

    A gap counts by its rise and, a quarter as much, by its width, so that no part of the range stays unseen. ``failed``
    lambdas are passed over: the gap beside an end that failed counts by its width alone, and a middle that failed gives
    way to the middle of its lower half.
    """
    seen = {lam for lam, _ in curve}
    failed = set(failed) - seen
    ends = [end for end in (0.0, 1.0) if end not in seen]
    for end in ends:
        if end not in failed:
            return end
    # beside an end that failed no rise is known: its neighbour's ratio makes it 0
    ratios = [ratio for _, ratio in sorted(curve)] or [0.0]
    ordered = sorted([*curve, *((end, ratios[-1 if end else 0]) for end in ends)])
    gaps = [
        (abs(b[1] - a[1]) + (b[0] - a[0]) / 4, -a[0], _middle(a[0], b[0], failed))
        for a, b in itertools.pairwise(ordered)
    ]
    return max(gap for gap in gaps if gap[2] not in seen)[2]


def _middle(low: float, high: float, failed: Collection[float]) -> float:
    """The middle, or the middle of the lower half where that failed, and so on."""
    while (middle := (low + high) / 2) in failed:
        high = middle
    return middle
