"""Attention on a CPU without copies of grouped heads: several query heads read one head of keys and values.

transformers' own function repeats keys and values for every query head when there is a mask, because the masked kernels
of a GPU need it. PyTorch's kernel for a CPU does not, and its sums are the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "grouped_sdpa"


def use_grouped_heads(model: Any) -> None:
    """Lets a transformers model on a CPU attend without copies. Models without PyTorch's attention stay as they are."""
    if model.config.get_text_config()._attn_implementation != "sdpa":
        return
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    position_bias: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Returns [B, T, heads, head_dim] from queries [B, heads, T, head_dim] and keys and values [B, kv_heads, ...]."""
    if attention_mask is None or position_bias is not None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, position_bias=position_bias, **kwargs
        )
    found = scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=key.shape[1] < query.shape[1]
    )
    return found.transpose(1, 2).contiguous(), None
