"""The arithmetic: one rounding, exact ends, any target."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autolambda.errors import PairError, ScheduleError
from autolambda.merging import arithmetic as merge
from autolambda.merging.arithmetic import interpolate, task_arithmetic
from autolambda.merging.kernels import sums
from autolambda.merging.kernels.sums import pieces_of, slerp_weights, ties_limits

TIES_LIMITS = (torch.zeros(()), torch.zeros(()))
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


def ties(*models: Tensor, density: float = 0.2, **settings: float) -> Tensor:
    """TIES of whole tensors, its limits found in pieces."""
    limits = ties_limits(pieces_of(*models), num_values=models[0].numel(), density=density)
    return merge.ties(*models, limits=limits, **settings)


def slerp(instruct: Tensor, thinking: Tensor, lam: float) -> Tensor:
    """SLERP of whole tensors, its angle found in pieces."""
    weights = None
    if 0 < lam < 1 and instruct.dtype == thinking.dtype and instruct.is_floating_point():
        weights = slerp_weights(pieces_of(instruct, thinking), lam)
    return merge.slerp(instruct, thinking, lam, weights=weights)


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
    with pytest.raises(ValueError, match="in their dtype or a wider one"):
        interpolate(instruct, thinking, 0.5, out=out)


@pytest.mark.parametrize("lam", [-1.1, 2.0001, math.nan, math.inf])
def test_lambda_outside_its_range_is_refused(lam: float) -> None:
    instruct, thinking = parents(2)
    with pytest.raises(ScheduleError, match="between -1"):
        interpolate(instruct, thinking, lam)


SHAPES = ((1003,), (37, 29), (3, 1, 7), ())


def trio(*shape: int, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A base and two models around it; every tenth value of each is the base's."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator).to(dtype)
    models = [base + (torch.randn(shape, generator=generator) * 0.1).to(dtype) for _ in range(2)]
    for model in models:
        model.view(-1)[::10] = base.view(-1)[::10]
    return base, models[0], models[1]


def as_numpy(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.float().numpy() for tensor in tensors]


def ties_reference(base: Tensor, instruct: Tensor, thinking: Tensor, density: float, scale: float) -> Tensor:
    """TIES value by value, with the threshold from a full sort."""
    start, *models = as_numpy(base, instruct, thinking)
    changes = [(model - start).ravel() for model in models]
    num_kept = max(1, round(density * start.size))
    limits = [np.sort(np.abs(change))[-num_kept] for change in changes]
    merged = start.copy().ravel()
    for i, values in enumerate(zip(*changes, strict=True)):
        kept = [value for value, limit in zip(values, limits, strict=True) if abs(value) >= limit and value != 0]
        total = sum(kept, np.float32(0))
        agreeing = [value for value in kept if value * total > 0]
        if agreeing:
            merged[i] += np.float32(scale) * (sum(agreeing, np.float32(0)) / np.float32(len(agreeing)))
    return torch.from_numpy(merged.reshape(start.shape)).to(base.dtype)


@pytest.fixture(params=[None, 64], ids=["in one part", "in small parts"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors as they are read in one part, and in parts of 64 values."""
    if request.param:
        monkeypatch.setattr(sums, "PIECE", request.param)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [0.7, 0.31])
def test_task_arithmetic_is_its_formula(dtype: torch.dtype, shape: tuple[int, ...], scale: float) -> None:
    models = trio(*shape, dtype=dtype)
    base, instruct, thinking = as_numpy(*models)
    expected = base + np.float32(scale) * ((instruct - base) + (thinking - base))
    assert same(task_arithmetic(*models, scale=scale), torch.as_tensor(expected).to(dtype))


def test_task_arithmetic_has_the_scale_of_the_paper() -> None:
    base, instruct, thinking = (torch.tensor([value]) for value in (1.0, 2.0, 4.0))
    assert task_arithmetic(base, instruct, thinking).item() == pytest.approx(1 + 0.7 * (1 + 3))


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("density", "scale"), [(0.2, 0.5), (0.001, 1.0), (0.63, 0.3), (0.97, 0.5), (1.0, 0.5)])
def test_ties_is_its_formula(dtype: torch.dtype, shape: tuple[int, ...], density: float, scale: float) -> None:
    models = trio(*shape, dtype=dtype)
    merged = ties(*models, density=density, scale=scale)
    assert same(merged, ties_reference(*models, density, scale))


@pytest.mark.parametrize(
    ("instruct", "thinking", "density", "expected"),
    [
        ([4, -3, 0, 1, 2], [-2, -5, 1, 1, 0.5], 0.4, [4, -4, 0, 0, 0]),  # outvoted by size; the mean of the agreeing
        ([9, 0, 0, 0, 0], [0, 8, 0, 0, 0], 0.2, [9, 8, 0, 0, 0]),  # the mean over one is that one
        ([1, 1, -1, 0, 0], [0, 0, 0, 0, 7], 0.2, [1, 1, -1, 0, 7]),  # equal magnitudes are all kept
        ([2, 1, 0, 0, 0], [-2, 3, 0, 0, 0], 0.4, [0, 2, 0, 0, 0]),  # a sum of 0 leaves the base
        ([0, 0, 0, 0, 5], [0, 0, 0, 0, 0], 0.6, [0, 0, 0, 0, 5]),  # zeros have no vote and no part in the mean
        ([5, 4, 3, 2, 1], [5, 4, 3, 2, 1], 0.01, [5, 0, 0, 0, 0]),  # at least one is kept
        ([5, 4, 3, 2, 1], [5, 4, 3, 2, 1], 0.5, [5, 4, 0, 0, 0]),  # round(2.5) is 2
    ],
)
def test_ties_by_hand(instruct: list[float], thinking: list[float], density: float, expected: list[float]) -> None:
    base = torch.full((5,), 10.0)
    models = (base + torch.tensor(values) for values in (instruct, thinking))
    assert ties(base, *models, density=density, scale=1.0).tolist() == [10 + value for value in expected]


def test_ties_has_the_settings_of_the_paper() -> None:
    base, change = torch.zeros(10), torch.arange(10.0)
    assert ties(base, change, change.clone()).tolist() == [0.0] * 8 + [4.0, 4.5]


def test_ties_of_a_model_with_itself() -> None:
    base, instruct, _ = trio(501)
    assert same(ties(base, instruct, instruct, density=1.0, scale=1.0), instruct)
    assert same(ties(base, base, base), base)


@pytest.mark.parametrize("density", [0.0, -0.1, 1.1, math.nan])
def test_a_density_that_is_no_share_is_refused(density: float) -> None:
    with pytest.raises(ValueError, match="density is a share"):
        ties(*trio(4), density=density)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("shape", [(1003,), (37, 29)])
@pytest.mark.parametrize("lam", LAMS)
def test_slerp_is_its_formula(shape: tuple[int, ...], lam: float) -> None:
    generator = torch.Generator().manual_seed(0)
    instruct, thinking = (torch.randn(shape, generator=generator) * size for size in (1.0, 3.0))
    one, other = (tensor.double().numpy() for tensor in (instruct, thinking))
    angle = np.arccos((one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other))
    expected = (np.sin((1 - lam) * angle) * one + np.sin(lam * angle) * other) / np.sin(angle)
    np.testing.assert_allclose(slerp(instruct, thinking, lam).numpy(), expected, rtol=1e-5, atol=1e-6)
    rounded = slerp(instruct.bfloat16(), thinking.bfloat16(), lam)
    assert same(rounded, slerp(instruct.bfloat16().float(), thinking.bfloat16().float(), lam).bfloat16())


def test_slerp_walks_along_the_circle() -> None:
    instruct, thinking = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    for lam in LAMS:
        angle = lam * math.pi / 2
        assert slerp(instruct, thinking, lam).tolist() == pytest.approx([2 * math.cos(angle), 2 * math.sin(angle)])


@pytest.mark.parametrize("dtype", FLOATS)
def test_ends_of_slerp_are_the_parents_bit_for_bit(dtype: torch.dtype) -> None:
    instruct = torch.tensor([-0.0, 0.0, 1.0, -0.0], dtype=dtype)
    thinking = torch.tensor([0.0, -0.0, -0.0, -1.0], dtype=dtype)
    assert same(slerp(instruct, thinking, 0.0), instruct) and same(slerp(instruct, thinking, 1.0), thinking)


@pytest.mark.parametrize(
    ("thinking", "straight"),
    [
        ([1.0, 0.03], True),  # cosine 0.99955
        ([1.0, 0.033], False),  # cosine 0.99946
        ([-1.0, 0.03], True),
        ([-1.0, 0.033], False),
        ([2.0, 0.0], True),
        ([0.0, 0.0], True),
    ],
)
def test_slerp_is_straight_where_the_angle_is_no_help(thinking: list[float], straight: bool) -> None:
    one, other = torch.tensor([1.0, 0.0]), torch.tensor(thinking)
    for pair in ((one, other), (other, one)):
        assert same(slerp(*pair, 0.3), interpolate(*pair, 0.3)) is straight


def test_slerp_checks_like_interpolate() -> None:
    instruct, thinking = parents(4)
    with pytest.raises(ScheduleError, match="between -1"):
        slerp(instruct, thinking, 2.5)
    with pytest.raises(PairError, match="instruct bfloat16 \\[4\\], thinking float32 \\[4\\]"):
        slerp(instruct, thinking.float(), 0.5)
    whole = torch.tensor([1, 2])
    assert same(slerp(whole, whole.clone(), 0.5), whole)


@pytest.mark.parametrize("method", [task_arithmetic, functools.partial(merge.ties, limits=TIES_LIMITS)])
class TestAroundABase:
    """What task arithmetic and TIES share."""

    def test_strided_tensors_and_empty_ones(self, method: Callable[..., Tensor]) -> None:
        models = trio(12, 30, dtype=torch.float32)
        turned = method(*(model.t() for model in models))
        assert turned.is_contiguous() and same(turned, method(*models).t())
        assert method(*(torch.zeros(3, 0) for _ in range(3))).shape == (3, 0)

    @pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
    def test_integers_are_copied_where_equal(self, method: Callable[..., Tensor], dtype: torch.dtype) -> None:
        values = torch.tensor([0, 1, 1], dtype=dtype)
        merged = method(values, values.clone(), values.clone())
        assert same(merged, values) and merged.data_ptr() != values.data_ptr()
        for place in range(3):
            models = [values.clone() for _ in range(3)]
            models[place][0] = 1
            with pytest.raises(PairError, match="integer tensors must be equal in base and instruct and thinking"):
                method(*models)

    @pytest.mark.parametrize("place", range(3))
    def test_unlike_tensors_are_refused(self, method: Callable[..., Tensor], place: int) -> None:
        name = ("base", "instruct", "thinking")[place]
        for odd, form in ((torch.zeros(1), "float32 \\[1\\]"), (torch.zeros(2).half(), "float16 \\[2\\]")):
            models = [torch.zeros(2) for _ in range(3)]
            models[place] = odd
            with pytest.raises(PairError, match=f"{name} {form}"):
                method(*models)

    def test_other_dtypes_are_refused(self, method: Callable[..., Tensor]) -> None:
        with pytest.raises(PairError, match="use bfloat16, float16 or float32"):
            method(*(torch.zeros(2, dtype=torch.float64) for _ in range(3)))


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
