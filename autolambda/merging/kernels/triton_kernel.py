"""The dithered merge as one Triton kernel: each weight is read, merged, dithered and written once.

The formulas are those of ``torch.lerp`` and of ``rounding.py``, so the bits are too. It is imported at
the first merge on a GPU.
"""

from __future__ import annotations

import numpy as np
import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

from autolambda.merging.rounding import Draws

_WIDE, _NARROW = (8, 256), (1024, 2)  # rows and columns of a tile


def lerp_dithered_matrix(instruct: Tensor, thinking: Tensor, lam: float, *, draws: Draws, out: Tensor) -> None:
    """Writes the dithered merge of two matrices of equal shape and dtype into ``out``, all on the current device.

    ``out`` has their dtype or float32. The matrices may have any strides.
    """
    num_rows, num_columns = out.shape
    rows, columns = _WIDE if num_columns >= 64 else _NARROW
    tiles = triton.cdiv(num_rows, rows) * triton.cdiv(num_columns, columns)
    weight = float(np.float32(lam))
    from_thinking = abs(weight) >= 0.5
    _kernel[(tiles,)](
        instruct, thinking, out, draws.rows.contiguous(), draws.columns.contiguous(),
        weight - 1.0 if from_thinking else weight, num_rows, num_columns,
        *instruct.stride(), *thinking.stride(), *out.stride(),
        FROM_THINKING=from_thinking, HALF=instruct.dtype == torch.float16, ROWS=rows, COLUMNS=columns,
        enable_fp_fusion=False,
    )  # fmt: skip


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _kernel(  # type: ignore[no-untyped-def]  # noqa: ANN202
    instruct, thinking, out, row_keys, column_keys, factor, num_rows, num_columns,  # noqa: ANN001
    instruct_row, instruct_column, thinking_row, thinking_column, out_row, out_column,  # noqa: ANN001
    FROM_THINKING: tl.constexpr, HALF: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    tiles_across = (num_columns + COLUMNS - 1) // COLUMNS
    tile = tl.program_id(0)
    row = (tile // tiles_across).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = (tile % tiles_across).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    keys = tl.load(row_keys + row, mask=row < num_rows, other=0)
    keys = keys[:, None] * tl.load(column_keys + column, mask=column < num_columns, other=0)[None, :]
    draw = (keys >> 16) & 0xFFFF
    row, column = row[:, None], column[None, :]
    inside = (row < num_rows) & (column < num_columns)
    start = tl.load(instruct + row * instruct_row + column * instruct_column, mask=inside, other=0.0).to(tl.float32)
    end = tl.load(thinking + row * thinking_row + column * thinking_column, mask=inside, other=0.0).to(tl.float32)
    values = tl.fma(end - start, tl.full((ROWS, COLUMNS), factor, tl.float32), end if FROM_THINKING else start)
    bits = values.to(tl.int32, bitcast=True)
    if HALF:
        smallest_normal = 0.00006103515625  # 2**-14
        size = tl.abs(values)
        steps = ((tl.minimum(size, smallest_normal) * 1099511627776.0).to(tl.int32) + draw) >> 16  # 2**40
        subnormal = (steps.to(tl.float32) * 5.9604644775390625e-08).to(tl.int32, bitcast=True)  # 2**-24
        normal = (bits + (draw >> 3)) & -0x2000
        bits = tl.where(size < smallest_normal, subnormal | (bits & -0x80000000), normal)
    else:
        bits = (bits + draw) & -0x10000
    rounded = bits.to(tl.float32, bitcast=True).to(out.dtype.element_ty)
    tl.store(out + row * out_row + column * out_column, rounded, mask=inside)
