"""The cache of models with recurrent layers (linear attention, Mamba, short convolutions), again with independent rows.

A recurrent layer has one state for a row, not one for a token, so padding must not pass through it. Each prompt is
therefore read alone, and the rows are joined afterwards. Then each step adds one token to every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import LinearAttentionCacheLayerMixin, LinearAttentionLayer

from autolambda.engines.transformers.cache import RowCache


def has_states(config: Any) -> bool:
    """Returns whether a model of this config (its text part) has recurrent layers."""
    return bool(_recurrent(DynamicCache(config=config)))


class StateCache(RowCache):
    """A ``RowCache`` whose recurrent layers have states too, of transformers' own classes."""

    def __init__(self, config: Any) -> None:
        """The cache of one row; ``join`` appends others."""
        super().__init__(num_rows=1)
        self.layers = DynamicCache(config=config).layers
        self._places: dict[int, int] = {}  # of the attention layers among ``keys``, by the number of the layer

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Writes keys and values like ``RowCache``. Layers without attention have none."""
        return super().update(key_states, value_states, self._places.setdefault(layer_idx, len(self._places)))

    def keep(self, rows: Tensor) -> None:
        """Keeps only the given rows (int64 [B']), in the given order."""
        super().keep(rows)
        for layer in _recurrent(self):
            LinearAttentionLayer.reorder_cache(layer, rows)  # type: ignore[arg-type]  # a stub class upstream

    def forget(self) -> None:
        """Sets the states to those before the first token, which are zero."""
        for layer in _recurrent(self):
            for states in (layer.conv_states, layer.recurrent_states):
                for state in states.values():
                    if state is not None:
                        state.zero_()

    def join(self, others: Sequence[StateCache]) -> None:
        """Appends the rows of other caches of the same model."""
        caches = (self, *others)
        capacity = max((keys.shape[2] for cache in caches for keys in cache.keys), default=0)
        for place in range(len(self.keys)):
            self.keys[place] = torch.cat([_widened(cache.keys[place], capacity) for cache in caches])
            self.values[place] = torch.cat([_widened(cache.values[place], capacity) for cache in caches])
        for layers in zip(*map(_recurrent, caches), strict=True):
            for name in ("conv_states", "recurrent_states"):
                states = getattr(layers[0], name)
                for i, state in states.items():
                    if state is not None:
                        states[i] = torch.cat([getattr(layer, name)[i] for layer in layers])


def _recurrent(cache: Any) -> list[Any]:
    return [layer for layer in cache.layers if isinstance(layer, LinearAttentionCacheLayerMixin)]


def _widened(states: Tensor, capacity: int) -> Tensor:
    """Returns keys or values [B, kv_heads, T, head_dim] with zeros appended up to ``capacity`` tokens."""
    return torch.nn.functional.pad(states, (0, 0, 0, capacity - states.shape[2]))
