"""Tiny random checkpoints of real families, made with transformers, for every test that needs files on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from autolambda.merging.merge import Merge
from autolambda.merging.writing.write import write_weights

NUM_LAYERS = 2
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_ADDED = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_call>", "<pad>")
_FAMILIES = {
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen3_moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM),
}
_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 512,
}
_MOE_SIZES = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def tiny_checkpoint(
    folder: Path,
    *,
    family: str = "qwen3",
    tie: bool = True,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    max_shard_size: int | None = None,
    vocab_size: int = 264,
    **config: Any,
) -> Path:
    """Saves a random model with its tokenizer; ``config`` overrides keys of its config. Returns ``folder``."""
    make_config, make_model = _FAMILIES[family]
    sizes = _SIZES | (_MOE_SIZES if family == "qwen3_moe" else {}) | config
    settings = make_config(vocab_size=vocab_size, tie_word_embeddings=tie, eos_token_id=258, pad_token_id=263, **sizes)
    model = make_model(settings).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    limit = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
    model.save_pretrained(folder, **limit)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer: 256 bytes, then eight added tokens."""
    vocab = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    for token in _ADDED:
        if "think" in token or "tool" in token:
            core.add_tokens([token])  # as in Qwen3: part of the text, so not special
        else:
            core.add_special_tokens([token])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<pad>")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def write_merge(folder: Path, merge: Merge, *, max_shard_size: int = 1 << 30) -> dict[str, str]:
    """A merge's weights and config in an existing folder, without a card; the hashes of its tensors."""
    (folder / "config.json").write_text(json.dumps(merge.config))
    return dict(write_weights(folder, merge, max_shard_size=max_shard_size, identify=False).tensors)


def edit_json(path: Path, /, **changes: Any) -> None:
    """Sets keys of a JSON file; a value of ``None`` removes the key."""
    content = json.loads(path.read_text()) | changes
    removed = {key for key, value in changes.items() if value is None}
    path.write_text(json.dumps({key: value for key, value in content.items() if key not in removed}))


def edit_tensors(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Applies ``change`` to the tensors of a safetensors file."""
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
