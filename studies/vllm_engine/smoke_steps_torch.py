"""Steps of the smoke test that need PyTorch alone: the machine, the bits of merges, pinned memory."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autolambda.merging.arithmetic import interpolate
from autolambda.merging.rounding import Rounding, rounded

LAMS = (0.2, 0.5, 0.8)
_COLUMNS = 1024
_REPEATS = 7


def machine(bench: Any) -> dict[str, Any]:
    """The versions, the memory, and what vLLM makes of the device."""
    from autolambda.engines.device import vllm_device
    from autolambda.engines.vllm.arguments import import_vllm
    from autolambda.engines.vllm.process import runs_in_process

    found: dict[str, Any] = {"torch": torch.__version__, "vllm": import_vllm().__version__}
    found |= {"vllm_device": vllm_device().type, "core_in_driver": runs_in_process()}
    found["host_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)
    limit = Path("/sys/fs/cgroup/memory.max")
    found["memory_max"] = limit.read_text().strip() if limit.exists() else "none"
    found["gcc"], found["nvcc"] = bool(shutil.which("gcc")), bool(shutil.which("nvcc"))
    if bench.is_gpu:
        from vllm.platforms import current_platform

        total = torch.cuda.get_device_properties(0).total_memory
        found |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "gpu_gib": round(total / 2**30)}
        found["totals_differ"] = abs(current_platform.get_device_total_memory() / total - 1)
    return found


def lerp(bench: Any) -> dict[str, Any]:
    """Merges to nearest: CUDA against the CPU, rows against the whole, and the CPU against an exact FMA."""
    found = dict.fromkeys(("values", "cuda_differs", "rows_differ", "fma_differs"), 0)
    for dtype, lam in itertools.product((torch.bfloat16, torch.float32), LAMS):
        one, other = _parents(bench, dtype)
        whole = interpolate(one, other, lam)
        rows = torch.cat([interpolate(*part, lam) for part in _uneven(one, other)])
        found["values"] += one.numel()
        found["rows_differ"] += _differing(rows, whole)
        found["fma_differs"] += _differing(_exact(one, other, lam), whole)
        if bench.is_gpu:
            found["cuda_differs"] += _differing(interpolate(one.cuda(), other.cuda(), lam).cpu(), whole)
    return found


def dither(bench: Any) -> dict[str, Any]:
    """Dithered merges: rows against the whole, the plain formula, and CUDA; and the bandwidth beside a copy's."""
    found = dict.fromkeys(("values", "cuda_differs", "rows_differ", "formula_differs"), 0)
    for dtype, lam in itertools.product((torch.bfloat16, torch.float16), LAMS):
        one, other = _parents(bench, dtype)
        draws = Rounding().draws("a", one.shape, dtype)
        assert draws is not None
        whole = interpolate(one, other, lam, draws=draws)
        half = slice(len(one) // 3, len(one))
        found["values"] += one.numel()
        found["rows_differ"] += _differing(
            interpolate(one[half], other[half], lam, draws=draws.part(half)), whole[half]
        )
        formula = rounded(torch.lerp(one.float(), other.float(), lam), dtype, draws)
        found["formula_differs"] += _differing(formula, whole)
        if bench.is_gpu:
            found["cuda_differs"] += _differing(interpolate(one.cuda(), other.cuda(), lam, draws=draws).cpu(), whole)
    return found | _bandwidth(bench)


def pinned(bench: Any) -> dict[str, Any]:
    """What torch's own pinned memory takes for 768 MiB, and whether the parents' memory is pinned without that."""
    from autolambda.engines.vllm.snapshot import allocate

    before = torch.cuda.host_memory_stats()
    block = torch.empty(768 << 20, dtype=torch.uint8, pin_memory=True)
    after = torch.cuda.host_memory_stats()
    taken = {key: after[key] - before.get(key, 0) for key in after if key.endswith("bytes.current")}
    live = {"a": torch.empty(768 << 10, 1024, dtype=torch.uint8, device="cuda")}
    parents = allocate(live, {"a": torch.uint8}, "host")
    return {
        "torch_mib": max(taken.values()) >> 20,
        "parents_mib": parents["a"].untyped_storage().nbytes() >> 20,
        "parents_pinned": parents["a"].is_pinned() and block.is_pinned(),
    }


def _parents(bench: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    rows = (64 if bench.is_gpu else 2) * 1024
    generator = torch.Generator(bench.device).manual_seed(0)
    values = (torch.randn(rows, _COLUMNS, generator=generator, device=bench.device) for _ in range(2))
    one, other = (each.to(dtype).cpu() for each in values)
    return one, other


def _uneven(one: Tensor, other: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(one), 333):
        yield one[start : start + 333], other[start : start + 333]


def _exact(one: Tensor, other: Tensor, lam: float) -> Tensor:
    """``torch.lerp``'s formula with fused multiply-adds, computed in float64, where products of floats are exact."""
    weight = torch.tensor(lam, dtype=torch.float32)
    start, end = one.float(), other.float()
    factor, origin = (weight, start) if lam < 0.5 else (weight - 1, end)
    return (factor.double() * (end - start).double() + origin.double()).float().to(one.dtype)


def _differing(one: Tensor, other: Tensor) -> int:
    bits = torch.int32 if one.dtype == torch.float32 else torch.int16
    return int((one.contiguous().view(bits) != other.contiguous().view(bits)).sum())


def _bandwidth(bench: Any) -> dict[str, float]:
    """The dithered merge's bytes a second (6 a weight) relative to those of a copy (4 a weight)."""
    one, other = (parent.to(bench.device) for parent in _parents(bench, torch.bfloat16))
    out, draws = torch.empty_like(one), Rounding().draws("a", one.shape, one.dtype)
    draws = draws and draws.to(one.device)
    interpolate(one, other, 0.3, draws=draws, out=out)  # compiles the kernel
    merge = _seconds(bench, lambda: interpolate(one, other, 0.3, draws=draws, out=out))
    copy = _seconds(bench, lambda: out.copy_(one))
    return {"merge_gb_per_s": 6 * one.numel() / merge / 1e9, "of_a_copy": 6 * copy / (4 * merge)}


def _seconds(bench: Any, work: Callable[[], object]) -> float:
    times = []
    for _ in range(_REPEATS):
        if bench.is_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if bench.is_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times)[_REPEATS // 2]
