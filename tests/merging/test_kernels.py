"""The dithered merge in place: equal bits for wholes and parts, any target, and a path that follows lambda."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from autolambda.merging.arithmetic import interpolate
from autolambda.merging.kernels.lerp import _triton_works
from autolambda.merging.kernels.sums import PIECE, regions_of
from autolambda.merging.rounding import Draws, Rounding, matrix_shape, rounded

HALVES = (torch.bfloat16, torch.float16)
LAMS = (0.05, 0.3, 0.5, 0.55, 0.93)
SHAPES = ((), (0,), (3, 0), (7,), (100_003,), (3, 5, 7), (37, 2001), (700, 1003), (3, 200_003))
FUSED = torch.backends.cpu.get_cpu_capability().startswith("AVX")


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def draws_of(*shape: int, name: str = "a", seed: int = 0) -> Draws:
    draws = Rounding(seed=seed).draws(name, matrix_shape(shape), torch.bfloat16)
    assert draws is not None
    return draws


def parents(*shape: int, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor]:
    """Close parents of many magnitudes, some of them subnormal in float16; every 11th weight changes its sign."""
    generator = torch.Generator().manual_seed(0)
    instruct = torch.randn(shape, generator=generator) * 10 ** (-6 * torch.rand(shape, generator=generator))
    thinking = instruct * (1 + 0.1 * torch.randn(shape, generator=generator))
    thinking.view(-1)[::11] *= -1
    return instruct.to(dtype), thinking.to(dtype)


def merged(instruct: Tensor, thinking: Tensor, lam: float, draws: Draws, dtype: torch.dtype | None = None) -> Tensor:
    out = torch.full(instruct.shape, torch.nan, dtype=dtype or instruct.dtype)
    assert interpolate(instruct, thinking, lam, draws=draws, out=out) is out
    return out


def reference(instruct: Tensor, thinking: Tensor, lam: float, draws: Draws) -> Tensor:
    """In numpy: a fused multiply-add (exact in float64), the hash in 64-bit integers, the cut in units of a step."""
    start, end, weight = instruct.float().numpy(), thinking.float().numpy(), np.float32(lam)
    base, factor = (start, weight) if weight < 0.5 else (end, weight - np.float32(1))
    if FUSED:
        exact = base.astype(np.float64) + np.float64(factor) * (end - start).astype(np.float64)
        values = exact.astype(np.float32).astype(np.float64)
    else:
        values = (base + factor * (end - start)).astype(np.float64)
    products = draws.rows.numpy().astype(np.int64)[:, None] * draws.columns.numpy().astype(np.int64)[None, :]
    draw = ((products & 0xFFFFFFFF) >> 16).reshape(values.shape)
    digits, lowest = (8, -133) if instruct.dtype == torch.bfloat16 else (11, -24)
    exponents = np.maximum(np.frexp(values)[1] - digits, lowest)
    steps = np.floor(np.ldexp(np.abs(values), 16 - exponents))  # a step of the dtype is 65,536
    magnitudes = np.ldexp(np.floor((steps + draw) / 65536), exponents)
    return torch.from_numpy(np.asarray(np.copysign(magnitudes, values))).to(instruct.dtype)


def same(one: Tensor, other: Tensor) -> bool:
    """Equal bits, for tensors without NaN."""
    return one.dtype == other.dtype and torch.equal(one, other) and torch.equal(one.signbit(), other.signbit())


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_formula(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    instruct, thinking = parents(*shape, dtype=dtype)
    draws = draws_of(*shape)
    for lam in LAMS if instruct.numel() < 200_000 else LAMS[1:3]:
        expected = reference(instruct, thinking, lam, draws)
        assert same(merged(instruct, thinking, lam, draws), expected)
        assert same(merged(instruct, thinking, lam, draws, torch.float32), expected.float())
        assert same(interpolate(instruct, thinking, lam, draws=draws), expected)
    if instruct.numel() > 1000:
        assert not same(merged(instruct, thinking, 0.3, draws), interpolate(instruct, thinking, 0.3))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("out_dtype", [None, torch.float32], ids=["own dtype", "float32"])
def test_targets_and_parents_of_any_strides(dtype: torch.dtype, out_dtype: torch.dtype | None) -> None:
    instruct, thinking = parents(640, 330, dtype=dtype)
    draws, kind = draws_of(640, 330), out_dtype or dtype
    expected = merged(instruct, thinking, 0.7, draws, kind)
    fused = torch.zeros(1000, 330, dtype=kind)  # rows of a fused weight
    interpolate(instruct, thinking, 0.7, draws=draws, out=fused[200:840])
    assert same(fused[200:840], expected) and not fused[:200].any() and not fused[840:].any()
    turned = torch.zeros(330, 640, dtype=kind)
    interpolate(instruct, thinking, 0.7, draws=draws, out=turned.t())
    assert same(turned.t(), expected)
    wide = torch.zeros(640, 660, dtype=kind)
    interpolate(instruct, thinking, 0.7, draws=draws, out=wide[:, ::2])
    assert same(wide[:, ::2], expected) and not wide[:, 1::2].any()
    assert same(merged(instruct.t().contiguous().t(), thinking.t().contiguous().t(), 0.7, draws, kind), expected)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", HALVES)
def test_blocks_and_shards_give_the_bits_of_the_whole(dtype: torch.dtype) -> None:
    instruct, thinking = parents(401, 900, dtype=dtype)
    draws = draws_of(401, 900)
    whole = merged(instruct, thinking, 0.3, draws)
    everything = slice(None)
    regions = ((slice(0, 1), everything), (slice(1, 400), everything), (everything, slice(0, 450)))
    for rows, columns in (*regions, (everything, slice(899, 900)), (slice(3, 90), slice(7, 450))):
        part = merged(instruct[rows, columns], thinking[rows, columns], 0.3, draws.part(rows, columns))
        assert same(part, whole[rows, columns])
    stacked = merged(instruct.view(401, 3, 300), thinking.view(401, 3, 300), 0.3, draws_of(1203, 300))
    assert same(
        stacked.view(1203, 300), merged(instruct.view(1203, 300), thinking.view(1203, 300), 0.3, draws_of(401, 3, 300))
    )


@pytest.mark.parametrize("shape", [(2, PIECE + 5), (700, 1001), (PIECE + 3,), (3, 7)], ids=str)
def test_pieces_of_a_file_give_the_bits_of_the_whole(shape: tuple[int, ...]) -> None:
    instruct, thinking = parents(*shape)
    draws = draws_of(*shape)
    whole = merged(instruct, thinking, 0.55, draws).view(matrix_shape(shape))
    seen = torch.zeros(matrix_shape(shape), dtype=torch.int32)
    for region in regions_of(shape):
        one, other = (parent.view(matrix_shape(shape))[region] for parent in (instruct, thinking))
        assert one.numel() <= PIECE
        assert same(interpolate(one, other, 0.55, draws=draws.part(*region)), whole[region])
        seen[region] += 1
    assert (seen == 1).all()


def test_threads_of_python_do_not_share_buffers() -> None:
    shapes = [(300, 1001 + 100 * index) for index in range(8)]
    pairs = [parents(*shape) for shape in shapes]
    expected = [merged(*pair, 0.3, draws_of(*shape)) for pair, shape in zip(pairs, shapes, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            found = pool.map(lambda pair: merged(*pair, 0.3, draws_of(*pair[0].shape)), pairs)
            assert all(same(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("shape", [(4, 3), (3, 5), (12,), (3,)], ids=str)
def test_draws_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"do not fit \[3, 4\]"):
        interpolate(*parents(3, 4), 0.5, draws=draws_of(*shape))


@pytest.mark.parametrize("dtype", HALVES)
def test_parents_and_what_they_share_stay(dtype: torch.dtype) -> None:
    instruct, thinking = parents(50, 1000, dtype=dtype)
    thinking[:, ::2] = instruct[:, ::2]
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.finfo(dtype).max, torch.finfo(dtype).tiny / 4])
    instruct[0, :6] = thinking[0, :6] = special.to(dtype)
    draws = draws_of(50, 1000)
    assert same(interpolate(instruct, thinking, 0.0, draws=draws), instruct)
    assert same(interpolate(instruct, thinking, 1.0, draws=draws), thinking)
    for lam in LAMS:
        found = interpolate(instruct, thinking, lam, draws=draws)
        stay = instruct.isfinite()
        stay[:, 1::2] = False
        assert torch.equal(found[stay], instruct[stay])  # of two -0.0, lerp makes 0.0
        assert found[~instruct.isfinite()].isnan().all()  # inf - inf, as when rounded to nearest
        assert torch.equal(found.isfinite(), instruct.isfinite())


@pytest.mark.parametrize("dtype", HALVES)
def test_the_largest_values_stay_finite(dtype: torch.dtype) -> None:
    largest = torch.tensor(torch.finfo(dtype).max, dtype=dtype)
    second = (largest.view(torch.int16) - 1).view(dtype)
    for lam in np.linspace(0.01, 0.99, 99):
        for one, other in ((largest, second), (-second, -largest)):
            found = interpolate(one.repeat(1, 500), other.repeat(1, 500), float(lam), draws=draws_of(1, 500))
            assert ((found == one) | (found == other)).all()


@pytest.mark.parametrize("dtype", HALVES)
def test_weights_one_step_apart_move_one_by_one(dtype: torch.dtype) -> None:
    instruct = torch.full((200, 500), 1.25, dtype=dtype)
    thinking = (instruct.view(torch.int16) + 1).view(dtype)
    before = torch.zeros(200, 500, dtype=torch.bool)
    for lam in (0.01, 0.1, 0.3, 0.49, 0.5, 0.51, 0.7, 0.99):
        moved = interpolate(instruct, thinking, lam, draws=draws_of(200, 500)) == thinking
        assert float(moved.double().mean()) == pytest.approx(lam, abs=4 * (lam * (1 - lam) / moved.numel()) ** 0.5)
        assert (moved | ~before).all()  # what has moved does not return
        before = moved


@pytest.mark.parametrize("dtype", HALVES)
def test_the_path_along_lambda_is_monotone(dtype: torch.dtype) -> None:
    instruct, thinking = parents(40, 500, dtype=dtype)  # across binades, and across zero
    draws, rising = draws_of(40, 500), thinking >= instruct
    lams = [step / 200 for step in range(201)]
    exact = torch.stack([torch.lerp(instruct.float(), thinking.float(), lam) for lam in lams])
    found = torch.stack([interpolate(instruct, thinking, lam, draws=draws) for lam in lams])
    ordered = torch.where(rising, exact.cummax(0).values, exact.cummin(0).values)
    path = torch.stack([rounded(values, dtype, draws) for values in ordered]).double().diff(dim=0)
    assert torch.where(rising, path, -path).min() >= 0
    steps = found.double().diff(dim=0)
    back = torch.where(rising, steps < 0, steps > 0)
    assert not (back & (exact.diff(dim=0).sign() != -torch.where(rising, 1, -1))).any()
    assert back.sum() <= 2  # at 0.5 lerp changes its formula and may go back by a step of float32
    assert (found >= torch.minimum(instruct, thinking)).all() and (found <= torch.maximum(instruct, thinking)).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cuda_gives_the_bits_of_the_cpu(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    instruct, thinking = parents(*shape, dtype=dtype)
    draws = draws_of(*shape)
    for lam in LAMS:
        expected = merged(instruct, thinking, lam, draws)
        for source in ((instruct.cuda(), thinking.cuda()), (instruct.pin_memory(), thinking.pin_memory())):
            for kind in (dtype, torch.float32):
                out = torch.empty(shape, dtype=kind, device="cuda")
                interpolate(*source, lam, draws=draws, out=out)
                assert same(out.cpu(), expected.to(kind))
    assert _triton_works(torch.device("cuda", torch.cuda.current_device()), dtype)


def test_a_thread_that_merged_for_an_engine_merges_outside_of_it_too() -> None:
    arguments = (*parents(700, 9), 0.3)
    merge = functools.partial(interpolate, *arguments, draws=draws_of(700, 9))
    with ThreadPoolExecutor(1) as pool:
        inside = pool.submit(torch.inference_mode()(merge)).result()
        assert same(inside, pool.submit(merge).result())
