"""Rope that follows the length: every row as transformers generates it alone, whatever lies beside it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from checkpoints import tiny_tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config

from autolambda.engines.base import Prompt, Sampling
from autolambda.engines.transformers.engine import TransformersEngine
from autolambda.engines.transformers.rope import RowRope
from autolambda.merging.pair import open_pair

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*original_max_position_embeddings"),
]

SWITCH = 32
SIZES = {
    "vocab_size": 264, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "eos_token_id": 258, "pad_token_id": 263, "bos_token_id": None,
}  # fmt: skip
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8,
    "original_max_position_embeddings": SWITCH, "factor": 32.0,
}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "factor": 8.0, "rope_theta": 10000.0}
CONFIGS = {
    "phi3": functools.partial(
        Phi3Config, max_position_embeddings=1024, original_max_position_embeddings=SWITCH, rope_parameters=LONGROPE
    ),
    "longrope": functools.partial(LlamaConfig, max_position_embeddings=1024, rope_parameters=LONGROPE),
    "dynamic": functools.partial(LlamaConfig, max_position_embeddings=SWITCH, rope_parameters=DYNAMIC),
    "default": functools.partial(LlamaConfig, max_position_embeddings=1024),
}
TEXTS = [*("9" * num + "+1=" for num in (1, 4, 20, 27, 28, 29, 30, 31, 50)), "7*7=", "12-3+4*5-6+7+8-9+1+2+3"]
NUM_TOKENS = 48


@dataclass(frozen=True)
class Opened:
    """An engine, and the plain model that it holds."""

    name: str
    engine: TransformersEngine
    folder: Path

    def greedy(self, texts):
        sampling = Sampling(0.0, 1.0, 0, 0.0, 0.0, (), NUM_TOKENS)
        return [response.text for response in self.engine.generate([Prompt(text, 0) for text in texts], sampling)]

    def plain(self, text):
        """What transformers generates; without a cache where the one of Phi-3 loses the context."""
        model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()
        tokenizer = tiny_tokenizer()
        ids = torch.tensor([tokenizer(text, add_special_tokens=False).input_ids])
        cached = self.name != "phi3"
        out = model.generate(ids, do_sample=False, max_new_tokens=NUM_TOKENS, max_length=None, use_cache=cached)
        made = out[0, ids.shape[1] :].tolist()
        return tokenizer.decode(made[:-1] if made[-1] == 258 else made, clean_up_tokenization_spaces=False)


@pytest.fixture(scope="module", params=CONFIGS)
def opened(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(CONFIGS[request.param](**SIZES)).float()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(3)  # so that positions matter
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    engine = TransformersEngine(open_pair(str(folder), str(folder)), tokenizer=tiny_tokenizer(), device="cpu")
    yield Opened(request.param, engine, folder)
    engine.close()


def test_a_row_is_the_same_alone_and_beside_longer_ones(opened):
    together = opened.greedy(TEXTS)
    assert len(set(together)) > 5
    assert [opened.greedy([text])[0] for text in TEXTS] == together
    assert opened.greedy(TEXTS[::-1]) == together[::-1]


def test_a_row_is_what_transformers_generates(opened):
    assert opened.greedy(TEXTS) == [opened.plain(text) for text in TEXTS]


def test_only_a_model_that_needs_it_is_touched(opened):
    rope = RowRope(opened.engine._model)
    assert rope.switch == (SWITCH if opened.name == "phi3" else None)
    assert bool(rope._embeddings) is (opened.name != "default")
    assert all("forward" not in vars(each) for each in opened.engine._model.modules())
