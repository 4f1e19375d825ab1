"""The Triton kernel gives the bits of the CPU; without a GPU, Triton's interpreter runs it."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from autolambda.merging.arithmetic import interpolate
from autolambda.merging.kernels import lerp as kernels
from autolambda.merging.rounding import Draws, Rounding

pytest.importorskip("triton")
NAME = "autolambda.merging.kernels.triton_kernel"
HALVES = (torch.bfloat16, torch.float16)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="module")
def interpreted() -> Iterator[None]:
    """The kernel as the interpreter runs it, on tensors in host memory."""
    compiled = sys.modules.pop(NAME, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        importlib.import_module(NAME)
        yield
    del sys.modules[NAME]
    if compiled is not None:
        sys.modules[NAME] = compiled


@pytest.fixture(autouse=True)
def unchecked() -> Iterator[None]:
    kernels._triton_works.cache_clear()
    yield
    kernels._triton_works.cache_clear()


def case(*shape: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Draws]:
    generator = torch.Generator().manual_seed(1)
    instruct = torch.randn(shape, generator=generator) * 10 ** (-6 * torch.rand(shape, generator=generator))
    thinking = instruct * (1 + 0.1 * torch.randn(shape, generator=generator))
    draws = Rounding().draws("a", shape, dtype)
    assert draws is not None
    return instruct.to(dtype), thinking.to(dtype), draws


def same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other) and torch.equal(one.signbit(), other.signbit())


def by_triton(instruct: Tensor, thinking: Tensor, lam: float, draws: Draws, out: Tensor) -> Tensor:
    sys.modules[NAME].lerp_dithered_matrix(instruct, thinking, lam, draws=draws, out=out)
    return out


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", [(1, 1), (9, 257), (16, 512), (1025, 1), (5, 7)], ids=str)
@pytest.mark.parametrize("out_dtype", [None, torch.float32], ids=["own dtype", "float32"])
def test_gives_the_bits_of_the_cpu(dtype: torch.dtype, shape: tuple[int, ...], out_dtype: torch.dtype | None) -> None:
    instruct, thinking, draws = case(*shape, dtype=dtype)
    for lam in (-0.8, 0.05, 0.3, 0.5, 0.55, 0.93, 1.4):
        expected, out = (torch.empty(shape, dtype=out_dtype or dtype) for _ in range(2))
        interpolate(instruct, thinking, lam, draws=draws, out=expected)
        assert same(by_triton(instruct, thinking, lam, draws, out), expected)


@pytest.mark.parametrize("dtype", HALVES)
def test_matrices_of_any_strides(dtype: torch.dtype) -> None:
    instruct, thinking, draws = case(20, 300, dtype=dtype)
    expected = interpolate(instruct, thinking, 0.3, draws=draws, out=torch.empty(20, 300, dtype=dtype))
    outs = torch.zeros(300, 20, dtype=dtype), torch.zeros(40, 700, dtype=dtype)
    assert same(by_triton(instruct, thinking.t().contiguous().t(), 0.3, draws, outs[0].t()), expected)
    assert same(by_triton(instruct, thinking, 0.3, draws, outs[1][5:25, 100:400]), expected)
    assert outs[1].count_nonzero() == expected.count_nonzero()  # nothing beside the target is written
    for part in ((slice(3, 17), slice(40, 290)), (slice(None, None, 2), slice(None, None, 3))):
        out = torch.empty_like(expected[part])
        assert same(by_triton(instruct[part], thinking[part], 0.3, draws.part(*part), out), expected[part])


@pytest.mark.parametrize("dtype", HALVES)
def test_it_is_taken_where_its_bits_are_equal(dtype: torch.dtype) -> None:
    assert kernels._triton_works(CPU, dtype)


@pytest.mark.parametrize("fault", ["other bits", "no compiler"])
def test_other_bits_and_failures_are_noticed(
    fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = sys.modules[NAME].lerp_dithered_matrix

    def faulty(instruct: Tensor, thinking: Tensor, lam: float, *, draws: Draws, out: Tensor) -> None:
        if fault == "no compiler":
            raise RuntimeError("no compiler")
        kernel(instruct, thinking, lam, draws=draws, out=out)
        if lam == 0.9:
            out[0, 0] += 1

    monkeypatch.setattr(sys.modules[NAME], "lerp_dithered_matrix", faulty)
    with caplog.at_level(logging.WARNING):
        assert not kernels._triton_works(CPU, torch.bfloat16) and not kernels._triton_works(CPU, torch.bfloat16)
    (record,) = caplog.records
    assert "without Triton" in record.message
