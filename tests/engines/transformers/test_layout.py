"""Finding a checkpoint's tensors in transformers' models, and noticing whatever is not where it was found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.core_model_loading import (
    Concatenate,
    Interleave,
    MergeModulelist,
    PermuteForRope,
    Transpose,
    WeightConverter,
    WeightRenaming,
    revert_weight_conversion,
)

from autolambda.engines.transformers.layout import live_tensors, misplaced

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {
    "model_type": "mixtral", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "num_local_experts": 3, "tie_word_embeddings": True,
}  # fmt: skip
GATE_UP = ["mlp.experts.*.w1.weight", "mlp.experts.*.w3.weight"]
STACKED = WeightConverter(GATE_UP, "mlp.experts.gate_up_proj", [MergeModulelist(dim=0), Concatenate(dim=1)])
CONVERSIONS = {
    "experts": [STACKED, WeightRenaming("input_layernorm", "in.norm")],
    "transposed": [WeightConverter("o_proj.weight", "o_proj.weight", [Transpose(0, 1)])],
    "transposed experts": [WeightConverter("experts.down_proj", "experts.down_proj", [Transpose(1, 2)])],
    "interleaved": [WeightConverter("experts.gate_up_proj", "experts.gate_up_proj", [Interleave(dim=1)])],
    "rope": [WeightConverter("q_proj.weight", "q_proj.weight", [PermuteForRope(None, ["q_proj"])])],
}


def model_of(conversions: list[Any]) -> Any:
    """A random model that says it was loaded by these conversions."""
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(**SIZES))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    model._weight_conversions = conversions
    return model


def saved(model: Any) -> dict[str, Tensor]:
    """What transformers would write into the model's files."""
    return {name: each.clone() for name, each in revert_weight_conversion(model, model.state_dict()).items()}


@pytest.mark.parametrize("name", CONVERSIONS)
def test_tensors_are_found_where_transformers_saves_them_from(name):
    model = model_of(CONVERSIONS[name])
    files = saved(model)
    found = live_tensors(model, {name: tensor.shape for name, tensor in files.items()})
    assert found.keys() == files.keys()
    storages = {live.untyped_storage().data_ptr() for live in model.parameters()}
    for key, tensor in files.items():
        assert torch.equal(found[key].reshape(tensor.shape), tensor), key
        assert found[key].untyped_storage().data_ptr() in storages, key  # not a copy
    assert misplaced(model, found, files) == []


def test_a_head_of_its_own_name_is_the_embedding_if_it_is_tied():
    model = model_of([])
    head = live_tensors(model, {"lm_head.weight": (40, 16)})["lm_head.weight"]
    assert head.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_a_checkpoint_of_the_base_model_lacks_the_prefix():
    model = model_of([])
    assert live_tensors(model, {"norm.weight": (16,)})["norm.weight"].data_ptr() == model.model.norm.weight.data_ptr()


def test_persistent_buffers_are_found():
    model = model_of([])
    model.model.register_buffer("bias", torch.arange(3.0))
    model.model.register_buffer("passing", torch.arange(3.0), persistent=False)
    found = live_tensors(model, {"model.bias": (3,), "model.passing": (3,)})
    assert found.keys() == {"model.bias"}
    found["model.bias"].fill_(5)
    assert model.model.bias.tolist() == [5, 5, 5]


def test_what_the_model_does_not_hold_as_one_view_is_left_out():
    """No such name, another size, and one tensor of the files that is two in memory."""
    halves = WeightConverter("v_and_k", ["self_attn.v_proj.weight", "self_attn.k_proj.weight"], [_Split()])
    model = model_of([halves])
    shapes = {"model.layers.0.v_and_k": (16, 16), "model.norm.weight": (17,), "model.other": (16,)}
    assert live_tensors(model, shapes) == {}


class _Split(Concatenate):
    """Splits when loading, so it concatenates when saving."""

    @property
    def reverse_op(self) -> Concatenate:
        return Concatenate(0)


@pytest.mark.parametrize(
    ("spoil", "wrong"),
    [
        (lambda found, files: files["model.norm.weight"].neg_(), "model.norm.weight"),
        (lambda found, files: found.pop("model.layers.0.mlp.experts.2.w1.weight"), "gate_up_proj"),
        (lambda found, files: found.update({"model.norm.weight": found["model.norm.weight"][:8]}), "model.norm.weight"),
    ],
)
def test_other_values_and_values_without_a_tensor_are_noticed(spoil, wrong):
    model = model_of([STACKED])
    files = saved(model)
    found = live_tensors(model, {name: tensor.shape for name, tensor in files.items()})
    spoil(found, files)
    if "norm" in wrong:
        files["model.norm.weight"] = files["model.norm.weight"][: len(found["model.norm.weight"])]
    [name] = misplaced(model, found, files)
    assert name.endswith(wrong)
