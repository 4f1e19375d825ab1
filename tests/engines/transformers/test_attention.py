"""Attention without copies of grouped heads."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from checkpoints import tiny_checkpoint
from transformers import AutoModelForCausalLM
from transformers.integrations import sdpa_attention

from autolambda.engines.chat import load_tokenizer
from autolambda.engines.transformers.attention import NAME, _attend, use_grouped_heads
from autolambda.engines.transformers.engine import TransformersEngine
from autolambda.merging.pair import open_pair

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("num_tokens", [1, 7])
def test_it_is_transformers_own_bit_for_bit(kv_heads: int, num_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 6, num_tokens, 16, generator=generator)
    key, value = torch.randn(2, 3, kv_heads, 64, 16, generator=generator)
    mask = torch.zeros(3, 1, num_tokens, 64).masked_fill_(torch.arange(64) > 40, -torch.inf)
    module = SimpleNamespace(num_key_value_groups=6 // kv_heads, is_causal=True)
    expected, _ = sdpa_attention.sdpa_attention_forward(module, query, key, value, mask, scaling=0.3)
    monkeypatch.setattr(sdpa_attention, "repeat_kv", None)  # copies are not made
    found, _ = _attend(module, query, key, value, mask, scaling=0.3)
    assert torch.equal(found, expected)


def test_a_model_without_pytorchs_attention_keeps_its_own(tmp_path) -> None:
    folder = tiny_checkpoint(tmp_path / "model")
    for implementation, used in (("eager", "eager"), ("sdpa", NAME)):
        model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=implementation)
        use_grouped_heads(model)
        assert model.config._attn_implementation == used


def test_the_engine_uses_it_on_a_cpu(parents) -> None:
    pair = open_pair(*map(str, parents))
    engine = TransformersEngine(pair, tokenizer=load_tokenizer(parents[1]), device="cpu")
    assert engine._model.config._attn_implementation == NAME
