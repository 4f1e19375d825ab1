"""Numbers as words, written in one way on the terminal, the page and the model card: ``94.4 %``, ``-1.2 points``.

A minus is the hyphen of the keyboard, so that numbers can be copied into other programs.
"""

from __future__ import annotations

from autolambda.statistics.estimates import Difference, Estimate, number

SAME = 0.005  # a change of the tokens (share of 1) that rounds to nothing
FACTOR = 2.0  # from this ratio on, more tokens are told as a multiple


def percent(share: float) -> str:
    """Returns a share (0 to 1) as ``88.5 %``."""
    return f"{100 * share:.1f} %"


def percent_of(estimate: Estimate) -> str:
    """Returns a share with its 95 % interval, as ``88.5 % (85.8 to 90.8)``."""
    return f"{percent(estimate.value)} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def tokens(value: float) -> str:
    """Returns mean tokens as ``33.8 tokens``."""
    return f"{number(value)} tokens"


def limit(budget: float) -> str:
    """Returns a budget as ``4,000 tokens``, without decimals if it is a whole number."""
    return f"{number(budget).removesuffix('.0')} tokens"


def tokens_of(estimate: Estimate) -> str:
    """Returns mean tokens with their 95 % interval, as ``33.8 tokens (31.5 to 36.5)``."""
    return f"{number(estimate.value)} tokens ({number(estimate.low)} to {number(estimate.high)})"


def signed(change: float) -> str:
    """Returns a difference of shares (-1 to 1) in points, as ``+1.2``; never ``-0.0``."""
    return f"{round(100 * change, 1) + 0.0:+.1f}"


def points(change: float) -> str:
    """Returns a number of points without its sign, as ``1.2 points`` or ``1 point``."""
    shown = f"{abs(100 * change):.1f}".removesuffix(".0")
    return f"{shown} point{'' if shown == '1' else 's'}"


def points_of(change: Difference) -> str:
    """Returns a difference in accuracy with its 95 % interval, as ``+1.2 points (-0.3 to +2.7)``."""
    return f"{signed(change.value)} points ({signed(change.low)} to {signed(change.high)})"


def lead(change: float, interval: Difference | None) -> str:
    """Returns a difference in accuracy in plain words, as ``12.1 points less accurate (2.4 to 21.1)``.

    ``interval`` is the paired difference, if known. If it holds 0, the two are as accurate within the error.
    """
    if interval and interval.low <= 0 <= interval.high:
        return f"as accurate within the error: {points_of(interval)}"
    size, word = f"{abs(100 * change):.1f} points", "less" if change < 0 else "more"
    if interval is None:
        return f"{size} {word} accurate"
    low, high = sorted(abs(100 * each) for each in (interval.low, interval.high))
    return f"{size} {word} accurate ({low:.1f} to {high:.1f})"


def saving(ratio: float) -> str:
    """Returns a ratio of mean tokens in plain words, as ``59 % fewer tokens``."""
    if abs(ratio - 1) < SAME:
        return "as many tokens"
    if ratio >= FACTOR:
        return f"{ratio:.1f} times the tokens"
    return f"{abs(100 * (1 - ratio)):.0f} % {'fewer' if ratio < 1 else 'more'} tokens"


def duration(seconds: float) -> str:
    """Returns ``45 s``, ``12 min`` or ``3.4 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
