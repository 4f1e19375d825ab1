"""What the names of two models say of their order."""

from __future__ import annotations

import pytest

from autolambda.config_models import ModelsConfig

NAMES = {
    ("Qwen/Qwen3-4B-Thinking-2507", "Qwen/Qwen3-4B-Instruct-2507"): "both",
    ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "meta-llama/Llama-3.1-8B-Instruct"): "both",
    ("/models/thinking", "/models/instruct"): "both",
    ("x/thinking_model", "google/gemma-2-2b-it"): "both",
    ("Qwen/Qwen3-4B-Thinking-2507", "mine/checkpoint-300"): "one",
    ("mine/checkpoint-300", "Qwen/Qwen3-4B-Instruct-2507"): "one",
    ("Qwen/Qwen3-4B-Instruct-2507", "Qwen/Qwen3-4B-Thinking-2507"): None,
    ("Qwen/Qwen3-4B-Thinking-2507", "x/Other-Thinking"): None,
    ("x/Model-Instruct", "y/Model-Instruct-v2"): None,
    ("mine/Model-Instruct", "mine/a"): None,
    ("mine/a", "mine/b"): None,
    ("mine/Model-non-thinking", "mine/Model-thinking"): None,
    ("mine/Instruct-Thinking", "mine/Chat"): "one",
    ("/instruct/of/all/Thinking", "/runs/instruct/last"): "one",  # the last part alone counts
    ("mine/within", "mine/rethinking-instructions"): None,
}


@pytest.mark.parametrize("pair", NAMES)
def test_names_tell_when_the_models_are_swapped(pair: tuple[str, str]) -> None:
    models = ModelsConfig(instruct=pair[0], thinking=pair[1])
    assert models.swapped_names == NAMES[pair]
    assert models.model_copy(update={"allow_swapped": True}).swapped_names is None


def test_the_bundled_pair_needs_no_names() -> None:
    assert ModelsConfig().swapped_names is None
