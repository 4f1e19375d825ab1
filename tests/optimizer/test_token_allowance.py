"""The allowance: the tokens of a study, how they are shared out, and how many responses that is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolambda.optimizer.token_allowance import (
    CONFIRM_SHARE,
    LEAST_CONFIRM,
    LEAST_FULL,
    RESERVED,
    TokenAllowance,
)


def granted(total, *, ends=1000.0, num_confirm=1024, num_prompts=None):
    prompts = num_confirm if num_prompts is None else num_prompts
    return TokenAllowance(total=total, ends=ends, num_confirm=num_confirm, num_confirm_prompts=prompts)


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
    ("total", "costs", "spent", "once", "expected"),
    [
        (2_000_000, 1000.0, 900_000, 0.0, 900),
        (2_000_000, 1000.0, 900_000, 500.0, 650),  # 500 prompts, and 150 of them again
        (2_000_000, 1000.0, 900_000, 1000.0, 450),  # as many prompts as there are responses
        (2_000_000, 1000.0, 850_000, 0.0, 950),  # the search left 50,000
        (2_000_000, 1000.0, 1_500_000, 0.0, 900),  # the search overran
        (2_000_000, 1000.0, 0, 0.0, 1024),  # no more than there are
        (1_000_000, 1e6, 450_000, 0.0, LEAST_CONFIRM),
    ],
)
def test_the_responses_of_a_finalist(total, costs, spent, once, expected):
    assert granted(total, num_prompts=500).num_final(costs, spent=spent, once=once) == expected


@given(
    total=st.floats(1e3, 1e9),
    once=st.floats(0.0, 1e5),
    num_confirm=st.integers(1, 4096),
    repeats=st.integers(1, 8),
    predicted=st.lists(st.floats(1.0, 1e5), min_size=1, max_size=5),
    share=st.floats(0.0, 1.0),
)
def test_what_is_planned_is_paid_for_unless_it_is_the_least(total, once, num_confirm, repeats, predicted, share):
    found = granted(total, num_confirm=num_confirm, num_prompts=-(-num_confirm // repeats))
    least, spent = min(num_confirm, LEAST_CONFIRM), share * found.search
    num_final = found.num_final(sum(predicted), spent=spent, once=once)
    assert least <= num_final <= num_confirm
    cost = num_final * sum(predicted) + found.num_prompts(num_final) * once
    if num_final > least:
        assert spent + cost <= (1 - RESERVED) * total * (1 + 1e-9)
    if num_final < num_confirm:  # nothing is left over, but for one more response
        assert cost > found.confirm(spent) - sum(predicted) - once - 1e-6 * total
