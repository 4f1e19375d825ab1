"""Dithered rounding: draws without structure, and values that go to a neighbour at a fair share or stay."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from autolambda.merging.rounding import Draws, Rounding, matrix_shape, rounded

HALVES = (torch.bfloat16, torch.float16)
GOLDEN = [[46458, 61721, 1459, 54662], [53749, 64695, 15565, 31276], [49338, 8841, 58570, 57748]]
GOLDEN_VECTOR = [[12778], [41014], [45785], [24165]]
SHAPE = (1024, 768)
EXTREMES = Draws(torch.tensor([1, -1], dtype=torch.int32), torch.ones(1, dtype=torch.int32))
"""The smallest draw, 0, and the largest, 65,535, as two rows."""


def draws_of(tensor: str, *shape: int, seed: int = 0) -> Draws:
    draws = Rounding(seed=seed).draws(tensor, matrix_shape(shape), torch.bfloat16)
    assert draws is not None
    return draws


def noise(tensor: str = "model.layers.0.mlp.up_proj.weight", *shape: int, seed: int = 0) -> np.ndarray:
    """The draws of a tensor, centred and with a standard deviation of 1."""
    values = draws_of(tensor, *(shape or SHAPE), seed=seed).values().double().numpy()
    return (values - 32767.5) / (65536 / math.sqrt(12))


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """In standard errors: beyond 4 for one of 16,000 pairs that are independent."""
    return float((one * other).mean() * math.sqrt(one.size))


def every_value(dtype: torch.dtype) -> Tensor:
    """All 65,536 bit patterns of a dtype: both zeros, subnormals, infinities and NaN."""
    return torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)


def between(dtype: torch.dtype, *, count: int = 400_000) -> Tensor:
    """Float32 values of any exponent that the dtype has, most of them between two of its values."""
    generator = torch.Generator().manual_seed(0)
    values = every_value(dtype).float()
    values = values[values.isfinite() & (values.abs() < torch.finfo(dtype).max / 2)]
    chosen = values[torch.randint(len(values), (count,), generator=generator)]
    widths = torch.finfo(dtype).eps * (torch.rand(count, generator=generator) - 0.5)
    return chosen * (1 + widths) + torch.finfo(dtype).smallest_normal * widths


def reference(values: Tensor, dtype: torch.dtype, draws: Tensor) -> Tensor:
    """Takes the value away from zero if the share of the step behind it, in 65,536ths, and the draw give a whole."""
    magnitudes = values.double().abs()
    low = values.abs().to(dtype).view(torch.int16)
    low -= (low.view(dtype).double() > magnitudes).to(torch.int16)  # nearest, made the neighbour towards zero
    high = (low + 1).view(dtype)
    lower = low.view(dtype)
    share = (magnitudes - lower.double()) / (high.double() - lower.double())
    away = (share * 65536).floor() + draws.view(values.shape) >= 65536
    return torch.where(away, high, lower).copysign(values.to(dtype))


def same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one.contiguous().view(torch.int16), other.view(torch.int16))


@pytest.mark.parametrize("shift", [0, 8], ids=["lower bits", "upper bits"])
@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"])
def test_draws_are_uniform(name: str, shift: int) -> None:
    counts = np.bincount((draws_of(name, *SHAPE).values().numpy() >> shift & 0xFF).ravel(), minlength=256)
    assert 1e-3 < stats.chisquare(counts).pvalue < 1 - 1e-3


@pytest.mark.parametrize("lag", [1, 2, 3, 5, 8, 64, 128, 500])
def test_draws_do_not_repeat_along_rows_and_columns(lag: int) -> None:
    values = noise()
    assert abs(correlation(values[lag:], values[:-lag])) < 4
    assert abs(correlation(values[:, lag:], values[:, :-lag])) < 4
    assert abs(correlation(values[lag:, lag:], values[:-lag, :-lag])) < 4


def test_draws_of_layers_and_seeds_are_independent() -> None:
    names = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(6)]
    layers = [*(noise(name) for name in names), *(noise(names[0], seed=seed) for seed in (1, 2, 3))]
    for i, one in enumerate(layers):
        for other in layers[:i]:
            assert abs(correlation(one, other)) < 4
            assert abs(correlation(one[1:], other[:-1])) < 4
            assert abs(correlation(one[:, 1:], other[:, :-1])) < 4


@pytest.mark.parametrize("lam", [0.1, 0.5, 0.8])
def test_moved_weights_have_the_spectrum_of_independent_noise(lam: float) -> None:
    one_tensor = noise()
    layers = np.concatenate([noise(f"model.layers.{layer}.norm", 16, 768) for layer in range(64)])
    uniform = np.random.default_rng(0).random(SHAPE)
    independent = np.linalg.norm((uniform < lam) - lam, 2)
    for values in (one_tensor, layers):
        moved = values / math.sqrt(12) + 0.5 < lam
        assert np.linalg.norm(moved - lam, 2) == pytest.approx(independent, rel=0.03)


def test_draws_stay_as_they_are() -> None:
    """Other draws would give other weights for the lambda of an old study."""
    draws = draws_of("model.layers.0.mlp.up_proj.weight", 3, 4)
    assert draws.values().tolist() == GOLDEN
    assert draws_of("model.norm.weight", 4, seed=1).values().tolist() == GOLDEN_VECTOR


def test_parts_have_the_draws_of_the_whole() -> None:
    draws = draws_of("a", 40, 30)
    whole = draws.values()
    few, some = torch.tensor([7, 3, 39]), torch.tensor([29, 0])
    for rows, columns in ((slice(5, 17), slice(None)), (slice(None), slice(10, 20)), (few, some), (few, slice(3, 9))):
        assert torch.equal(draws.part(rows, columns).values(), whole[rows][:, columns])
    assert torch.equal(draws_of("a", 20, 30).values(), whole[:20])  # a tensor that is longer starts alike
    assert torch.equal(draws.to(torch.device("cpu")).values(), whole)


@pytest.mark.parametrize(("shape", "flat"), [((4, 10, 30), (40, 30)), ((40,), (40, 1)), ((), (1, 1)), ((2, 0), (2, 0))])
def test_leading_dimensions_are_flattened(shape: tuple[int, ...], flat: tuple[int, int]) -> None:
    values = draws_of("a", *shape).values()
    assert values.shape == flat and torch.equal(values, draws_of("a", *flat).values())


def test_nearest_and_float32_have_no_draws() -> None:
    assert Rounding("nearest").draws("a", (2, 2), torch.bfloat16) is None
    assert Rounding().draws("a", (2, 2), torch.float32) is None
    assert Rounding().draws("model.norm.weight", (64,), torch.bfloat16) is None  # vectors hold too few values
    values = between(torch.float16, count=1000)
    assert same(rounded(values, torch.float16, None), values.half())
    assert torch.equal(rounded(values, torch.float32, draws_of("a", 1000)), values)


@pytest.mark.parametrize("dtype", HALVES)
def test_values_of_the_dtype_never_move(dtype: torch.dtype) -> None:
    values = every_value(dtype)
    for row in (slice(0, 1), slice(1, 2)):
        draws = Draws(EXTREMES.rows[row].expand(len(values)), EXTREMES.columns)
        found = rounded(values.float(), dtype, draws)
        assert same(found[~values.isnan()], values[~values.isnan()]) and torch.equal(found.isnan(), values.isnan())


@pytest.mark.parametrize("dtype", HALVES)
def test_values_go_to_the_neighbour_that_the_draw_says(dtype: torch.dtype) -> None:
    values = between(dtype)
    draws = draws_of("a", len(values))
    assert same(rounded(values, dtype, draws), reference(values, dtype, draws.values()))
    subnormal = values.abs() < torch.finfo(dtype).smallest_normal
    assert subnormal.sum() > 1000 and (~subnormal).sum() > 1000
    matrix = values.view(500, 800).t()  # not contiguous
    draws = draws_of("a", 800, 500)
    assert same(rounded(matrix, dtype, draws), reference(matrix.contiguous(), dtype, draws.values()))


@pytest.mark.parametrize("draws", [EXTREMES.part(slice(0, 1)), EXTREMES.part(slice(1, 2))], ids=["lowest", "highest"])
@pytest.mark.parametrize("dtype", HALVES)
def test_the_extreme_draws(dtype: torch.dtype, draws: Draws) -> None:
    values = between(dtype, count=2000)
    for_all = Draws(draws.rows.expand(2000), draws.columns)
    expected = reference(values, dtype, for_all.values())
    assert same(rounded(values, dtype, for_all), expected)
    moved_away = expected.double().abs() > values.double().abs()
    assert moved_away.double().mean() > 0.9 if draws.rows[0] < 0 else not moved_away.any()


@pytest.mark.parametrize(
    ("dtype", "step", "value"),
    [
        (torch.bfloat16, 2.0**-7, 1.3),
        (torch.bfloat16, 2.0**-12, -0.041),
        (torch.float16, 2.0**-10, 1.3003),
        (torch.float16, 2.0**-15, -0.041007),
        (torch.float16, 2.0**-24, 1.7e-5),
        (torch.float16, 2.0**-24, -2.1e-8),  # below the smallest value of float16
    ],
)
def test_the_mean_is_the_float32_value(dtype: torch.dtype, step: float, value: float) -> None:
    values = torch.full((300, 400), value)
    exact = float(values[0, 0])
    share = exact / step % 1
    error = step * math.sqrt(share * (1 - share))
    found = rounded(values, dtype, draws_of("a", 300, 400)).double()
    assert float(found.mean()) == pytest.approx(exact, abs=4 * error / math.sqrt(values.numel()))
    assert (found.mean(0) - exact).abs().max() < 5 * error / math.sqrt(300)
    assert (found.mean(1) - exact).abs().max() < 5 * error / math.sqrt(400)
    seeds = [float(rounded(values[:1, :1], dtype, draws_of("a", 1, 1, seed=seed))) for seed in range(1000)]
    assert np.mean(seeds) == pytest.approx(exact, abs=4 * error / math.sqrt(1000))


@pytest.mark.parametrize(
    ("dtype", "values"), [(torch.float16, [65504.5, 65512.0, 65519.9]), (torch.bfloat16, [3.39e38, 3.395e38, 3.396e38])]
)
def test_a_finite_value_stays_finite(dtype: torch.dtype, values: list[float]) -> None:
    draws = Draws(EXTREMES.rows, torch.ones(3, dtype=torch.int32))
    for sign in (1, -1):
        above_largest = (sign * torch.tensor(values)).repeat(2, 1)
        assert torch.equal(
            rounded(above_largest, dtype, draws), torch.full((2, 3), sign * torch.finfo(dtype).max, dtype=dtype)
        )
    assert rounded(torch.full((2, 3), 65536.0), torch.float16, draws).isinf().all()
