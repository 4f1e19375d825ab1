"""Writes an export of the demo as a GGUF file, in float16 or with linear layers and embeddings in q8_0.

llama.cpp's own converter refuses tokenizers that it does not know. The demo's has one token a byte and no merges.

    pip install gguf
    python studies/served/to_gguf.py EXPORT OUT.gguf f16
    python studies/served/to_gguf.py EXPORT OUT.gguf q8_0
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.torch import load_file

TYPES = {"f16": gguf.GGMLQuantizationType.F16, "q8_0": gguf.GGMLQuantizationType.Q8_0}
UNUSED_MERGE = "\u0100 \u0101"  # llama.cpp wants merges; this one joins the bytes 0 and 1, which no prompt has


def add_config(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    """Adds the sizes of a Qwen3 model."""
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])


def add_tokenizer(writer: gguf.GGUFWriter, folder: Path, config: dict[str, Any]) -> None:
    """Adds the tokens, their types, the token that ends a response, and the chat template."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    ids: dict[int, str] = {number: token for token, number in tokenizer["model"]["vocab"].items()}
    kinds = {number: gguf.TokenType.NORMAL for number in ids}
    for added in tokenizer["added_tokens"]:
        ids[added["id"]] = added["content"]
        kinds[added["id"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    numbers = range(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([ids.get(number, f"[PAD{number}]") for number in numbers])
    writer.add_token_types([kinds.get(number, gguf.TokenType.UNUSED) for number in numbers])
    writer.add_token_merges([UNUSED_MERGE])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template((folder / "chat_template.jinja").read_text(encoding="utf-8"))


def add_weights(writer: gguf.GGUFWriter, folder: Path, config: dict[str, Any], dtype: str) -> None:
    """Adds matrices in ``dtype`` and vectors in float32."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config["num_hidden_layers"])
    for name, tensor in load_file(folder / "model.safetensors").items():
        target = names.get_name(name, try_suffixes=(".weight",))
        assert target is not None, name
        values = tensor.float().numpy()
        kind = TYPES[dtype] if values.ndim > 1 else gguf.GGMLQuantizationType.F32
        data = np.ascontiguousarray(gguf.quants.quantize(values, kind))
        writer.add_tensor(target, data, raw_dtype=kind)


def main() -> None:
    folder, target, dtype = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(target, "qwen3")
    add_config(writer, config)
    add_tokenizer(writer, folder, config)
    add_weights(writer, folder, config, dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
