"""Rounds merges from float32 to the checkpoint's dtype: to the nearest value, or dithered.

Parents that are close differ by few steps of bfloat16. Rounding to nearest then moves most weights at the same lambda,
so lambda works like a switch. Dithered rounding (stochastic rounding with a fixed seed) draws one 16-bit number for
each weight, the same for every lambda. The weight is rounded away from zero if the part that does not fit into the
dtype exceeds what the draw leaves. So each weight takes each step at its own lambda, the path along lambda is
monotone, and the mean over draws is the float32 value. A value that the dtype holds is never moved.

The draw of row ``r`` and column ``c`` of a tensor is the upper half of ``rows[r] * columns[c]`` modulo 2**32, where
both are odd 32-bit hashes: ``rows`` of the seed, the tensor's name and ``r``, and ``columns`` of the seed and ``c``.
This is multiplicative hashing (Dietzfelbinger et al. 1997). A parameter that holds rows of several tensors, or a shard
of their columns, therefore needs no more than the keys of its rows and columns.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from autolambda.merging.method import RoundingName

DITHERED = (torch.bfloat16, torch.float16)
"""The dtypes that are dithered. A merge in float32 is not rounded."""

Index = slice | Tensor
"""Some rows or columns: a slice, or their numbers (int64 on the CPU)."""

_MASK = 0xFFFFFFFF
_HALF_SUBNORMAL = 2.0**-14  # below it float16 has steps of 2**-24


@dataclass(frozen=True)
class Draws:
    """The draws of a region of a parameter. ``rows`` is int32 [rows] and ``columns`` is int32 [columns], both odd.

    The region is the parameter with its leading dimensions flattened. A vector is a region of one column.
    """

    rows: Tensor
    columns: Tensor

    def part(self, rows: Index = slice(None), columns: Index = slice(None)) -> Draws:
        """Returns the draws of some rows and columns of the region."""
        return Draws(_taken(self.rows, rows), _taken(self.columns, columns))

    def to(self, device: torch.device) -> Draws:
        """Returns the same draws on a device."""
        return Draws(self.rows.to(device), self.columns.to(device))

    def values(self) -> Tensor:
        """Returns the draws, 0 to 65,535, as int32 [rows, columns]."""
        return (self.rows[:, None] * self.columns[None, :] >> 16) & 0xFFFF


@dataclass(frozen=True)
class Rounding:
    """How merges are rounded. ``seed`` chooses the draws of dithered rounding."""

    name: RoundingName = "dithered"
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values: ``rounding``, and ``seed`` if it has one."""
        return {"rounding": self.name} | ({"seed": self.seed} if self.name == "dithered" else {})

    def draws(self, tensor: str, shape: Sequence[int], dtype: torch.dtype) -> Draws | None:
        """Returns the draws of a tensor of the checkpoint, on the CPU, or ``None`` if it is rounded to nearest.

        Vectors (norms, biases) are always rounded to nearest. They are too few for their noise to average out, and too
        few to make a step in behaviour (studies/rounding).
        """
        if self.name == "nearest" or dtype not in DITHERED or len(shape) < 2:
            return None
        num_rows, num_columns = matrix_shape(shape)
        return Draws(_keys(f"{self.seed} row {tensor}", num_rows), _column_keys(self.seed, num_columns))


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Returns the rows and columns of a tensor: leading dimensions are flattened, and a vector is one column."""
    return (prod(shape[:-1]), shape[-1]) if len(shape) > 1 else (prod(shape), 1)


@torch.no_grad()
def rounded(values: Tensor, dtype: torch.dtype, draws: Draws | None) -> Tensor:
    """Returns float32 ``values`` in ``dtype``: dithered by ``draws`` of the same region, else rounded to nearest.

    Infinities and NaN stay. A finite value stays finite when it is dithered, unless it is beyond the dtype's range.
    """
    if draws is None or dtype not in DITHERED or values.numel() == 0:
        return values.to(dtype)
    matrix = values.reshape(matrix_shape(values.shape))
    found = dither(matrix.clone(memory_format=torch.contiguous_format), dtype, draws.values()).to(dtype)
    overflown = found.isinf() & matrix.isfinite()
    return torch.where(overflown, matrix.to(dtype), found).view(values.shape)


def dither(values: Tensor, dtype: torch.dtype, draws: Tensor) -> Tensor:
    """Dithers contiguous float32 ``values`` in place, to values that ``dtype`` holds, and returns them.

    ``draws`` (int32, 0 to 65,535) has the shape of the values. A value above the largest of the dtype may become
    infinite.
    """
    bits = values.view(torch.int32)
    if dtype == torch.bfloat16:  # the upper half of a float32; adding to the bits is linear between two values
        bits.add_(draws).bitwise_and_(-0x10000)
        return values
    small = values.abs() < _HALF_SUBNORMAL
    steps = (values.abs().clamp(max=_HALF_SUBNORMAL) * 2.0**40).to(torch.int32).add_(draws) >> 16
    subnormal = torch.copysign(steps * 2.0**-24, values)
    bits.add_(draws >> 3).bitwise_and_(-0x2000)  # 13 bits more than float16
    return torch.where(small, subnormal, values, out=values)


@functools.lru_cache(maxsize=64)
def _column_keys(seed: int, count: int) -> Tensor:
    with torch.inference_mode(False):
        return _keys(f"{seed} column", count)


def _keys(text: str, count: int) -> Tensor:
    """Returns ``count`` odd hashes of a text and a counter, int32 [count].

    The mixing function is lowbias32 (Wellons 2018, "Prospecting for Hash Functions"), applied twice.
    """
    first, second = (int.from_bytes(hashlib.sha256(text.encode()).digest()[i : i + 4], "little") for i in (0, 4))
    mixed = _mixed(_mixed(torch.arange(count) ^ first) + second & _MASK) | 1
    return torch.where(mixed < 1 << 31, mixed, mixed - (1 << 32)).to(torch.int32)


def _mixed(values: Tensor) -> Tensor:
    """Mixes 32-bit numbers that are held in int64."""
    values = (values ^ values >> 16) * 0x7FEB352D & _MASK
    values = (values ^ values >> 15) * 0x846CA68B & _MASK
    return values ^ values >> 16


def _taken(keys: Tensor, index: Index) -> Tensor:
    return keys[index] if isinstance(index, slice) else keys[index.to(keys.device)]
