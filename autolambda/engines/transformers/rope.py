"""Rope whose frequencies follow from the length of a sequence (longrope, dynamic): here each row has its own.

transformers takes the frequencies of a whole batch from its longest row. This module gives every row the angles that
transformers' ``generate`` computes for that row alone. Phi-3's ``generate`` also drops its cache when a sequence passes
the original context, because the keys before were turned by other frequencies. ``Batch`` then computes it again, as
``generate`` does without a cache. (With one, transformers 5.19 feeds the newest token alone: the context is lost.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers import GenerationMixin


class RowRope:
    """The rotary embeddings of a model that depend on the length; usually none.

    ``switch`` is the number of cached tokens at which ``generate`` computes the cache again, or ``None``.
    """

    def __init__(self, module: Any) -> None:
        """``module`` is a transformers model with a language head."""
        self._embeddings = [each for each in module.modules() if _follows_length(each)]
        overrides = type(module).prepare_inputs_for_generation is not GenerationMixin.prepare_inputs_for_generation
        length = getattr(module.config, "original_max_position_embeddings", None)
        self.switch: int | None = length if self._embeddings and overrides else None

    @contextmanager
    def of(self, lengths: torch.Tensor) -> Iterator[None]:
        """Within the block, the model's rows have these lengths, int64 [B]: all tokens up to the newest."""
        for each in self._embeddings:
            each.forward = partial(_by_length, each, each.forward, lengths)
        try:
            yield
        finally:
            for each in self._embeddings:
                del each.forward  # the method of the class is back


def _types(embedding: Any) -> list[str]:
    kind = getattr(embedding, "rope_type", None)
    return [str(each) for each in (kind.values() if isinstance(kind, dict) else [kind])]


def _follows_length(embedding: Any) -> bool:
    return hasattr(embedding, "original_max_seq_len") and any(
        "dynamic" in k or k == "longrope" for k in _types(embedding)
    )


def _by_length(
    embedding: Any,
    forward: Any,
    lengths: torch.Tensor,
    x: torch.Tensor,
    position_ids: torch.Tensor,
    layer_type: str | None = None,
) -> tuple[torch.Tensor, ...]:
    """Returns cos and sin [B, T, D]: calls ``forward`` for the rows of each regime, with their lengths."""
    kwargs = {} if layer_type is None else {"layer_type": layer_type}
    regimes = _regimes(embedding, lengths, layer_type)
    if regimes is None:
        found: tuple[torch.Tensor, ...] = forward(x, position_ids, **kwargs)
        return found
    parts, order = [], []
    last = (lengths - 1)[:, None]
    # a column with the newest position says how long the rows are; padding behind a row must not say more
    positions = torch.cat([position_ids.minimum(last), last], dim=1)
    for regime in sorted(set(regimes.tolist())):
        rows = (regimes == regime).nonzero().squeeze(-1)
        _reset(embedding, "" if layer_type is None else f"{layer_type}_")
        parts.append([each[:, :-1] for each in forward(x, positions[rows], **kwargs)])
        order.append(rows)
    back = torch.cat(order).argsort()
    return tuple(torch.cat(each)[back] for each in zip(*parts, strict=True))


def _regimes(embedding: Any, lengths: torch.Tensor, layer_type: str | None) -> torch.Tensor | None:
    """Returns a number for each row, int64 [B]; rows with equal numbers have equal frequencies."""
    kind, rope = embedding.rope_type, embedding.config.rope_parameters
    if layer_type is not None and isinstance(kind, dict):
        kind, rope = kind[layer_type], rope[layer_type]
    if "dynamic" in kind:
        return lengths * (lengths > int(embedding.original_max_seq_len))
    if kind == "longrope":
        return (lengths > int(rope["original_max_position_embeddings"])).long()
    return None


def _reset(embedding: Any, prefix: str) -> None:
    """Brings the frequencies back to those of short sequences, which dynamic rope keeps from call to call."""
    original = getattr(embedding, f"{prefix}original_inv_freq")
    embedding.register_buffer(f"{prefix}inv_freq", original, persistent=False)
    setattr(embedding, f"{prefix}max_seq_len_cached", embedding.original_max_seq_len)
