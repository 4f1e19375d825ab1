"""Models with recurrent layers: each row generates what transformers' own ``generate`` gives it alone."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import tiny_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from autolambda.engines.base import Prompt, Sampling
from autolambda.engines.decoder import Decoder
from autolambda.engines.transformers.batch import Batch
from autolambda.engines.transformers.engine import TransformersEngine
from autolambda.engines.transformers.states import StateCache, has_states
from autolambda.errors import EngineError
from autolambda.merging.pair import open_pair
from autolambda.responses import Response

pytestmark = pytest.mark.usefixtures("one_thread")

GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, min_p=0.0, presence_penalty=0.0, stop=(), max_tokens=20)
END = 258
SIZES = {
    "vocab_size": 264, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512, "eos_token_id": END, "pad_token_id": 263,
}  # fmt: skip
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 1}
LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "qwen3_5_text": LINEAR,
    "falcon_h1": MAMBA | {"mamba_d_ssm": 64},
    "bamba": MAMBA | {"attn_layer_indices": [1], "mamba_d_head": 16},
}


def model_of(family: str) -> Any:
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SIZES, **FAMILIES[family])).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def prompts() -> list[Prompt]:
    """Prompts of 1 token, of fewer tokens than a convolution takes, and of more than a cache block."""
    chance = random.Random(0)
    return [Prompt("".join(chance.choices("abcdefgh", k=length)), 0) for length in (1, 2, 40, 1, 3, 9)]


def generate(model: Any, prompts: list[Prompt]) -> list[Response]:
    with torch.inference_mode():
        batch = Batch(model, Decoder(tiny_tokenizer(), frozenset({END}), ()), prompts, GREEDY)
        while batch.num_active:
            batch.step()
    return batch.responses()


def generate_alone(model: Any, prompt: Prompt) -> str:
    ids = tiny_tokenizer()(prompt.text, return_tensors="pt").input_ids
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20, eos_token_id=END)
    text: str = tiny_tokenizer().decode([token for token in out[0, ids.shape[1] :].tolist() if token != END])
    return text


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_responses_are_transformers_own_in_any_batch(family):
    model = model_of(family)
    assert has_states(model.config)
    together = generate(model, prompts())
    assert [response.text for response in together] == [generate_alone(model, prompt) for prompt in prompts()]
    assert [generate(model, [prompt])[0] for prompt in prompts()] == together
    assert len({response.text for response in together}) > 3


def test_models_with_attention_alone_have_no_states():
    assert not has_states(AutoConfig.for_model("qwen3", **SIZES))
    sliding = ["sliding_attention", "full_attention", "sliding_attention"]
    assert not has_states(AutoConfig.for_model("gemma3_text", **SIZES, sliding_window=6, layer_types=sliding))


def test_rows_are_joined_kept_and_forgotten():
    config = AutoConfig.for_model("lfm2", **SIZES, **FAMILIES["lfm2"])
    caches = [StateCache(config) for _ in range(3)]
    for i, cache in enumerate(caches):
        num_tokens = 20 * i + 1
        cache.select(torch.arange(num_tokens)[None], width=32 * (1 + num_tokens // 32))
        cache.update(torch.full((1, 2, num_tokens, 16), i + 1.0), torch.ones(1, 2, num_tokens, 16), 1)
        cache.update_conv_state(torch.full((1, 32, 3), i + 1.0), 0)
    caches[0].join(caches[1:])
    caches[0].keep(torch.tensor([2, 0]))
    assert caches[0].keys[0].shape == (2, 2, 64, 16)
    assert caches[0].keys[0][:, 0, 0, 0].tolist() == [3, 1] and caches[0].keys[0][:, 0, 41:].count_nonzero() == 0
    assert caches[0].layers[0].conv_states[0][:, 0, 0].tolist() == [3, 1]
    caches[0].forget()
    assert caches[0].layers[0].conv_states[0].count_nonzero() == 0 and caches[0].has_previous_state(0)


@pytest.mark.parametrize(("family", "why"), [("rwkv", "it takes no past_key_values"), ("recurrent_gemma", "")])
def test_a_model_that_would_lose_its_context_is_refused(tmp_path: Path, family: str, why: str) -> None:
    sizes = SIZES | ({"attention_hidden_size": 32} if family == "rwkv" else {})
    AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes)).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    pair = open_pair(str(tmp_path), str(tmp_path))
    with pytest.raises(EngineError, match=rf"cannot generate in batches of independent rows \(.*{why}.*\); set"):
        TransformersEngine(pair, tokenizer=tiny_tokenizer(), device="cpu")
