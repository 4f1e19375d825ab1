"""The allowance: the tokens of a study, how they are shared out, and how many responses that is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolambda.optimizer.token_allowance import (
    CONFIRM_SHARE,
    LEAST_CONFIRM,
    LEAST_FULL,
    PARENT_SHARE,
    TokenAllowance,
)


def granted(total, *, ends=1000.0, num_confirm=1024):
    return TokenAllowance(total=total, ends=ends, num_confirm=num_confirm, num_confirm_prompts=num_confirm)


@pytest.mark.parametrize(
    ("num_search", "cap", "total"),
    [
        (256, None, 3.0 * LEAST_FULL),  # a small slice is taken for a larger one
        (LEAST_FULL, None, 3.0 * LEAST_FULL),
        (5000, None, 15_000.0),  # both parents on every prompt
        (5000, 700, 700.0),
        (1, 10**9, 1e9),
    ],
)
def test_the_tokens_of_a_study(num_search, cap, total):
    found = TokenAllowance.of(3.0, num_search=num_search, num_confirm=9, num_confirm_prompts=8, cap=cap)
    assert found == TokenAllowance(total=total, ends=3.0, num_confirm=9, num_confirm_prompts=8)
    assert found.search == pytest.approx(0.5 * total)


@pytest.mark.parametrize(
    ("total", "ends", "num_confirm", "expected"),
    [
        (2_000_000, 1000.0, 1024, 120),  # six hundredths of the tokens, by what both cost together
        (10_000_000, 1000.0, 1024, 600),
        (100_000_000, 1000.0, 1024, 1024),  # no more than there are
        (1_000, 1000.0, 1024, LEAST_CONFIRM),  # no fewer than can be read
        (1_000, 1000.0, 20, 20),
    ],
)
def test_the_responses_of_a_parent(total, ends, num_confirm, expected):
    assert granted(total, ends=ends, num_confirm=num_confirm).num_parent == expected


@pytest.mark.parametrize(
    ("total", "predicted", "expected"),
    [
        (2_000_000, [1000.0], 880),  # 1,000,000 less 120 responses of each parent
        (2_000_000, [500.0, 250.0, 250.0], 880),  # all finalists get as many
        (1_000_000, [500.0], 872),
        (1_000_000, [10.0], 1024),
        (1_000_000, [1e6], LEAST_CONFIRM),
    ],
)
def test_the_responses_of_a_finalist(total, predicted, expected):
    assert granted(total).num_final(predicted) == expected


@given(
    total=st.floats(1e3, 1e9),
    ends=st.floats(2.0, 1e5),
    num_confirm=st.integers(1, 4096),
    predicted=st.lists(st.floats(1.0, 1e5), min_size=1, max_size=5),
)
def test_what_is_planned_is_paid_for_unless_it_is_the_least(total, ends, num_confirm, predicted):
    found = granted(total, ends=ends, num_confirm=num_confirm)
    least = min(num_confirm, LEAST_CONFIRM)
    for number in (found.num_parent, found.num_final(predicted)):
        assert least <= number <= num_confirm
    if found.num_parent > least:
        assert found.num_parent * ends <= PARENT_SHARE * total
    if found.num_parent > least and found.num_final(predicted) > least:
        spent = found.search + found.num_parent * ends + found.num_final(predicted) * sum(predicted)
        assert spent <= total * (1 + 1e-9)
    assert found.search + CONFIRM_SHARE * total == pytest.approx(total)


def test_with_guards_the_parents_get_as_many_responses_as_the_finalists():
    plain = TokenAllowance(2_000_000.0, 1000.0, 4096, 4096)
    guarded = TokenAllowance(2_000_000.0, 1000.0, 4096, 4096, with_guards=True)
    assert plain.search == guarded.search
    assert guarded.num_final([600.0, 400.0]) == 500  # a million for both parents and both finalists, 2,000 each
    assert plain.num_final([600.0, 400.0]) == 880
    assert guarded.num_final([1e9]) == LEAST_CONFIRM and guarded.num_final([1.0]) == 999
    found = TokenAllowance.of(3.0, num_search=1, num_confirm=9, num_confirm_prompts=8, cap=None, with_guards=True)
    assert (
        found.with_guards
        and not TokenAllowance.of(3.0, num_search=1, num_confirm=9, num_confirm_prompts=8, cap=None).with_guards
    )
