"""A key/value cache with independent rows: row b keeps its token t in slot t, whatever the other rows do.

Rows are right-padded and slots past a row's length are masked, so a row's sums do not depend on the batch around it.
Widths are multiples of 32 and row counts multiples of 16. BLAS sums the rows of an incomplete block in another order.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache

ROW_STEP = 16
WIDTH_STEP = 32


def round_up(value: int, step: int) -> int:
    """Returns the smallest multiple of ``step`` that is at least ``value``."""
    return -(-value // step) * step


class RowCache(Cache):
    """Keys and values of a batch: one tensor [B, kv_heads, capacity, head_dim] per layer, in the compute dtype."""

    def __init__(self, num_rows: int) -> None:
        super().__init__(layers=[])
        self._num_rows = num_rows
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.slots = self.rows = torch.empty(0, dtype=torch.long)
        self.width = 0
        self.is_part = False  # whether only some rows are computed

    def select(self, slots: torch.Tensor, *, width: int, rows: torch.Tensor | None = None) -> None:
        """Chooses the slots of the next tokens, int64 [B, T]. Attention then sees the first ``width`` slots.

        If ``rows`` are given (int64 [B]), the next tokens are theirs alone; the cache must be wide enough.
        """
        self.slots, self.width, self.is_part = slots, width, rows is not None
        self.rows = (torch.arange(len(slots), device=slots.device) if rows is None else rows)[:, None]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes keys and values [B, kv_heads, T, head_dim] into their slots; returns views of the first ``width``."""
        if layer_idx == len(self.keys):
            self.keys.append(_grown(key_states, self._num_rows, self.width))
            self.values.append(_grown(value_states, self._num_rows, self.width))
        elif self.keys[layer_idx].shape[2] < self.width:
            capacity = round_up(self.width + self.width // 2, WIDTH_STEP)
            former = self.keys[layer_idx], self.values[layer_idx]
            self.keys[layer_idx] = _grown(key_states, len(former[0]), capacity, former[0])
            self.values[layer_idx] = _grown(value_states, len(former[1]), capacity, former[1])
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        keys[self.rows, :, self.slots] = key_states.transpose(1, 2)
        values[self.rows, :, self.slots] = value_states.transpose(1, 2)
        if self.is_part:
            rows = self.rows.squeeze(-1)
            return keys[rows, :, : self.width], values[rows, :, : self.width]
        return keys[:, :, : self.width], values[:, :, : self.width]

    def keep(self, rows: torch.Tensor) -> None:
        """Keeps only the given rows (int64 [B']), in the given order."""
        self.keys = [tensor.index_select(0, rows) for tensor in self.keys]
        self.values = [tensor.index_select(0, rows) for tensor in self.values]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Returns the number of visible slots. transformers derives nothing from it: positions are always passed in."""
        return self.width


def _grown(states: torch.Tensor, num_rows: int, capacity: int, former: torch.Tensor | None = None) -> torch.Tensor:
    """Returns zeros [num_rows, kv_heads, capacity, head_dim] like ``states``, whose first slots hold ``former``."""
    _, heads, _, dim = states.shape
    grown = states.new_zeros(num_rows, heads, capacity, dim)
    if former is not None:
        grown[:, :, : former.shape[2]] = former
    return grown


def attention_masks(
    config: Any, positions: torch.Tensor, *, width: int, dtype: torch.dtype
) -> torch.Tensor | dict[str, torch.Tensor]:
    """Returns the masks to add to the scores, [B, 1, T, width] in ``dtype``, for queries at ``positions`` [B, T].

    A query sees (0, not -inf) the slots up to its own; in sliding-window layers only the last
    ``config.sliding_window`` of these. Families that mix layers (Qwen2, Qwen3, Gemma 2 and 3: ``layer_types`` in their
    config) take a dict by layer type, and the others (Llama, Mistral, the MoE models) one mask. The masks are numbers,
    because eager attention (Gemma 2) would add booleans as 0 and 1.
    """
    distance = positions[:, None, :, None] - torch.arange(width, device=positions.device)
    full = _additive(distance >= 0, dtype)
    window = getattr(config, "sliding_window", None)
    near = _additive((distance >= 0) & (distance < window), dtype) if window else full
    if getattr(config, "layer_types", None):
        return {"full_attention": full, "sliding_attention": near}
    return near


def _additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)
