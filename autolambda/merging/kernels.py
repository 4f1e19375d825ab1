"""Interpolates and dithers in one pass over the memory: both parents are read once, and the merge is written once.

On a CPU the work is done in pieces that stay in the cache, with PyTorch's own operations.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from autolambda.merging.rounding import Draws, dither, matrix_shape

_PIECES = {"cpu": 1 << 16, "cuda": 1 << 24}  # values; a CPU takes one piece for each thread
_scratch = threading.local()


def lerp_dithered(instruct: Tensor, thinking: Tensor, lam: float, *, draws: Draws, out: Tensor) -> Tensor:
    """Writes ``torch.lerp`` of two equal-shaped tensors in float32, dithered to their dtype, into ``out``.

    ``out`` has their shape, their dtype or a wider one, and any strides and device. ``draws`` covers the whole tensor.
    """
    shape = matrix_shape(out.shape)
    if shape != (len(draws.rows), len(draws.columns)):
        raise ValueError(
            f"draws of {len(draws.rows)} rows and {len(draws.columns)} columns do not fit {list(out.shape)}"
        )
    if out.numel() == 0:
        return out
    target = out if out.is_contiguous() else torch.empty_like(out, memory_format=torch.contiguous_format)
    matrices = (instruct.reshape(shape), thinking.reshape(shape), target.view(shape))
    _in_pieces(*matrices, lam, draws.to(out.device), dtype=instruct.dtype)
    return out if target is out else out.copy_(target)


def _in_pieces(
    instruct: Tensor, thinking: Tensor, out: Tensor, lam: float, draws: Draws, *, dtype: torch.dtype
) -> None:
    """Merges matrices by whole rows, in buffers that are used again by the next tensor of this thread."""
    num_rows, num_columns = out.shape
    piece = _PIECES.get(out.device.type, _PIECES["cuda"]) * (torch.get_num_threads() if out.device.type == "cpu" else 1)
    step = max(1, piece // num_columns)
    columns = draws.columns[None, :]
    buffers = _buffers(min(step, num_rows) * num_columns, out.device)
    for begin in range(0, num_rows, step):
        part = slice(begin, begin + step)
        rows = draws.rows[part, None]
        start, end, numbers = (buffer[: len(rows) * num_columns].view(-1, num_columns) for buffer in buffers)
        start.copy_(instruct[part], non_blocking=out.is_cuda)  # in the order of the stream on a GPU
        end.copy_(thinking[part], non_blocking=out.is_cuda)
        torch.lerp(start, end, lam, out=start)
        torch.mul(rows, columns, out=numbers)
        numbers.bitwise_right_shift_(16).bitwise_and_(0xFFFF)
        out[part].copy_(dither(start, dtype, numbers))


def _buffers(size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Returns two float32 buffers and one of int32, of at least ``size`` values, that this thread keeps."""
    kept: tuple[Tensor, Tensor, Tensor] | None = getattr(_scratch, "buffers", None)
    if kept is None or kept[0].device != device or len(kept[0]) < size:
        dtypes = (torch.float32, torch.float32, torch.int32)
        kept = tuple(torch.empty(size, dtype=dtype, device=device) for dtype in dtypes)  # type: ignore[assignment]
        _scratch.buffers = kept
    return kept  # type: ignore[return-value]
