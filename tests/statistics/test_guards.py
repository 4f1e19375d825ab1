"""Guards: what is lost against the better parent, and whether that is shown to be allowed."""

import numpy as np
import pytest

from autolambda.statistics import estimates
from autolambda.statistics.estimates import Difference
from autolambda.statistics.guards import Drop, drop_of, keeps_guards


def gain(value, reach=0.01):
    return Difference(value, reach / 2, value - reach, value + reach, value - 0.8 * reach, value + 0.8 * reach, 100)


@pytest.mark.parametrize(
    ("gains", "value", "kept"),
    [
        ((0.05, 0.03), -0.03, True),
        ((0.0, 0.03), 0.0, True),
        ((-0.025, 0.03), 0.025, None),  # so much below one parent is so much below the better
        ((-0.02, -0.02), 0.02, None),
        ((-0.2, 0.03), 0.2, False),
        ((0.03, -0.2), 0.2, False),
        ((-0.0121, -0.0121), 0.0121, None),  # its lower bound is just not above
        ((-0.0119, -0.0119), 0.0119, True),
        ((-0.0279, 0.0), 0.0279, None),
        ((-0.0281, 0.0), 0.0281, False),
    ],
)
def test_the_drop_is_against_the_better_parent(gains, value, kept):
    found = drop_of(map(gain, gains), max_drop=0.02)
    assert found.value == pytest.approx(value) and found.kept is kept
    assert (found.low, found.high) == pytest.approx((value - 0.01, value + 0.01)) and found.max_drop == 0.02


@pytest.mark.parametrize(
    ("kept", "expected"),
    [([], True), ([True, True], True), ([True, None], None), ([None, False, True], False), ([False], False)],
)
def test_all_guards_together(kept, expected):
    assert keeps_guards({str(i): Drop(0.0, 0.0, 0.0, 0.02, each) for i, each in enumerate(kept)}) is expected


@pytest.mark.parametrize("better_by", [0.0, 0.1])
def test_a_schedule_at_the_edge_is_shown_to_keep_or_to_break_in_one_of_twenty(better_by):
    """Prompts differ and the parents share them; the truth lies ``max_drop`` below the better parent."""
    rng, max_drop, draws, size = np.random.default_rng(1), 0.05, 600, 250
    kept = []
    for _ in range(draws):
        hard = rng.beta(3, 2, size=size) * 0.8 + 0.1
        parents = [rng.random(size) < hard, rng.random(size) < np.clip(hard - better_by, 0, 1)]
        ours = rng.random(size) < np.clip(hard - max_drop, 0, 1)
        changes = [ours.astype(float) - parent for parent in parents]
        gains = [estimates.paired({"rules": change}, weights=None) for change in changes]
        kept.append(drop_of(gains, max_drop=max_drop).kept)
    assert kept.count(True) / draws <= 0.06
    # to be broken against either of two equal parents takes either's luck
    assert kept.count(False) / draws <= (0.06 if better_by else 0.11)
    assert kept.count(None) / draws > 0.8
