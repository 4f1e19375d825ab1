"""The arithmetic on tensors: computes a merged tensor from the models' tensors, on any device.

``interpolate`` computes ``W = (1 - lam) * Instruct + lam * Thinking`` in float32, with one rounding to the checkpoint's
dtype (``rounding.py``). It uses ``torch.lerp``: ``fma(lam, T - I, I)`` for lam below 0.5, else
``fma(lam - 1, T - I, T)``, with lam and the difference rounded to float32. At 0 and 1 it returns the parents bit for
bit, -0.0 included. Every linear merge calls it, so engines, exports and later runs hold equal bits. The baselines (task
arithmetic, TIES, SLERP) also compute in float32 and round once, by the same rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from autolambda.errors import PairError, ScheduleError
from autolambda.merging.kernels.lerp import lerp_dithered
from autolambda.merging.rounding import Draws, matrix_shape, rounded

MERGEABLE = (torch.bfloat16, torch.float16, torch.float32)
COLLINEAR = 0.9995  # the |cosine| above which slerp interpolates linearly; mergekit's value
SCALE_TASK_ARITHMETIC, SCALE_TIES, TIES_DENSITY = 0.7, 0.5, 0.2  # from arXiv 2510.10977
PIECE = 1 << 18  # values; sums are taken piece by piece, so files and tensors give equal sums
Region = tuple[slice, slice]
"""Rows and columns of a tensor with flattened leading dimensions (``matrix_shape``)."""

Pieces = Callable[[], Iterator[tuple[Tensor, ...]]]
"""Iterates over several tensors at once: yields tuples of equal ``regions_of`` them, as matrices."""

_CHUNK = {"cpu": 1 << 20, "cuda": 1 << 26}  # values per step when a buffer is needed


@torch.no_grad()
def interpolate(
    instruct: Tensor, thinking: Tensor, lam: float, *, out: Tensor | None = None, draws: Draws | None = None
) -> Tensor:
    """Returns the linear merge of two tensors of equal shape and dtype, in their dtype and on their device.

    ``draws`` are the tensor's for dithered rounding; without them the merge is rounded to nearest.

    If ``out`` is given, the merge is written there and ``out`` is returned. ``out`` has the parents' shape, their dtype
    or a wider one, and any strides and device. The value is rounded to the parents' dtype first. Integer and boolean
    tensors must be equal and are copied. Raises ``PairError`` when the parents differ in shape, dtype or integer
    values. Raises ``ScheduleError`` when lam is outside [0, 1], and ``ValueError`` when ``out`` does not fit.
    """
    _check(instruct, thinking, lam)
    if out is None:
        out = torch.empty_like(instruct, memory_format=torch.contiguous_format)
    elif out.shape != instruct.shape or torch.promote_types(out.dtype, instruct.dtype) != out.dtype:
        raise ValueError(
            f"out is {_form(out)}, but the parents are {_form(instruct)}; "
            "give an out of the parents' shape, in their dtype or a wider one"
        )
    if lam == 0.0 or not instruct.is_floating_point():
        return out.copy_(instruct)
    if lam == 1.0:
        return out.copy_(thinking)
    if draws is not None:
        return lerp_dithered(instruct, thinking, lam, draws=draws, out=out)
    if out.dtype == instruct.dtype and instruct.device == thinking.device == out.device:
        return torch.lerp(instruct, thinking, lam, out=out)
    for part in _parts(out):
        # Copies to a CUDA device run in the order of its stream; copies to the CPU must be waited for.
        start, end = (parent[part].to(out.device, non_blocking=out.is_cuda) for parent in (instruct, thinking))
        out[part].copy_(torch.lerp(start, end, lam))
    return out


@torch.no_grad()
def task_arithmetic(
    base: Tensor,
    instruct: Tensor,
    thinking: Tensor,
    *,
    scale: float = SCALE_TASK_ARITHMETIC,
    draws: Draws | None = None,
) -> Tensor:
    """Returns ``B + scale * ((I - B) + (T - B))`` for three tensors of equal shape, in their dtype and device.

    The formula is from Ilharco et al. (2023); arXiv 2510.10977 uses a scale of 0.7 for both parents. Each value is
    independent, so pieces and whole tensors give equal bits. Integer and boolean tensors must be equal and are
    copied. Raises ``PairError`` when the tensors differ in shape, dtype or integer values.
    """
    _check_alike({"base": base, "instruct": instruct, "thinking": thinking})
    if not base.is_floating_point():
        return base.clone()
    start, one, other = (tensor.contiguous().float() for tensor in (base, instruct, thinking))
    return rounded(start + scale * ((one - start) + (other - start)), base.dtype, draws)


@torch.no_grad()
def ties(
    base: Tensor,
    instruct: Tensor,
    thinking: Tensor,
    *,
    limits: tuple[Tensor, Tensor],
    scale: float = SCALE_TIES,
    draws: Draws | None = None,
) -> Tensor:
    """Returns the TIES merge (Yadav et al. 2023) of three tensors of equal shape and dtype, in their dtype and device.

    A task vector is ``I - B`` or ``T - B``, in float32. A value of it is kept if its magnitude is not 0 and at least
    the limit in ``limits`` (float32 [], from ``ties_limits``). The elected sign is the sign of the sum of the kept
    values; if the sum is 0, the base's value stays. The result is ``B + scale * mean``, the mean of the kept values
    with the elected sign. Once the limits are known, each value is independent, so pieces and whole tensors give
    equal bits. Integer and boolean tensors must be equal and are copied. Raises ``PairError`` when the tensors differ
    in shape, dtype or integer values.
    """
    _check_alike({"base": base, "instruct": instruct, "thinking": thinking})
    if not base.is_floating_point():
        return base.clone()
    start = base.contiguous().float()
    changes = [(model.float() - start, limit) for model, limit in zip((instruct, thinking), limits, strict=True)]
    kept = [change * (change.abs() >= limit) for change, limit in changes]
    sign = (kept[0] + kept[1]).sign()
    agreeing = [change * (change.sign() == sign) for change in kept]
    count = (agreeing[0] != 0).float() + (agreeing[1] != 0).float()
    return rounded(start + scale * ((agreeing[0] + agreeing[1]) / count.clamp(min=1)), base.dtype, draws)


@torch.no_grad()
def ties_limits(pieces: Pieces, *, num_values: int, density: float = TIES_DENSITY) -> tuple[Tensor, Tensor]:
    """Returns the smallest magnitude that ``ties`` keeps, for each of the two task vectors (float32 []).

    ``pieces`` yields pieces of base, instruct and thinking. The limit is the magnitude of rank ``round(density * n)``,
    at least 1, so all values that equal it are kept. Raises ``ValueError`` for a density outside (0, 1].
    """
    if not 0.0 < density <= 1.0:
        raise ValueError(f"density is a share above 0 and at most 1, seen {density!r}")
    rank = max(1, round(density * num_values))
    return _magnitude(pieces, 1, rank=rank), _magnitude(pieces, 2, rank=rank)


@torch.no_grad()
def slerp(
    instruct: Tensor,
    thinking: Tensor,
    lam: float,
    *,
    weights: tuple[float, float] | None,
    draws: Draws | None = None,
) -> Tensor:
    """Returns ``weights[0] * I + weights[1] * T`` for two tensors of equal shape and dtype, in their dtype and device.

    ``weights`` come from ``slerp_weights``. If they are ``None``, if lam is 0 or 1, and for integers, it returns
    ``interpolate``. Raises the errors of ``interpolate``.
    """
    _check(instruct, thinking, lam)
    if weights is None or lam in (0.0, 1.0) or not instruct.is_floating_point():
        return interpolate(instruct, thinking, lam, draws=draws)
    return rounded(weights[0] * instruct.contiguous().float() + weights[1] * thinking.float(), instruct.dtype, draws)


@torch.no_grad()
def slerp_weights(pieces: Pieces, lam: float) -> tuple[float, float] | None:
    """Returns the weights of spherical interpolation (Shoemake 1985) between two flattened tensors, given in pieces.

    They are ``sin((1 - lam) a) / sin(a)`` and ``sin(lam a) / sin(a)``, with ``a`` the angle between the tensors. The
    tensors are not normalised, as in mergekit. Returns ``None`` if the |cosine| is above ``COLLINEAR`` or a tensor
    is zero.
    """
    dots = [[_dot(one, one), _dot(one, other), _dot(other, other)] for one, other in pieces()]
    squares, product, others = (math.fsum(column) for column in zip(*dots, strict=True)) if dots else (0.0, 0.0, 0.0)
    length = math.sqrt(squares) * math.sqrt(others)
    cosine = product / length if length else 1.0
    if abs(cosine) > COLLINEAR:
        return None
    angle = math.acos(cosine)
    return math.sin((1 - lam) * angle) / math.sin(angle), math.sin(lam * angle) / math.sin(angle)


def regions_of(shape: Sequence[int]) -> Iterator[Region]:
    """Yields regions of at most ``PIECE`` values that cover a tensor in the order of its memory."""
    num_rows, num_columns = matrix_shape(shape)
    step, width = max(1, PIECE // max(1, num_columns)), min(PIECE, num_columns)
    for row in range(0, num_rows, step):
        for column in range(0, num_columns, max(1, width)):
            yield slice(row, min(row + step, num_rows)), slice(column, min(column + width, num_columns))


def pieces_of(*tensors: Tensor) -> Pieces:
    """Returns the pieces of whole tensors of equal shape."""
    matrices = [tensor.reshape(matrix_shape(tensor.shape)) for tensor in tensors]
    return lambda: (tuple(matrix[region] for matrix in matrices) for region in regions_of(tensors[0].shape))


def _dot(one: Tensor, other: Tensor) -> float:
    """Returns the dot product, in float64 and by one thread, so that every machine computes equal bits."""
    return float(np.add.reduce(one.cpu().double().numpy().ravel() * other.cpu().double().numpy().ravel()))


def _magnitude(pieces: Pieces, model: int, *, rank: int) -> Tensor:
    """Returns the ``rank``-th largest ``|model - base|`` (from 1), float32 [], exact, with memory for a few pieces.

    Non-negative floats are ordered like their bits, so two counting passes suffice. The first finds the upper 16 bits
    of the value, the second finds the lower 16 bits among the values with these upper bits.
    """
    value_bits = 0
    for shift in (16, 0):
        counts = torch.zeros(1 << 16, dtype=torch.int64)
        for piece in pieces():
            bits = (piece[model].float() - piece[0].float()).abs().view(torch.int32).view(-1)
            if shift == 0:
                bits = bits[bits >> 16 == value_bits]
            counts += torch.bincount(bits >> shift & 0xFFFF, minlength=1 << 16).cpu()
        from_top = counts.flip(0).cumsum(0)
        index = int(torch.searchsorted(from_top, rank))
        rank -= int(from_top[index - 1]) if index else 0
        value_bits = value_bits << 16 | 0xFFFF - index
    return torch.tensor(value_bits, dtype=torch.int32).view(torch.float32)


def _parts(out: Tensor) -> list[slice | tuple[()]]:
    """Returns slices of rows, of about ``_CHUNK`` values each, that cover ``out``."""
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
    """Raises ``PairError`` when tensors, keyed by the names of their models, cannot be merged with each other."""
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
