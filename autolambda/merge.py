"""The arithmetic on tensors: a merged tensor from the models' tensors, on any device.

``W = (1 - lam) * Instruct + lam * Thinking``, in float32 and with one rounding to the checkpoint's dtype. It is
``torch.lerp``: ``fma(lam, T - I, I)`` below one half and ``fma(lam - 1, T - I, T)`` from there on, with lam and the
difference rounded to float32. At 0 and 1 the parents come out bit for bit, -0.0 too. Everything that merges goes
through this function, so that an engine, an export and a second run hold the same bits. The baselines below it (task
arithmetic, TIES, SLERP) are what others do with the same models: float32 and one rounding too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from autolambda.errors import PairError, ScheduleError

MERGEABLE = (torch.bfloat16, torch.float16, torch.float32)
COLLINEAR = 0.9995  # the |cosine| above which slerp takes the straight line, as mergekit does
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


@torch.no_grad()
def task_arithmetic(base: Tensor, instruct: Tensor, thinking: Tensor, *, scale: float = 0.7) -> Tensor:
    """``B + scale * ((I - B) + (T - B))`` of three tensors of one shape and dtype, in their dtype, on their device.

    The formula is Ilharco et al.'s (2023), one scale of 0.7 for both is arXiv 2510.10977's. Integer and boolean tensors
    must be equal and are copied. Raises ``PairError`` as ``interpolate`` does.
    """
    _check_alike({"base": base, "instruct": instruct, "thinking": thinking})
    if not base.is_floating_point():
        return base.clone()
    out = torch.empty_like(base, memory_format=torch.contiguous_format)
    for part in _parts(out):
        start, one, other = (tensor[part].float() for tensor in (base, instruct, thinking))
        out[part] = start + scale * ((one - start) + (other - start))
    return out


@torch.no_grad()
def ties(base: Tensor, instruct: Tensor, thinking: Tensor, *, density: float = 0.2, scale: float = 0.5) -> Tensor:
    """TIES (Yadav et al. 2023) of three tensors of one shape and dtype, in their dtype, on their device.

    Of each task vector (``I - B`` and ``T - B``, in float32) the ``round(density * n)`` largest by magnitude are kept,
    at least one; all that equal the smallest of these are kept too, zeros never. A value's sign is that of the sum of
    the kept ones; with a sum of 0 the base's value stays. The result is ``B + scale *`` the mean of the kept values of
    that sign. Integer and boolean tensors must be equal and are copied. Raises ``PairError`` as ``interpolate`` does,
    ``ValueError`` for a density outside (0, 1].
    """
    _check_alike({"base": base, "instruct": instruct, "thinking": thinking})
    if not 0.0 < density <= 1.0:
        raise ValueError(f"density is a share above 0 and at most 1, seen {density!r}")
    if not base.is_floating_point() or base.numel() == 0:
        return base.clone()
    rank = max(1, round(density * base.numel()))
    limits = [(model, _magnitude(base, model, rank=rank)) for model in (instruct, thinking)]
    out = torch.empty_like(base, memory_format=torch.contiguous_format)
    for part in _parts(out):
        start = base[part].float()
        changes = [(model[part].float() - start, limit) for model, limit in limits]
        kept = [change * (change.abs() >= limit) for change, limit in changes]
        sign = (kept[0] + kept[1]).sign()
        agreeing = [change * (change.sign() == sign) for change in kept]
        count = (agreeing[0] != 0).float() + (agreeing[1] != 0).float()
        out[part] = start + scale * ((agreeing[0] + agreeing[1]) / count.clamp(min=1))
    return out


@torch.no_grad()
def slerp(instruct: Tensor, thinking: Tensor, lam: float) -> Tensor:
    """Spherical interpolation (Shoemake 1985) of two tensors of one shape and dtype, in their dtype, on their device.

    ``(sin((1 - lam) a) * I + sin(lam a) * T) / sin(a)``, with ``a`` the angle between the flattened tensors. Their
    lengths are kept as they are, as mergekit does. The ends are copies. Where the cosine is beyond ``COLLINEAR`` or a
    tensor is zero, and for integers, it is ``interpolate``, whose errors it raises.
    """
    _check(instruct, thinking, lam)
    if lam in (0.0, 1.0) or not instruct.is_floating_point():
        return interpolate(instruct, thinking, lam)
    length = math.sqrt(_dot(instruct, instruct)) * math.sqrt(_dot(thinking, thinking))
    cosine = _dot(instruct, thinking) / length if length else 1.0
    if abs(cosine) > COLLINEAR:
        return interpolate(instruct, thinking, lam)
    angle = math.acos(cosine)
    weights = (math.sin((1 - lam) * angle) / math.sin(angle), math.sin(lam * angle) / math.sin(angle))
    out = torch.empty_like(instruct, memory_format=torch.contiguous_format)
    for part in _parts(out):
        out[part] = weights[0] * instruct[part].float() + weights[1] * thinking[part].float()
    return out


def _dot(one: Tensor, other: Tensor) -> float:
    """The sum of the products, in float64: it decides about one number for the whole tensor."""
    return math.fsum(float((one[part].double() * other[part].double()).sum()) for part in _parts(one))


def _magnitude(base: Tensor, model: Tensor, *, rank: int) -> Tensor:
    """The ``rank``-th largest ``|model - base|`` (from 1), float32 [], exact, in the memory of some parts.

    Floats from 0 up have the order of their bits, so two passes of counting find it: the upper 16 bits of the value,
    then the lower ones among the values that share those.
    """
    found = 0
    for shift in (16, 0):
        counts = torch.zeros(1 << 16, dtype=torch.int64, device=base.device)
        for part in _parts(base):
            bits = (model[part].float() - base[part].float()).abs().flatten().view(torch.int32)
            if shift == 0:
                bits = bits[bits >> 16 == found]
            counts += torch.bincount(bits >> shift & 0xFFFF, minlength=1 << 16)
        from_top = counts.flip(0).cumsum(0)
        place = int(torch.searchsorted(from_top, rank))
        rank -= int(from_top[place - 1]) if place else 0
        found = found << 16 | 0xFFFF - place
    return torch.tensor(found, dtype=torch.int32, device=base.device).view(torch.float32)


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
    _check_alike({"instruct": instruct, "thinking": thinking})


def _check_alike(tensors: Mapping[str, Tensor]) -> None:
    """Raises ``PairError`` for tensors, named by their models, that cannot be merged with each other."""
    first, *others = tensors.values()
    names = list(tensors)
    if any(other.shape != first.shape or other.dtype != first.dtype for other in others):
        seen = ", ".join(f"{name} {_form(tensor)}" for name, tensor in tensors.items())
        raise PairError(f"the models' tensors differ: {seen}; merge checkpoints of one architecture and dtype")
    if first.is_floating_point():
        if first.dtype not in MERGEABLE:
            raise PairError(f"{_form(first)} cannot be merged; use bfloat16, float16 or float32 checkpoints")
    elif not all(torch.equal(first, other) for other in others):
        raise PairError(f"integer tensors must be equal in {' and '.join(names)}; these of {_form(first)} differ")


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
