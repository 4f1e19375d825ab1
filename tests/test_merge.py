"""The arithmetic: one rounding, exact ends, any target."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autolambda.errors import PairError, ScheduleError
from autolambda.merge import interpolate

FLOATS = (torch.bfloat16, torch.float16, torch.float32)
LAMS = (0.05, 0.3, 0.5, 0.55, 0.93)
FUSED = torch.backends.cpu.get_cpu_capability().startswith("AVX")


def parents(*shape: int, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    instruct = torch.randn(shape, generator=generator) * 0.05
    thinking = instruct + torch.randn(shape, generator=generator) * 0.01
    return instruct.to(dtype), thinking.to(dtype)


def reference(instruct: Tensor, thinking: Tensor, lam: float) -> Tensor:
    """The formula in numpy: float32 operands, a fused multiply-add (exact in float64), one rounding to the dtype."""
    start, end = instruct.float().numpy(), thinking.float().numpy()
    weight, difference = np.float32(lam), end - start
    base, factor = (start, weight) if weight < 0.5 else (end, weight - np.float32(1))
    if FUSED:
        exact = base.astype(np.float64) + np.float64(factor) * difference.astype(np.float64)
        return torch.from_numpy(exact.astype(np.float32)).to(instruct.dtype)
    return torch.from_numpy(base + factor * difference).to(instruct.dtype)


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(bits(one), bits(other))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("lam", LAMS)
def test_equals_the_float32_formula_rounded_once(dtype: torch.dtype, lam: float) -> None:
    instruct, thinking = parents(100_003, dtype=dtype)  # an odd number: the vectorised body and its tail
    assert same(interpolate(instruct, thinking, lam), reference(instruct, thinking, lam))


def test_two_roundings_would_be_seen() -> None:
    instruct, thinking = parents(100_003)
    twice = (instruct.float() * 0.7).bfloat16() + (thinking.float() * 0.3).bfloat16()
    in_bf16 = instruct + torch.tensor(0.3, dtype=torch.bfloat16) * (thinking - instruct)
    for wrong in (twice, in_bf16):
        assert not same(wrong, interpolate(instruct, thinking, 0.3))


@settings(deadline=None, max_examples=50)
@given(lam=st.floats(0, 1), seed=st.integers(0, 99), dtype=st.sampled_from(FLOATS))
def test_lies_between_the_parents(lam: float, seed: int, dtype: torch.dtype) -> None:
    instruct, thinking = parents(257, dtype=dtype, seed=seed)
    merged = interpolate(instruct, thinking, lam)
    assert (merged >= torch.minimum(instruct, thinking)).all()
    assert (merged <= torch.maximum(instruct, thinking)).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("out_dtype", [None, torch.float32])
def test_ends_are_the_parents_bit_for_bit(dtype: torch.dtype, out_dtype: torch.dtype | None) -> None:
    instruct = torch.tensor([-0.0, 0.0, 1.0, -0.0, 6e-8], dtype=dtype)
    thinking = torch.tensor([0.0, -0.0, -0.0, -0.0, -1.0], dtype=dtype)
    for lam, parent in ((0.0, instruct), (1.0, thinking), (0, instruct), (1, thinking)):
        out = None if out_dtype is None else torch.empty(5, dtype=out_dtype)
        assert same(interpolate(instruct, thinking, lam, out=out), parent.to(out_dtype or dtype))


def test_an_end_is_a_copy() -> None:
    instruct, thinking = parents(8)
    interpolate(instruct, thinking, 0.0).zero_()
    interpolate(instruct, thinking, 1.0).zero_()
    assert instruct.any() and thinking.any()


def test_equal_parents_stay() -> None:
    instruct, _ = parents(1000)
    for lam in LAMS:
        assert same(interpolate(instruct, instruct.clone(), lam), instruct)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1_300_000,), (700, 3001), (2, 3, 5), (1, 2_200_000), (), (0,), (3, 0)])
def test_a_wider_target_holds_the_rounded_value(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    instruct, thinking = parents(*shape, dtype=dtype)
    out = torch.full(shape, torch.nan)
    assert interpolate(instruct, thinking, 0.3, out=out) is out
    assert same(out, interpolate(instruct, thinking, 0.3).float())
    if out.numel() > 1000:
        unrounded = torch.lerp(instruct.float(), thinking.float(), 0.3)
        assert not same(out, unrounded)


@pytest.mark.parametrize("out_dtype", [torch.bfloat16, torch.float32])
def test_targets_of_any_strides(out_dtype: torch.dtype) -> None:
    instruct, thinking = parents(64, 33)
    expected = interpolate(instruct, thinking, 0.7).to(out_dtype)
    for lam, wanted in ((0.7, expected), (1.0, thinking.to(out_dtype))):
        fused = torch.zeros(128, 33, dtype=out_dtype)  # rows of a fused weight
        interpolate(instruct, thinking, lam, out=fused[32:96])
        assert same(fused[32:96], wanted) and not fused[:32].any() and not fused[96:].any()
        turned = torch.zeros(33, 64, dtype=out_dtype)
        interpolate(instruct, thinking, lam, out=turned.t())
        assert same(turned.t(), wanted)


def test_strided_parents_give_the_same_bits() -> None:
    instruct, thinking = parents(33, 65, dtype=torch.float32)
    whole = interpolate(instruct, thinking, 0.3)
    assert same(interpolate(instruct.t(), thinking.t(), 0.3), whole.t())
    assert same(interpolate(instruct[:, ::2], thinking[:, ::2], 0.3), whole[:, ::2])
    assert same(interpolate(instruct[5:, 3:], thinking[5:, 3:], 0.3), whole[5:, 3:])
    assert interpolate(instruct.t(), thinking.t(), 0.3).is_contiguous()


def test_writes_into_live_parameters() -> None:
    instruct, thinking = parents(4, 4)
    parameter = torch.nn.Parameter(torch.zeros(4, 4))
    address = parameter.data_ptr()
    interpolate(instruct, thinking, 0.5, out=parameter)
    assert parameter.requires_grad and parameter.data_ptr() == address
    assert same(parameter.detach(), interpolate(instruct, thinking, 0.5).float())


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_integers_are_copied_where_equal(dtype: torch.dtype) -> None:
    values = torch.tensor([0, 1, 1], dtype=dtype)
    merged = interpolate(values, values.clone(), 0.4)
    assert same(merged, values) and merged.data_ptr() != values.data_ptr()
    with pytest.raises(PairError, match="integer tensors must be equal"):
        interpolate(values, torch.tensor([1, 1, 1], dtype=dtype), 0.4)


@pytest.mark.parametrize(
    ("thinking", "message"),
    [
        (torch.zeros(2, 3), "instruct bfloat16 \\[2, 3\\], thinking float32 \\[2, 3\\]"),
        (torch.zeros(3, 2, dtype=torch.bfloat16), "thinking bfloat16 \\[3, 2\\]"),
        (torch.zeros(3, dtype=torch.bfloat16), "thinking bfloat16 \\[3\\]"),  # would broadcast
    ],
)
def test_unlike_parents_are_refused(thinking: Tensor, message: str) -> None:
    with pytest.raises(PairError, match=message):
        interpolate(torch.zeros(2, 3, dtype=torch.bfloat16), thinking, 0.5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float8_e4m3fn])
def test_other_dtypes_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(PairError, match="use bfloat16, float16 or float32"):
        interpolate(torch.zeros(2).to(dtype), torch.zeros(2).to(dtype), 0.5)


@pytest.mark.parametrize("out", [torch.zeros(2, dtype=torch.float16), torch.zeros(3), torch.zeros(1, 2)])
def test_targets_that_cannot_hold_the_merge_are_refused(out: Tensor) -> None:
    instruct, thinking = parents(2)
    with pytest.raises(ValueError, match="the same or a wider dtype"):
        interpolate(instruct, thinking, 0.5, out=out)


@pytest.mark.parametrize("lam", [-0.1, 1.0001, math.nan, math.inf])
def test_lambda_outside_its_range_is_refused(lam: float) -> None:
    instruct, thinking = parents(2)
    with pytest.raises(ScheduleError, match="between 0"):
        interpolate(instruct, thinking, lam)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("lam", [0.0, *LAMS, 1.0])
def test_cuda_gives_the_bits_of_the_cpu(dtype: torch.dtype, lam: float) -> None:
    instruct, thinking = parents(1000, 1003, dtype=dtype)
    expected = interpolate(instruct, thinking, lam)
    on_device = interpolate(instruct.cuda(), thinking.cuda(), lam)
    assert same(on_device.cpu(), expected)
    for out_dtype in (dtype, torch.float32):  # parents in host memory, weights on the device
        out = torch.empty(1000, 1003, dtype=out_dtype, device="cuda")
        interpolate(instruct.pin_memory(), thinking.pin_memory(), lam, out=out)
        assert same(out.cpu(), expected.to(out_dtype))
