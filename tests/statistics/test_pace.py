"""The pace of an engine: fitted from the windows of a call, and what it says of calls of other sizes."""

import math
from dataclasses import astuple

import pytest

from autolambda.statistics.pace import CallTime, Pace, Window, time_call

STEP, ROW = 6e-3, 3e-5


def windows_of(lengths: list[int], *, step: float = STEP, row: float = ROW, every: int = 50) -> list[Window]:
    """The windows of a call that starts all its responses at once, each ``every`` steps long."""
    windows = []
    for start in range(0, max(lengths), every):
        running = [min(length - start, every) for length in lengths if length > start]
        tokens, steps = sum(running), max(running)
        windows.append(Window(step * steps + row * tokens, tokens, tokens / steps))
    return windows


LENGTHS = [100 + 15 * i for i in range(64)]  # 100 to 1,045


def test_the_pace_of_a_call_is_the_one_that_it_was_made_with():
    timed = time_call(LENGTHS, windows_of(LENGTHS))
    assert timed.pace is not None
    assert (timed.pace.step, timed.pace.row) == pytest.approx((STEP, ROW), rel=0.01)
    prefilled = [Window(windows_of(LENGTHS)[0].seconds + 2.0, *astuple(windows_of(LENGTHS)[0])[1:])]
    assert time_call(LENGTHS, [*prefilled, *windows_of(LENGTHS)[1:]]).pace == timed.pace
    assert timed.pace.longest == pytest.approx(1045 / (sum(LENGTHS) / 64))
    assert timed.seconds == pytest.approx(STEP * 1045 + ROW * sum(LENGTHS))
    assert timed.pace.seconds(sum(LENGTHS), mean_tokens=sum(LENGTHS) / 64, num_calls=1) == pytest.approx(
        timed.seconds, rel=0.01
    )


def test_the_tail_of_a_call_is_the_time_with_few_running():
    lengths = [100] * 63 + [1000]
    timed = time_call(lengths, windows_of(lengths))
    assert timed.idle_seconds == pytest.approx((STEP + ROW) * 900)
    assert time_call([100] * 64, windows_of([100] * 64)).idle_seconds == 0.0


def test_from_enough_responses_on_half_of_the_time_is_each_ones_own():
    pace = Pace(STEP, ROW, longest=4.0)
    assert pace.enough == pytest.approx(800)
    fixed = STEP * 4.0 * 1000
    assert pace.seconds(800 * 1000, mean_tokens=1000, num_calls=1) == pytest.approx(2 * fixed)
    assert (Pace(STEP, 0.0, 4.0).enough, Pace(0.0, ROW, 4.0).enough) == (math.inf, 0.0)


@pytest.mark.parametrize(
    "lengths",
    [[100] * 4 + [1000], [30] * 64, [200] * 64],
    ids=["few responses", "few windows", "all alike"],
)
def test_a_call_that_shows_no_pace_has_none(lengths):
    assert time_call(lengths, windows_of(lengths)).pace is None


def test_an_empty_call_has_no_time():
    assert time_call([], []) == CallTime(0, 0, 0.0, 0.0)


def test_the_time_of_a_call_survives_json():
    timed = time_call(LENGTHS, windows_of(LENGTHS))
    assert CallTime.from_dict(timed.to_dict()) == timed
    without = CallTime(8, 80, 1.0, 0.5)
    assert CallTime.from_dict(without.to_dict()) == without
