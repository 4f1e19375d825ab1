"""What TIES and SLERP need of whole tensors: sums that are added up piece by piece in a fixed order.

So files and tensors in memory give equal bits, with memory for a few pieces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from autolambda.merging.rounding import matrix_shape

COLLINEAR = 0.9995  # the |cosine| above which slerp interpolates linearly; mergekit's value
TIES_DENSITY = 0.2  # from arXiv 2510.10977
PIECE = 1 << 18  # values; sums are taken piece by piece, so files and tensors give equal sums
Region = tuple[slice, slice]
"""Rows and columns of a tensor with flattened leading dimensions (``matrix_shape``)."""

Pieces = Callable[[], Iterator[tuple[Tensor, ...]]]
"""Iterates over several tensors at once: yields tuples of equal ``regions_of`` them, as matrices."""


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
