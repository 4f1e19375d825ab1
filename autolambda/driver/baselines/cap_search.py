"""Finds the cap on thinking whose measured mean tokens meet an aim.

Mean tokens rise with the cap, but by how much only answers after a cut show. So each step measures the cap that an
estimate proposes, corrects the estimate by what it missed there, and narrows the range between a cap below the aim and
one above it. A step that does not halve the range is followed by its middle.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

TOLERANCE = 0.02  # of the aim: the caps that meet it


def search_cap(
    measure: Callable[[int], float],
    estimate: Callable[[int], float],
    *,
    aim: float,
    longest: int,
    may_go_on: Callable[[], bool] = lambda: True,
) -> dict[int, float]:
    """Returns the measured caps with their mean tokens, the one nearest to ``aim`` last.

    ``measure`` gives the mean tokens of a cap, and ``estimate`` guesses them and never falls. A cap of ``longest`` cuts
    nothing and has a mean above the aim. The search ends within ``TOLERANCE`` of the aim, if no cap is left between two
    neighbours, or if it may not ``go_on``.
    """
    low, high, missed, halve = 0, max(longest, 2), 0.0, False
    found: dict[int, float] = {}
    while high - low > 1 and (not found or may_go_on()):
        width = high - low
        cap = low + bisect_right(range(low + 1, high), aim - missed, key=estimate)
        cap = low + width // 2 if halve else min(max(cap, low + 1), high - 1)
        found[cap] = measure(cap)
        if abs(found[cap] - aim) <= TOLERANCE * aim:
            break
        missed = found[cap] - estimate(cap)
        low, high = (cap, high) if found[cap] <= aim else (low, cap)
        halve = not halve and high - low > width // 2
    return dict(sorted(found.items(), key=lambda each: -abs(each[1] - aim)))


def rank(mean_tokens: float, accuracy: float, *, aim: float) -> tuple[bool, float, float]:
    """Returns the place of a closing among others, the highest first.

    Those that meet the aim come first, by accuracy. The others follow by how little they miss it.
    """
    if mean_tokens <= (1 + TOLERANCE) * aim:
        return True, accuracy, -mean_tokens
    return False, -mean_tokens, accuracy
