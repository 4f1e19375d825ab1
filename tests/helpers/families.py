"""Miniatures of the model families that autolambda is tried on: the config of each, and an official or typical pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from checkpoints import tiny_tokenizer
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText

NUM_LAYERS = 4
SIZES: dict[str, Any] = {
    "vocab_size": 264,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "pad_token_id": 263,
    "bos_token_id": 256,
    "eos_token_id": 258,
    "max_position_embeddings": 512,
}
EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
}
GROUPS = {"first_k_dense_replace": 1, "n_group": 2, "topk_group": 1}
SHARED = {"shared_expert_intermediate_size": 32}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "num_key_value_heads": 4,
    "head_dim": 8,
}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
MAMBA = {
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 16,
    "mamba_d_ssm": 64,
    "mamba_n_groups": 1,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "ssm_state_size": 16,
    "n_groups": 1,
    "mamba_expand": 1,
    "mamba_chunk_size": 16,
}
CONVOLUTION = {"layer_types": ["conv", "full_attention"] * 2, "head_dim": None}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_heads": 2,
    "num_attention_heads": 2,
    "depth": 1,
    "num_hidden_layers": 1,
    "out_hidden_size": 64,
    "patch_size": 14,
    "image_size": 28,
    "deepstack_visual_indexes": [0],
}


@dataclass(frozen=True)
class Family:
    """A family by its ``model_type``, a pair of it, and what its miniature changes in ``SIZES``.

    ``text`` is the model type of the language part of a nested family. ``spaces`` is what can be searched. The
    transformers engine runs the family, unless ``runs`` is false. ``vllm`` says that the engines' contract runs on it
    in vLLM too.
    """

    model_type: str
    pair: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    spaces: str = "all"
    runs: bool = True
    vllm: bool = False

    @property
    def tried(self) -> str:
        """How the family was tried on each engine, for the table."""
        if self.vllm:
            return "both: miniature, vLLM on a CPU"
        return "transformers: miniature" if self.runs else "merged and exported only: miniature"

    @property
    def nested(self) -> bool:
        return bool(self.text)


FAMILIES = {
    family.model_type: family
    for family in (
        Family("llama", "Llama-3.1-8B-Instruct x DeepSeek-R1-Distill-Llama-8B"),
        Family("qwen2", "Qwen2.5-Math-7B x DeepSeek-R1-Distill-Qwen-7B"),
        Family("qwen3", "Qwen3-4B-Instruct-2507 x Qwen3-4B-Thinking-2507"),
        Family("qwen3_moe", "Qwen3-30B-A3B-Instruct-2507 x Qwen3-30B-A3B-Thinking-2507", EXPERTS),
        Family("qwen3_next", "Qwen3-Next-80B-A3B-Instruct x -Thinking", {**EXPERTS, **LINEAR, **SHARED}),
        Family("qwen3_5_text", "fine-tunes of Qwen3.5, text only", LINEAR),
        Family("qwen3_5_moe_text", "fine-tunes of Qwen3.5 MoE, text only", {**EXPERTS, **LINEAR, **SHARED}),
        Family("qwen2_moe", "fine-tunes of Qwen2 MoE", {**EXPERTS, **SHARED}),
        Family("mistral", "Mistral-Small-24B-Instruct-2501 x fine-tunes"),
        Family("ministral", "fine-tunes of Ministral"),
        Family("mixtral", "fine-tunes of Mixtral", EXPERTS),
        Family("gemma", "fine-tunes of Gemma"),
        Family("gemma2", "fine-tunes of Gemma 2"),
        Family("gemma3_text", "fine-tunes of Gemma 3 1B"),
        Family("phi3", "Phi-4-mini-instruct x Phi-4-mini-reasoning; phi-4 x Phi-4-reasoning", vllm=True),
        Family("phimoe", "fine-tunes of Phi-3.5-MoE", EXPERTS),
        Family("olmo2", "fine-tunes of OLMo 2"),
        Family("olmo3", "Olmo-3-7B-Instruct x Olmo-3-7B-Think"),
        Family("olmoe", "fine-tunes of OLMoE", {**EXPERTS, "head_dim": None}),
        Family("smollm3", "fine-tunes of SmolLM3"),
        Family("hunyuan_v1_dense", "fine-tunes of Hunyuan"),
        Family("hunyuan_v1_moe", "fine-tunes of Hunyuan-A13B", {**EXPERTS, "moe_topk": 2}),
        Family("ernie4_5", "fine-tunes of ERNIE 4.5"),
        Family(
            "ernie4_5_moe",
            "ERNIE-4.5-21B-A3B-PT x ERNIE-4.5-21B-A3B-Thinking",
            {**EXPERTS, "moe_num_experts": 4, "moe_k": 2, "moe_layer_start_index": 1},
        ),
        Family("glm4", "GLM-4-9B-0414 x GLM-Z1-9B-0414"),
        Family("glm4_moe", "fine-tunes of GLM-4.5-Air", {**EXPERTS, **GROUPS}, vllm=True),
        Family("glm4_moe_lite", "fine-tunes of GLM-4.7-Flash", {**EXPERTS, **LATENT, **GROUPS}),
        Family("deepseek_v2", "fine-tunes of DeepSeek-V2", {**EXPERTS, **LATENT, **GROUPS}),
        Family("deepseek_v3", "DeepSeek-V3 x DeepSeek-R1, in bfloat16", {**EXPERTS, **LATENT, **GROUPS}),
        Family("gpt_oss", "fine-tunes of gpt-oss, in bfloat16", EXPERTS),
        Family("granite", "fine-tunes of Granite"),
        Family("granitemoe", "fine-tunes of Granite MoE", EXPERTS),
        Family(
            "granitemoehybrid",
            "fine-tunes of Granite 4",
            {**EXPERTS, **MAMBA, "shared_intermediate_size": 32, "layer_types": ["mamba", "attention"] * 2},
        ),
        Family("exaone4", "fine-tunes of EXAONE 4"),
        Family("cohere", "fine-tunes of Command R"),
        Family("cohere2", "fine-tunes of Command A"),
        Family("nemotron", "fine-tunes of Nemotron"),
        Family("nemotron_h", "fine-tunes of Nemotron-H", {**MAMBA, **EXPERTS}),
        Family("seed_oss", "fine-tunes of Seed-OSS"),
        Family("lfm2", "LFM2.5-1.2B-Instruct x LFM2.5-1.2B-Thinking", CONVOLUTION),
        Family("lfm2_moe", "fine-tunes of LFM2-8B-A1B", {**EXPERTS, **CONVOLUTION, "num_dense_layers": 1}),
        Family("falcon_h1", "Falcon-H1-7B-Instruct x Falcon-H1R-7B", MAMBA, vllm=True),
        Family("apertus", "fine-tunes of Apertus"),
        Family("bamba", "fine-tunes of Bamba", {**MAMBA, "attn_layer_indices": [1, 3]}),
        Family("minimax_m2", "fine-tunes of MiniMax-M2", EXPERTS),
        Family("arcee", "fine-tunes of AFM"),
        Family("starcoder2", "fine-tunes of StarCoder 2"),
        Family("gpt_neox", "fine-tunes of Pythia", {"head_dim": None}),
        Family("zamba2", "fine-tunes of Zamba 2", {"num_hidden_layers": None, **MAMBA}, spaces="uniform"),
        Family("qwen3_vl", "Qwen3-VL-8B-Instruct x Qwen3-VL-8B-Thinking", text="qwen3_vl_text"),
        Family("qwen3_vl_moe", "Qwen3-VL-30B-A3B-Instruct x -Thinking", EXPERTS, text="qwen3_vl_moe_text"),
        Family("qwen2_5_vl", "fine-tunes of Qwen2.5-VL", {"head_dim": None}, text="qwen2_5_vl_text"),
        Family("qwen3_5", "fine-tunes of Qwen3.5", LINEAR, text="qwen3_5_text"),
        Family("mistral3", "Mistral-Small-3.2-24B x Magistral-Small-2509; Ministral-3 x -Reasoning", text="ministral3"),
        Family("gemma3", "fine-tunes of Gemma 3 4B and larger", text="gemma3_text"),
        Family("llama4", "fine-tunes of Llama 4", EXPERTS, text="llama4_text", runs=False),
    )
}


def config_of(family: Family, *, tie: bool | None = None) -> Any:
    """The config of a miniature. ``tie`` overrides the family's default."""
    changes = {**SIZES, **family.changes}
    sizes = {key: value for key, value in changes.items() if value is not None}
    if tie is not None:
        sizes["tie_word_embeddings"] = tie
    if not family.nested:
        return CONFIG_MAPPING[family.model_type](**sizes)
    text = {**sizes, "model_type": family.text, "rope_parameters": ROPE.get(family.model_type)}
    text = {key: value for key, value in text.items() if value is not None}
    ids = {key: 260 for key in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")}
    ids |= {"image_token_index": 260, "boi_token_index": 260, "eoi_token_index": 260}
    return CONFIG_MAPPING[family.model_type](text_config=text, vision_config=dict(VISION), **ids)


ROPE: dict[str, dict[str, Any]] = {
    name: {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6], "mrope_interleaved": True}
    for name in ("qwen3_vl", "qwen3_vl_moe", "qwen3_5")
} | {"qwen2_5_vl": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}}


def save_family(
    folder: Path, family: Family, *, seed: int = 0, dtype: torch.dtype = torch.bfloat16, tie: bool | None = None
) -> Path:
    """Saves a random miniature with its tokenizer, every tensor with values of its own; returns ``folder``."""
    torch.manual_seed(seed)
    auto: Any = AutoModelForImageTextToText if family.nested else AutoModelForCausalLM
    model = auto.from_config(config_of(family, tie=tie), dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    buffers = [buffer for name, buffer in model.named_buffers() if name in model.state_dict()]
    with torch.no_grad():
        for tensor in (*model.parameters(), *buffers):
            if tensor.is_floating_point():
                tensor.add_((torch.randn(tensor.shape, generator=generator) * 0.1).to(tensor.dtype))
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
