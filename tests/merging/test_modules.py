"""Where each tensor lies: by the names of Llama's layout, and for every other layout by the code of the model."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import edit_json, edit_tensors, tiny_checkpoint
from families import FAMILIES, NUM_LAYERS, save_family

from autolambda.errors import PairError, ScheduleError
from autolambda.merging.checkpoint import open_checkpoint
from autolambda.merging.merge import open_merge
from autolambda.merging.modules import ModuleMap, is_uncomputed, llama_location, module_map
from autolambda.merging.pair import open_pair
from autolambda.schedule import Location, Schedule

ATTENTION, FFN = "attention", "ffn"
# What belongs to which module in a layer; a family's other parts have the names of Llama.
LAYERS = {
    "gemma2": {"post_attention_layernorm": ATTENTION, "pre_feedforward_layernorm": FFN, "mlp": FFN}
    | {"post_feedforward_layernorm": FFN},
    "olmo3": {"self_attn": ATTENTION, "post_attention_layernorm": ATTENTION, "post_feedforward_layernorm": FFN},
    "glm4": {"post_self_attn_layernorm": ATTENTION, "post_attention_layernorm": FFN, "post_mlp_layernorm": FFN},
    "qwen3_next": {"linear_attn": ATTENTION, "self_attn": ATTENTION, "post_attention_layernorm": FFN, "mlp": FFN},
    "lfm2": {"conv": ATTENTION, "operator_norm": ATTENTION, "ffn_norm": FFN, "feed_forward": FFN},
    "falcon_h1": {"mamba": ATTENTION, "self_attn": ATTENTION, "pre_ff_layernorm": FFN, "feed_forward": FFN},
    "mixtral": {"self_attn": ATTENTION, "block_sparse_moe": FFN, "post_attention_layernorm": FFN},
    "cohere2": {"input_layernorm": ATTENTION, "mlp": FFN},  # one norm feeds both
}


def places(tmp_path: Path, family: str) -> ModuleMap:
    return module_map(open_checkpoint(str(save_family(tmp_path / family, FAMILIES[family]))))


@pytest.mark.parametrize("family", LAYERS)
def test_a_norm_goes_with_the_sublayer_that_it_serves(tmp_path: Path, family: str) -> None:
    found = places(tmp_path, family)
    assert found.locations is not None
    modules: dict[str, set[str]] = {}
    for name, location in found.locations.items():
        if location.layer is not None:
            assert f"layers.{location.layer}." in name
            modules.setdefault(name.split(".layers.")[1].split(".")[1], set()).add(location.module)
    for part, module in LAYERS[family].items():
        assert modules[part] == {module}, part
    outside = {name for name, location in found.locations.items() if location.layer is None}
    assert all(".layers." not in name for name in outside) and any("embed_tokens" in name for name in outside)


def test_the_kind_of_a_layer_decides_and_not_its_name(tmp_path: Path) -> None:
    """Every layer of Nemotron-H has one sublayer, called mixer: Mamba, attention, dense or a mixture of experts."""
    found = places(tmp_path, "nemotron_h").locations
    assert found is not None
    kinds = {location.layer: location.module for name, location in found.items() if ".mixer." in name}
    norms = {location.layer: location.module for name, location in found.items() if ".norm." in name}
    assert kinds == norms and len(kinds) == NUM_LAYERS and set(kinds.values()) == {ATTENTION, FFN}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.31.self_attn.q_norm.weight", Location(31, "attention")),
        ("model.layers.31.input_layernorm.weight", Location(31, "attention")),
        ("model.layers.0.post_attention_layernorm.weight", Location(0, "ffn")),
        ("model.layers.0.mlp.experts.127.gate_proj.weight", Location(0, "ffn")),
        ("model.embed_tokens.weight", Location(None, "other")),
        ("lm_head.weight", Location(None, "other")),
        ("model.layers.0.pre_feedforward_layernorm.weight", None),
        ("model.layers.0.my_mlp.up_proj.weight", None),
        ("model.layers.x.mlp.up_proj.weight", None),
        ("model.visual.layers.0.mlp.fc1.weight", None),
        (f"model.layers.{'9' * 5000}.mlp.up_proj.weight", None),
        ("lm_head.weight\n", None),
    ],
)
def test_names_of_llamas_layout(name: str, expected: Location | None) -> None:
    assert llama_location(name) == expected


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.nested][:2])
def test_a_vision_tower_lies_outside(tmp_path: Path, family: str) -> None:
    found = places(tmp_path, family)
    assert found.locations is not None and found.outside and not found.outside & found.locations.keys()
    assert all("visual" in name or "vision" in name for name in found.outside)


def test_unknown_modules_allow_uniform_merges_only(tmp_path: Path) -> None:
    """In Zamba 2 a sublayer is a whole layer of its own."""
    folders = [str(save_family(tmp_path / str(seed), FAMILIES["zamba2"], seed=seed)) for seed in (0, 1)]
    pair = open_pair(*folders)
    assert pair.modules.locations is None and "is a layer within a layer" in pair.modules.reason
    assert len(dict(open_merge(pair, Schedule.uniform(0.5)).tensors())) == len(pair.tensors)
    with pytest.raises(ScheduleError, match=r"are not known: .* a layer within a layer.*; use a uniform lambda"):
        pair.coefficients_of(next(iter(pair.tensors)), Schedule.by_module(attention=0.2, ffn=0.4))


def test_a_config_that_transformers_does_not_know(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "model")
    edit_tensors(
        folder / "model.safetensors",
        lambda tensors: tensors.update({"model.more": tensors.pop("model.norm.weight")}),
    )
    edit_json(folder / "config.json", model_type="from_tomorrow")
    found = module_map(open_checkpoint(str(folder)))
    assert found.locations is None and "transformers cannot make a model of its config.json" in found.reason


def test_a_nested_model_whose_parts_are_not_known_is_not_merged(tmp_path: Path) -> None:
    folders = [save_family(tmp_path / str(seed), FAMILIES["qwen3_vl"], seed=seed) for seed in (0, 1)]
    for folder in folders:
        edit_json(folder / "config.json", model_type="from_tomorrow")
    pair = open_pair(*map(str, folders))
    with pytest.raises(PairError, match=r"the language part of .* cannot be told from its other parts"):
        dict(open_merge(pair, Schedule.uniform(0.5)).tensors())


def test_a_further_layer_in_the_files_lies_outside_the_layers(tmp_path: Path) -> None:
    """Some checkpoints hold a further layer that predicts more tokens, which transformers does not load."""
    folder = tiny_checkpoint(tmp_path / "model", tie=False)
    more = "model.layers.2.mlp.up_proj.weight"
    edit_tensors(
        folder / "model.safetensors",
        lambda tensors: tensors.update({more: tensors["model.layers.1.mlp.up_proj.weight"].clone()}),
    )
    found = module_map(open_checkpoint(str(folder)))
    assert found.locations is not None and found.locations[more] == Location(None, "other")


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.4.eh_proj.weight",
        "mtp.layers.0.mlp.up_proj.weight",
        "model.mtp_block.0.norm.weight",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.position_ids",
    ],
)
def test_multi_token_prediction_and_positions_are_not_computed(name: str) -> None:
    assert is_uncomputed(name, num_layers=4) and not is_uncomputed("model.layers.3.mtp_gate", num_layers=4)
