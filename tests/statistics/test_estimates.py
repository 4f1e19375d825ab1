"""Standard errors and intervals: edge cases, a direct cluster bootstrap, and coverage by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolambda.statistics import estimates

LONG = 1e9  # a cap that never binds


def tokens(means, cap=LONG, seed=0):
    means = np.asarray(means, float)
    return estimates.tokens(means, num_responses=len(means), cap=cap, seed=seed)


def share(means, repeats=1):
    means = np.asarray(means, float)
    return estimates.share(means, num_responses=repeats * len(means))


@pytest.mark.parametrize("repeats", [1, 4, 16])
def test_the_standard_errors_against_a_cluster_bootstrap(repeats):
    rng = np.random.default_rng(repeats)
    shares = rng.binomial(repeats, rng.beta(2, 2, size=200)) / repeats
    lengths = rng.lognormal(5, 1, size=(200, repeats)).mean(axis=1)
    drawn = rng.integers(200, size=(4000, 200))
    assert share(shares, repeats).standard_error == pytest.approx(shares[drawn].mean(axis=1).std(), rel=0.08)
    assert tokens(lengths).estimate.standard_error == pytest.approx(lengths[drawn].mean(axis=1).std(), rel=0.08)


def test_one_response_a_prompt_gives_wilsons_interval():
    found = share([1] * 7 + [0] * 3)
    assert (found.low, found.high) == pytest.approx((0.3968, 0.8922), abs=1e-4)
    found = share([1] * 10)
    assert (found.low, found.high) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_repeats_narrow_the_interval_only_as_far_as_they_differ():
    alike, mixed = share([1] * 10 + [0] * 10, 16), share([0.5] * 20, 16)
    assert alike.high - alike.low == pytest.approx(share([1] * 10 + [0] * 10).high - alike.low)
    assert mixed.high - mixed.low < 0.35 * (alike.high - alike.low)


@given(st.integers(1, 16), st.lists(st.integers(0, 16), min_size=1, max_size=20))
def test_a_share_is_finite_and_never_certain(repeats, hits):
    found = share([min(hit, repeats) / repeats for hit in hits], repeats)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high - found.low > 0.01
    assert 0 < found.standard_error < 1


@given(st.lists(st.integers(1, 32768), min_size=1, max_size=20))
def test_limits_of_tokens_are_finite_and_ordered(lengths):
    found = tokens(lengths)
    estimate, bounds = found.estimate, found.bounds
    slack = 1e-9 * estimate.value
    assert 0 <= estimate.low <= bounds.lower + slack <= estimate.value + 2 * slack
    assert estimate.value <= bounds.upper + slack <= estimate.high + 2 * slack < math.inf
    assert estimate.standard_error > 0


def test_equal_lengths_and_one_prompt_are_not_certain():
    few, many = tokens([7] * 5).estimate, tokens([7] * 100).estimate
    assert few.low < many.low < 7 < many.high < few.high
    one = tokens([7]).estimate
    assert one.low == 0
    assert one.high > 70


def test_no_limit_passes_the_cap():
    found = tokens([100, 4000, 4096, 4096, 4096, 3000, 4096, 4096], cap=4096)
    assert found.estimate.high == found.bounds.upper == 4096


@pytest.mark.parametrize(
    ("budget", "expected"),
    [(100.0, 0.5), (110.0, 0.95), (80.0, 0.05), (105.0, 0.7946), (90.0, 0.2054), (200.0, 1.0), (10.0, 0.0)],
)
def test_the_chance_to_be_within_a_budget(budget, expected):
    """One half at the mean, 5 and 95 % at the bounds, normal on each side."""
    bounds = estimates.Bounds(80.0, 110.0)
    assert estimates.chance_within(100.0, bounds, budget=budget) == pytest.approx(expected, abs=1e-4)


def test_a_mean_at_its_bound_is_within_or_not():
    """At the cap no longer mean is possible."""
    capped = estimates.Bounds(80.0, 100.0)
    assert estimates.chance_within(100.0, capped, budget=100.0) == 1.0
    assert estimates.chance_within(100.0, capped, budget=99.9) < 0.5
    assert estimates.chance_within(100.0, estimates.Bounds(100.0, 110.0), budget=99.9) == 0.0


@given(st.floats(1, 1e4), st.floats(0, 1e3), st.floats(0, 1e3), st.floats(0.5, 2e4), st.floats(0.5, 2e4))
def test_a_larger_budget_is_never_less_likely(value, below, above, one, other):
    bounds = estimates.Bounds(value - below, value + above)
    chances = [estimates.chance_within(value, bounds, budget=budget) for budget in sorted((one, other))]
    assert 0 <= chances[0] <= chances[1] <= 1


def test_chunks_of_resamples_do_not_change_what_is_small(monkeypatch):
    means = np.random.default_rng(0).lognormal(5, 1, size=50)
    whole = tokens(means)
    monkeypatch.setattr(estimates, "_CHUNK", 10_000_000)
    assert tokens(means).estimate.high == pytest.approx(whole.estimate.high, rel=1e-9)


def lengths(rng, size, thinking):
    """2 tokens without thinking, a capped lognormal with it."""
    long = np.minimum(np.exp(rng.normal(6, 1, size=size)).round() + 1, 8192)
    return np.where(rng.random(size) < thinking, long, 2.0)


@pytest.mark.parametrize(("size", "thinking"), [(15, 1.0), (15, 0.5), (30, 0.3), (100, 0.8)])
def test_token_limits_cover_heavy_tails(size, thinking):
    rng = np.random.default_rng(size)
    truth = lengths(rng, 2_000_000, thinking).mean()
    draws, plain, held, upper, lower = 500, 0, 0, 0, 0
    for _ in range(draws):
        seen = lengths(rng, size, thinking)
        found = tokens(seen)
        held += found.estimate.low <= truth <= found.estimate.high
        upper += truth <= found.bounds.upper
        lower += truth >= found.bounds.lower
        plain += abs(seen.mean() - truth) <= 1.96 * seen.std(ddof=1) / math.sqrt(size)
    assert held / draws >= 0.93
    assert upper / draws >= 0.91
    assert lower / draws >= 0.93
    assert held > plain


@pytest.mark.parametrize(("size", "repeats", "mean"), [(15, 1, 0.95), (15, 4, 0.95), (30, 8, 0.5), (100, 4, 0.98)])
def test_shares_cover(size, repeats, mean):
    rng = np.random.default_rng(size + repeats)
    chances = rng.beta(4 * mean, 4 * (1 - mean), size=(600, size))
    found = [share(row / repeats, repeats) for row in rng.binomial(repeats, chances)]
    assert sum(each.low <= mean <= each.high for each in found) / 600 >= 0.93


@pytest.mark.parametrize(("size", "repeats"), [(15, 1), (30, 4), (100, 1)])
def test_paired_bounds_cover(size, repeats):
    rng = np.random.default_rng(size)
    chances = np.clip(rng.beta(2, 1, size=(600, size)), 0.05, 0.95)
    changes = (rng.binomial(repeats, chances) - rng.binomial(repeats, chances - 0.05)) / repeats
    found = [estimates.paired({"task": row}, weights=None) for row in changes]
    assert sum(each.low <= 0.05 <= each.high for each in found) / 600 >= 0.93
    assert sum(each.lower_bound <= 0.05 for each in found) / 600 >= 0.93
    assert sum(each.upper_bound >= 0.05 for each in found) / 600 >= 0.93
    assert np.mean([each.high - each.low for each in found]) < 5 * changes.std() / math.sqrt(size)


def test_no_disagreement_is_not_certainty():
    few, many = (estimates.paired({"task": np.zeros(size)}, weights=None) for size in (20, 500))
    assert few.value == many.value == 0
    assert few.low < few.lower_bound < -0.05
    assert -0.01 < many.lower_bound < 0
    assert (many.upper_bound, few.upper_bound) == (-many.lower_bound, -few.lower_bound)
    alone = estimates.paired({"task": np.zeros(1)}, weights=None)
    assert (alone.low, alone.high) == (-1, 1)


@pytest.mark.parametrize(("change", "weight"), [(1.0, 1.0), (0.25, 0.25)])
def test_the_added_prompts_are_as_large_as_the_disagreements(change, weight):
    """Whole ones for single responses; smaller ones where repeats make the observed changes smaller."""
    changes = np.array([change, -change] * 20 + [0.0] * 60)
    found = estimates.paired({"task": changes}, weights=None)
    pseudo = (40 * change**2 + 1) / 41
    assert found.standard_error == pytest.approx(math.sqrt((40 * change**2 + pseudo) / 102 / 102))
    assert found.standard_error < weight * math.sqrt(41.5 / 102 / 102)  # less than one half of a whole prompt adds


def test_tasks_combine_like_one_larger_sample():
    rng = np.random.default_rng(0)
    halves = {name: np.sign(rng.normal(size=100)) for name in ("a", "b")}
    apart = estimates.paired(halves, weights=None)
    together = estimates.paired({"all": np.concatenate(list(halves.values()))}, weights=None)
    assert apart.value == pytest.approx(together.value)
    assert apart.standard_error == pytest.approx(together.standard_error, rel=0.05)
    parts = {name: share((half + 1) / 2) for name, half in halves.items()}
    whole = share((np.concatenate(list(halves.values())) + 1) / 2)
    combined = estimates.macro(parts, weights=None)
    assert (combined.low, combined.high) == pytest.approx((whole.low, whole.high), abs=0.01)
    assert combined.num_prompts == 200


def test_what_weighs_nothing_changes_nothing():
    rng = np.random.default_rng(0)
    changes = {name: np.sign(rng.normal(size=50)) for name in ("a", "b", "guard")}
    parts = {name: share((change + 1) / 2) for name, change in changes.items()}
    weights = {"a": 0.3, "b": 0.7}
    rest = [{name: each[name] for name in weights} for each in (changes, parts)]
    assert estimates.paired(changes, weights={**weights, "guard": 0.0}) == estimates.paired(rest[0], weights=weights)
    assert estimates.macro(parts, weights={**weights, "guard": 0.0}) == estimates.macro(rest[1], weights=weights)


def test_the_error_of_an_average_over_tasks_by_hand():
    """SE^2 = sum w_t^2 SE_t^2."""
    parts = {"a": share([1.0] * 30 + [0.0] * 30), "b": share([1.0] * 5 + [0.0] * 45)}
    found = estimates.macro(parts, weights={"a": 0.2, "b": 0.8})
    expected = math.sqrt((0.2 * parts["a"].standard_error) ** 2 + (0.8 * parts["b"].standard_error) ** 2)
    assert found.standard_error == pytest.approx(expected) and found.value == pytest.approx(0.2 * 0.5 + 0.8 * 0.1)
