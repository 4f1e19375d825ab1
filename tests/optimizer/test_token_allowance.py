"""The allowance: the tokens of a study, how they are shared out, and how many responses that is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolambda.optimizer.token_allowance import (
    CONFIRM_SHARE,
    LEAST_CONFIRM,
    LEAST_FULL,
    PARENT_SHARE,
    RESERVED,
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
    assert found.search == pytest.approx(0.45 * total)


def test_a_reserve_is_kept_back_and_what_the_search_leaves_is_confirmed_with():
    found = granted(2_000_000)
    assert found.search + found.confirm(found.search) + RESERVED * found.total == pytest.approx(found.total)
    assert found.confirm(0.5 * found.search) == pytest.approx(found.confirm(found.search) + 0.5 * found.search)
    assert found.confirm(0) == pytest.approx((1 - RESERVED) * found.total)
    # a search that overran takes nothing from the confirmation
    assert found.confirm(2 * found.search) == found.confirm(found.search) == pytest.approx(CONFIRM_SHARE * found.total)


@pytest.mark.parametrize(
    ("total", "cost", "num_confirm", "expected"),
    [
        (2_000_000, 500.0, 1024, 120),  # three hundredths of the tokens
        (2_000_000, 1000.0, 1024, 60 + 4),  # no fewer than can be read
        (10_000_000, 500.0, 1024, 600),
        (100_000_000, 500.0, 1024, 1024),  # no more than there are
        (1_000, 500.0, 1024, LEAST_CONFIRM),
        (1_000, 500.0, 20, 20),
    ],
)
def test_the_responses_of_a_parent_that_cannot_be_the_answer(total, cost, num_confirm, expected):
    assert granted(total, num_confirm=num_confirm).num_parent(cost) == expected


@pytest.mark.parametrize(
    ("total", "costs", "spent", "others", "expected"),
    [
        (2_000_000, 1000.0, 900_000, 0.0, 900),
        (2_000_000, 1000.0, 900_000, 120_000.0, 780),
        (2_000_000, 1000.0, 850_000, 0.0, 950),  # the search left 50,000
        (2_000_000, 1000.0, 1_500_000, 0.0, 900),  # the search overran
        (2_000_000, 1000.0, 0, 0.0, 1024),  # no more than there are
        (1_000_000, 1e6, 450_000, 0.0, LEAST_CONFIRM),
    ],
)
def test_the_responses_of_a_finalist(total, costs, spent, others, expected):
    assert granted(total).num_final(costs, spent=spent, others=others) == expected


@given(
    total=st.floats(1e3, 1e9),
    cost=st.floats(2.0, 1e5),
    num_confirm=st.integers(1, 4096),
    predicted=st.lists(st.floats(1.0, 1e5), min_size=1, max_size=5),
    share=st.floats(0.0, 1.0),
)
def test_what_is_planned_is_paid_for_unless_it_is_the_least(total, cost, num_confirm, predicted, share):
    found = granted(total, num_confirm=num_confirm)
    least, spent = min(num_confirm, LEAST_CONFIRM), share * found.search
    others = found.num_parent(cost) * cost
    num_final = found.num_final(sum(predicted), spent=spent, others=others)
    for number in (found.num_parent(cost), num_final):
        assert least <= number <= num_confirm
    if found.num_parent(cost) > least:
        assert others <= PARENT_SHARE * total * (1 + 1e-9)
    if num_final > least:
        assert spent + others + num_final * sum(predicted) <= (1 - RESERVED) * total * (1 + 1e-9)
