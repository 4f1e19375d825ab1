"""What a part of a parameter must hold under a merge: computed from the files, whole or in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from autolambda.engines.vllm.layout import Part
from autolambda.merging.kernels.sums import pieces_of
from autolambda.merging.merge import Arithmetic, Merge
from autolambda.merging.reading import Region
from autolambda.merging.shards import TensorInfo

PIECE = 1 << 25  # values that are compared at once


def arithmetic_of(merge: Merge, name: str) -> Arithmetic:
    """Returns the function that merges pieces of a tensor. TIES and SLERP first read the whole tensors."""
    return merge.arithmetic(name, lambda: pieces_of(*(merge.read(role, name) for role in merge.models))())


def rows_of(part: Part) -> Iterator[Part]:
    """Cuts a part into runs of rows of at most ``PIECE`` values: copies of an embedding would fill a small GPU."""
    if not part.source:
        yield part
        return
    rows, *columns = part.source
    width = prod(span.stop - span.start for span in columns)
    axis = next(i for i, each in enumerate(part.index) if isinstance(each, slice))
    step = max(1, PIECE // width)
    for start in range(rows.start, rows.stop, step):
        source = slice(start, min(start + step, rows.stop))
        first = part.index[axis].start + start - rows.start  # type: ignore[union-attr]  # of the slice that is there
        held = slice(first, first + source.stop - source.start)
        index = (*part.index[:axis], held, *part.index[axis + 1 :])
        yield replace(part, index=index, source=(source, *columns))


def expected(
    merge: Merge,
    part: Part,
    arithmetic: Arithmetic,
    *,
    axis: int = 0,
    picks: Tensor | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Makes a part of the merge from the files, or only the indices ``picks`` (int64) of it along ``axis``.

    The linear merge is computed on ``device``, where the live weights were merged, and other methods on the CPU.
    """
    name, draws = part.tensor, merge.draws(part.tensor)
    draws = draws and draws.part(*of_matrix(part, merge.infos[name]))
    if picks is None:
        rows = [merge.read(role, name, part.source) for role in merge.models]
    else:
        regions = [_one_of(part.source, axis, pick) for pick in picks.tolist()]
        rows = [torch.cat([merge.read(role, name, region) for region in regions], dim=axis) for role in merge.models]
        draws = draws and (draws.part(picks) if axis == 0 else draws.part(columns=picks))
    if merge.method.name == "linear":
        rows = [row.to(device) for row in rows]
    return arithmetic(*rows, draws=draws)


def _one_of(source: Region, axis: int, pick: int) -> Region:
    """Returns the row (``axis`` 0) or the column with number ``pick`` of a region."""
    start = source[axis].start + pick
    return (*source[:axis], slice(start, start + 1), *source[axis + 1 :])


def of_matrix(part: Part, info: TensorInfo) -> tuple[slice, ...]:
    """Returns the rows and columns of a part in its tensor with flattened leading dimensions."""
    if len(part.source) != 1 or len(info.shape) < 3:
        return part.source
    [rows], each = part.source, prod(info.shape[1:-1])
    return (slice(rows.start * each, rows.stop * each),)
