"""The arithmetic on tensors: a merged tensor from the two parents' tensors, on any device.

``W = (1 - lam) * Instruct + lam * Thinking``, in float32 and with one rounding to the checkpoint's dtype. It is
``torch.lerp``: ``fma(lam, T - I, I)`` below one half and ``fma(lam - 1, T - I, T)`` from there on, with lam and the
difference rounded to float32. At 0 and 1 the parents come out bit for bit, -0.0 too. Everything that merges goes
through this function, so that an engine, an export and a second run hold the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autolambda.errors import PairError, ScheduleError

MERGEABLE = (torch.bfloat16, torch.float16, torch.float32)
_CHUNK = {"cpu": 1 << 20, "cuda": 1 << 26}  # values a step where a buffer is needed


@torch.no_grad()
def interpolate(instruct: Tensor, thinking: Tensor, lam: float, *, out: Tensor | None = None) -> Tensor:
    """The merge of two tensors of one shape and dtype, in their dtype and on their device unless ``out`` is given.

    ``out`` (any strides, any device) has their shape and their dtype or a wider one; there the value is rounded to
    the parents' dtype first. Integer and boolean tensors must be equal and are copied. Raises ``PairError`` for
    parents that differ in shape, dtype or integer values, ``ScheduleError`` for a lam outside [0, 1].
    """
    _check(instruct, thinking, lam)
    if out is None:
        out = torch.empty_like(instruct, memory_format=torch.contiguous_format)
    elif out.shape != instruct.shape or torch.promote_types(out.dtype, instruct.dtype) != out.dtype:
        raise ValueError(
            f"out is {_form(out)}, but the parents are {_form(instruct)}; "
            "give the same shape and the same or a wider dtype"
        )
    if lam == 0.0 or not instruct.is_floating_point():
        return out.copy_(instruct)
    if lam == 1.0:
        return out.copy_(thinking)
    if out.dtype == instruct.dtype and instruct.device == thinking.device == out.device:
        return torch.lerp(instruct, thinking, lam, out=out)
    for part in _parts(out):
        # To a CUDA device the copies queue up in its stream's order; to the CPU they have to be waited for.
        start, end = (parent[part].to(out.device, non_blocking=out.is_cuda) for parent in (instruct, thinking))
        out[part].copy_(torch.lerp(start, end, lam))
    return out


def _parts(out: Tensor) -> list[slice | tuple[()]]:
    """Runs of rows of about ``_CHUNK`` values that cover ``out``."""
    if out.dim() == 0 or out.numel() == 0:
        return [()]
    limit = _CHUNK.get(out.device.type, _CHUNK["cuda"])
    rows = max(1, limit * out.shape[0] // out.numel())
    return [slice(start, start + rows) for start in range(0, out.shape[0], rows)]


def _check(instruct: Tensor, thinking: Tensor, lam: float) -> None:
    if not 0.0 <= lam <= 1.0:
        raise ScheduleError(f"lambda must lie between 0 (Instruct) and 1 (Thinking), seen {lam!r}")
    if instruct.shape != thinking.shape or instruct.dtype != thinking.dtype:
        raise PairError(
            f"the parents' tensors differ: instruct {_form(instruct)}, thinking {_form(thinking)}; "
            "merge two checkpoints of one architecture and dtype"
        )
    if instruct.is_floating_point():
        if instruct.dtype not in MERGEABLE:
            raise PairError(f"{_form(instruct)} cannot be interpolated; use bfloat16, float16 or float32 checkpoints")
    elif not torch.equal(instruct, thinking):
        raise PairError(f"integer tensors must be equal in both parents; these of {_form(instruct)} differ")


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
