"""What keeps two checkpoints apart, and what is only said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import edit_json, edit_tensors, tiny_checkpoint

from autolambda.errors import PairError
from autolambda.merging.checkpoint import Checkpoint, open_checkpoint
from autolambda.merging.compatibility import Mismatch, compare_configs, compare_tensors
from autolambda.merging.pair import open_pair
from autolambda.merging.shards import TensorInfo


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(str(tiny_checkpoint(tmp_path_factory.mktemp("one"))))


def with_config(checkpoint: Checkpoint, **changes: Any) -> Checkpoint:
    config = {**checkpoint.config, **changes}
    return replace(checkpoint, config={key: value for key, value in config.items() if value != "absent"})


def configs(one: Checkpoint, other: Checkpoint) -> list[Mismatch]:
    return list(compare_configs(one, thinking=other))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "qwen2"),
        ("architectures", ["Qwen2ForCausalLM"]),
        ("num_hidden_layers", 3),
        ("num_attention_heads", 4),
        ("num_key_value_heads", 2),
        ("head_dim", 16),
        ("rms_norm_eps", 1e-5),
        ("hidden_act", "gelu"),
        ("final_logit_softcapping", 30.0),
        ("num_experts_per_tok", 8),
    ],
)
def test_keys_that_change_what_is_computed_are_errors(checkpoint: Checkpoint, key: str, value: object) -> None:
    (finding,) = configs(checkpoint, with_config(checkpoint, **{key: value}))
    seen = checkpoint.config.get(key, "not given")
    one_end = key == "rms_norm_eps"  # the others forbid the arithmetic itself, or mean something else by it
    assert finding == Mismatch(f"config '{key}': instruct {seen!r}, thinking {value!r}", one_end=one_end)


@pytest.mark.parametrize(
    ("key", "value"), [("max_position_embeddings", 4096), ("eos_token_id", [1, 2]), ("attention_dropout", 0.5)]
)
def test_other_differing_keys_are_warnings(checkpoint: Checkpoint, key: str, value: object) -> None:
    (finding,) = configs(checkpoint, with_config(checkpoint, **{key: value}))
    assert not finding.fatal and f"config '{key}'" in finding.text and repr(value) in finding.text


@pytest.mark.parametrize(
    "changes",
    [
        {"transformers_version": "4.51.0"},
        {"torch_dtype": "bfloat16", "dtype": "absent"},
        {"rope_parameters": "absent", "rope_theta": 10_000, "rope_scaling": None},
        {"layer_types": "absent", "max_window_layers": 36},
        {"use_sliding_window": False, "sliding_window": 4096},
        {"attention_bias": "absent"},
        {"rms_norm_eps": "absent"},
        {"hidden_act": "absent"},
        {"architectures": "absent"},
        {"rope_parameters": "absent"},
        {"rope_parameters": {"rope_theta": 10_000.0, "type": "default", "partial_rotary_factor": 1.0}},
    ],
)
def test_other_spellings_of_the_same_are_nothing(checkpoint: Checkpoint, changes: dict[str, Any]) -> None:
    assert configs(checkpoint, with_config(checkpoint, **changes)) == []
    assert configs(with_config(checkpoint, **changes), checkpoint) == []


def test_values_that_follow_from_others_may_be_left_out(checkpoint: Checkpoint) -> None:
    given = with_config(checkpoint, head_dim=16, num_key_value_heads=2, num_experts=4)
    assert configs(given, with_config(given, head_dim="absent", num_key_value_heads="absent")) == []
    assert configs(given, with_config(given, num_experts="absent", num_local_experts=4)) == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rope_parameters": {"rope_theta": 5e6, "rope_type": "default"}}, "rope_theta': instruct 10000.0, thinking 5"),
        ({"rope_parameters": "absent", "rope_theta": 5e6}, "rope_theta': instruct 10000.0, thinking 5"),
        (
            {"rope_parameters": "absent", "rope_theta": 1e4, "rope_scaling": {"type": "yarn"}},
            "rope_type': instruct 'default', thinking 'yarn'",
        ),
        ({"rope_parameters": {"rope_theta": 1e4, "factor": 4.0}}, "factor': instruct 'not given', thinking 4.0"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor': instruct 'not given', thinking 0.5"),
    ],
)
def test_rope_settings_are_compared_in_either_spelling(
    checkpoint: Checkpoint, changes: dict[str, Any], named: str
) -> None:
    (finding,) = configs(checkpoint, with_config(checkpoint, **changes))
    assert finding.fatal and finding.one_end and named in finding.text


def test_sliding_windows_count_where_they_are_used(checkpoint: Checkpoint) -> None:
    four, eight = (with_config(checkpoint, use_sliding_window=True, sliding_window=n) for n in (4096, 8192))
    (finding,) = configs(four, eight)
    assert finding == Mismatch("config 'sliding_window': instruct 4096, thinking 8192", one_end=True)
    assert any("sliding_window" in finding.text and finding.fatal for finding in configs(checkpoint, four))
    other_layers = with_config(four, layer_types=["sliding_attention", "full_attention"])
    assert [finding.fatal for finding in configs(four, other_layers)] == [True]


def test_a_default_that_the_other_config_does_not_have_is_an_error(checkpoint: Checkpoint) -> None:
    other = with_config(checkpoint, rms_norm_eps=1e-5)
    (finding,) = configs(with_config(checkpoint, rms_norm_eps="absent"), other)
    assert finding.fatal and finding.text == "config 'rms_norm_eps': instruct 1e-06, thinking 1e-05"


def test_the_code_of_an_author_is_named(checkpoint: Checkpoint) -> None:
    (finding,) = configs(checkpoint, with_config(checkpoint, auto_map={"AutoModel": "x.Y"}))
    assert finding == Mismatch("thinking brings its own code (auto_map), which is never run", fatal=False)


def test_nested_configs_are_compared_by_their_language_models(checkpoint: Checkpoint) -> None:
    text = dict(checkpoint.config)
    one = replace(checkpoint, config={"model_type": "qwen3_vl", "text_config": text, "vision_config": {"depth": 2}})
    assert configs(one, one) == []
    other = with_config(one, text_config={**text, "hidden_size": 64})
    assert next(finding.text for finding in configs(one, other) if finding.fatal).startswith("config 'hidden_size'")
    (finding,) = configs(one, with_config(one, vision_config={"depth": 3}))
    assert not finding.fatal and finding.text.startswith("config 'vision_config': instruct")


def test_a_config_with_vision_beside_its_own_keys_is_compared_once(checkpoint: Checkpoint) -> None:
    """As those of Qwen2-VL, which have no section for the language model."""
    one = with_config(checkpoint, vision_config={"depth": 2})
    (finding,) = configs(one, with_config(one, attention_dropout=0.5))
    assert one.is_nested and not finding.fatal and "config 'attention_dropout'" in finding.text


def tensors(**infos: tuple[torch.dtype, tuple[int, ...]]) -> dict[str, TensorInfo]:
    return {name.replace("__", "."): TensorInfo(*info, file="x", offset=0) for name, info in infos.items()}


def test_tensors_are_compared_by_name_shape_and_dtype() -> None:
    one = tensors(norm__weight=(torch.bfloat16, (4,)), embed_tokens__weight=(torch.float16, (2, 4)))
    other = tensors(norm__weight=(torch.bfloat16, (5,)), lm_head__weight=(torch.float32, (2, 4)))
    assert [finding.text for finding in compare_tensors(one, thinking=other)] == [
        "tensors that thinking does not have: embed_tokens.weight",
        "tensors that instruct does not have: lm_head.weight",
        "tensors that differ in shape or kind: norm.weight: instruct bfloat16 [4], thinking bfloat16 [5]",
    ]


def test_tensors_of_another_dtype_are_converted_with_one_line() -> None:
    one = tensors(norm__weight=(torch.float16, (4,)), embed_tokens__weight=(torch.float16, (2, 4)))
    other = {name: replace(info, dtype=torch.bfloat16) for name, info in one.items()}
    (finding,) = compare_tensors(one, thinking=other)
    expected = "2 tensors are float16 in instruct and bfloat16 in thinking; the merge is bfloat16"
    assert finding == Mismatch(expected, fatal=False)
    finding, _ = compare_tensors(one, thinking=other | tensors(norm__weight=(torch.int8, (4,))))
    assert finding.fatal and "norm.weight: instruct float16 [4], thinking int8 [4]" in finding.text


def test_quantised_tensors_are_errors() -> None:
    same = tensors(layers__0__mlp__up_proj__weight=(torch.float8_e4m3fn, (1,)))
    (finding,) = compare_tensors(same, thinking=same)
    assert finding.fatal and "not bfloat16, float16 or float32: layers.0.mlp.up_proj.weight: float8" in finding.text


def test_a_quantised_parent_is_named_with_its_dtype_and_once() -> None:
    one, other = (tensors(up_proj__weight=(dtype, (4,))) for dtype in (torch.bfloat16, torch.float8_e4m3fn))
    (finding,) = compare_tensors(one, thinking=other)
    assert "bfloat16, float16 or float32: up_proj.weight: instruct bfloat16 [4], thinking float8" in finding.text


def test_equal_tensors_under_other_names_are_one_error() -> None:
    names = [f"layers__{i}__{part}__weight" for i in range(3) for part in ("q_proj", "up_proj")]
    one = tensors(**{f"language_model__model__{name}": (torch.bfloat16, (4,)) for name in names})
    other = tensors(**{f"model__language_model__{name}": (torch.bfloat16, (4,)) for name in names})
    (finding,) = compare_tensors(one, thinking=other)
    assert finding.fatal and "6 tensors, such as 'language_model.model.layers.0.q_proj.weight' and" in finding.text
    assert "'model.language_model.layers.0.q_proj.weight'; load both models with transformers" in finding.text


def test_padded_tensors_may_differ_in_their_rows() -> None:
    one, other = (tensors(lm_head__weight=(torch.bfloat16, (rows, 4))) for rows in (8, 6))
    assert list(compare_tensors(one, thinking=other, padded=frozenset(one))) == []
    assert len(list(compare_tensors(one, thinking=other))) == 1


def test_repetitions_are_cut() -> None:
    many = tensors(**{f"layers__{i}__mlp__weight": (torch.bfloat16, (1,)) for i in range(9)})
    texts = [finding.text for finding in compare_tensors(many, thinking={})]
    assert len(texts) == 6 and texts[-1] == "tensors that thinking does not have: and 4 more"


@pytest.mark.parametrize("owner", ["instruct", "thinking"])
def test_tensors_on_which_no_token_depends_may_be_in_one_parent_only(tmp_path: Path, owner: str) -> None:
    folders = {name: tiny_checkpoint(tmp_path / name, seed=seed) for seed, name in enumerate(("instruct", "thinking"))}
    lone = ("mtp.fc.weight", "model.layers.2.eh_proj.weight", "model.layers.0.self_attn.rotary_emb.inv_freq")
    edit_tensors(folders[owner] / "model.safetensors", lambda all: all.update({name: torch.ones(4) for name in lone}))
    pair = open_pair(str(folders["instruct"]), str(folders["thinking"]))
    (warning,) = pair.warnings
    assert warning.startswith("3 tensors on which no token depends, such as 'model.layers.0.") and owner in warning
    assert not pair.tensors.keys() & set(lone)


def test_a_vocab_size_that_no_tensor_has_is_refused(tmp_path: Path) -> None:
    folders = [tiny_checkpoint(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    edit_json(folders[1] / "config.json", vocab_size=300)
    with pytest.raises(PairError, match="config 'vocab_size': instruct 264, thinking 300"):
        open_pair(*map(str, folders))
