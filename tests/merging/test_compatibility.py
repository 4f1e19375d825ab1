"""What keeps two checkpoints apart, and what is only said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import edit_json, tiny_checkpoint

from autolambda.errors import CheckpointError
from autolambda.merging.checkpoint import Checkpoint, open_checkpoint
from autolambda.merging.compatibility import Mismatch, compare_configs, compare_tensors, compare_tokenizers
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
        ("vocab_size", 265),
        ("num_hidden_layers", 3),
        ("num_attention_heads", 4),
        ("num_key_value_heads", 2),
        ("head_dim", 16),
        ("rms_norm_eps", 1e-5),
        ("rms_norm_eps", "absent"),
        ("hidden_act", "gelu"),
        ("final_logit_softcapping", 30.0),
        ("num_experts_per_tok", 8),
    ],
)
def test_keys_that_change_what_is_computed_are_errors(checkpoint: Checkpoint, key: str, value: object) -> None:
    (finding,) = configs(checkpoint, with_config(checkpoint, **{key: value}))
    shown = "not given" if value == "absent" else value
    seen = checkpoint.config.get(key, "not given")
    one_end = key == "rms_norm_eps"  # the others forbid the arithmetic itself, or mean something else by it
    assert finding == Mismatch(f"config '{key}': instruct {seen!r}, thinking {shown!r}", one_end=one_end)


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


def test_quantised_parents_and_their_own_code(checkpoint: Checkpoint) -> None:
    quantised = with_config(checkpoint, quantization_config={"quant_method": "gptq"})
    (finding,) = configs(quantised, checkpoint)
    assert finding.fatal and finding.text.startswith("instruct is quantised")
    (finding,) = configs(checkpoint, with_config(checkpoint, auto_map={"AutoModel": "x.Y"}))
    assert finding == Mismatch("thinking brings its own code (auto_map), which is never run", fatal=False)


def tensors(**infos: tuple[torch.dtype, tuple[int, ...]]) -> dict[str, TensorInfo]:
    return {name.replace("__", "."): TensorInfo(*info, file="x", offset=0) for name, info in infos.items()}


def test_tensors_are_compared_by_name_shape_and_dtype() -> None:
    one = tensors(norm__weight=(torch.bfloat16, (4,)), embed_tokens__weight=(torch.float16, (2, 4)))
    other = tensors(norm__weight=(torch.bfloat16, (5,)), lm_head__weight=(torch.float32, (2, 4)))
    assert [finding.text for finding in compare_tensors(one, thinking=other, num_layers=1)] == [
        "tensors that thinking does not have: embed_tokens.weight",
        "tensors that instruct does not have: lm_head.weight",
        "tensors that differ in shape or dtype: norm.weight: instruct bfloat16 [4], thinking bfloat16 [5]",
    ]
    (finding,) = compare_tensors(one, thinking=one | tensors(norm__weight=(torch.float32, (4,))), num_layers=1)
    assert "bfloat16 [4], thinking float32 [4]" in finding.text and finding.fatal


def test_tensors_no_schedule_covers_and_other_dtypes_are_errors() -> None:
    same = tensors(
        visual__weight=(torch.bfloat16, (1,)),
        layers__1__self_attn__q_proj__weight=(torch.bfloat16, (1,)),
        layers__0__mlp__up_proj__weight=(torch.float8_e4m3fn, (1,)),
    )
    texts = [finding.text for finding in compare_tensors(same, thinking=same, num_layers=1) if finding.fatal]
    assert len(texts) == 3 and "not bfloat16, float16 or float32: layers.0.mlp.up_proj.weight: float8" in texts[0]
    assert "layer 1 of a model with 1" in texts[1] and "'visual.weight' belongs to no known module" in texts[2]


def test_repetitions_are_cut() -> None:
    many = tensors(**{f"layers__{i}__mlp__weight": (torch.bfloat16, (1,)) for i in range(9)})
    texts = [finding.text for finding in compare_tensors(many, thinking={}, num_layers=9)]
    assert len(texts) == 6 and texts[-1] == "tensors that thinking does not have: and 4 more"


@pytest.fixture
def tokenizers(tmp_path: Path, checkpoint: Checkpoint) -> tuple[Checkpoint, Checkpoint]:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        for file in checkpoint.folder.glob("*token*"):
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
        (tmp_path / name / "chat_template.jinja").write_text("template")
    return replace(checkpoint, folder=tmp_path / "one"), replace(checkpoint, folder=tmp_path / "other")


def change_tokenizer(checkpoint: Checkpoint, change: str) -> None:
    path = checkpoint.folder / "tokenizer.json"
    content = json.loads(path.read_text())
    model, added = content["model"], content["added_tokens"]
    if change == "other ids":
        model["vocab"]["!"], model["vocab"]['"'] = model["vocab"]['"'], model["vocab"]["!"]
    elif change == "more tokens":
        model["vocab"] |= {f"new{i}": 300 + i for i in range(9)}
    elif change == "other merges":
        model["merges"] = [["a", "b"]]
    elif change == "renamed token":
        added[3]["content"] = "<thought>"
    elif change == "renamed special token":
        added[0]["content"] = "<|bos|>"
    elif change == "added token":
        added.append({**added[3], "id": 264, "content": "<answer>"})
    elif change == "odd form":
        added[0] = {"name": "x"}
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "messages", "fatal"),
    [
        ("none", [], False),
        ("other ids", ["'!' is 0 and 1", "'\"' is 1 and 0"], True),
        ("more tokens", [*(f"'new{i}' is None and 30{i}" for i in range(5)), "and 4 more"], True),
        ("other merges", ["different merge rules"], True),
        ("renamed token", ["added token 259 is '<think>' for instruct, '<thought>' for thinking"], True),
        ("renamed special token", ["added token 256 is '<|endoftext|>' for instruct, '<|bos|>'"], False),
        ("added token", ["added token '<answer>' (264) is known to thinking only"], False),
    ],
)
def test_vocabularies_are_compared_by_content(
    tokenizers: tuple[Checkpoint, Checkpoint], change: str, messages: list[str], fatal: bool
) -> None:
    one, other = tokenizers
    change_tokenizer(other, change)
    findings = list(compare_tokenizers(one, thinking=other))
    assert len(findings) == len(messages) and all(finding.fatal is fatal for finding in findings)
    assert all(message in finding.text for message, finding in zip(messages, findings, strict=True))


def test_a_reserved_token_may_have_been_given_a_name(tokenizers: tuple[Checkpoint, Checkpoint]) -> None:
    """As DeepSeek's distillation did with those of Llama, some of them as tokens that are not special."""
    one, _ = tokenizers
    path = one.folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"][3] |= {"content": "<|reserved_special_token_6|>", "special": True}
    path.write_text(json.dumps(content))
    for pair in (tokenizers, tokenizers[::-1]):
        (finding,) = compare_tokenizers(pair[0], thinking=pair[1])
        assert not finding.fatal and "'<|reserved_special_token_6|>' for" in finding.text and "<think>" in finding.text


def test_special_roles_and_templates_are_warnings(tokenizers: tuple[Checkpoint, Checkpoint]) -> None:
    one, other = tokenizers
    (other.folder / "chat_template.jinja").unlink()
    edit_json(other.folder / "tokenizer_config.json", eos_token={"content": "<|endoftext|>"}, chat_template="template")
    (finding,) = compare_tokenizers(one, thinking=other)  # the template is the same, kept elsewhere
    assert not finding.fatal and "eos_token '<|im_end|>' and '<|endoftext|>'" in finding.text
    edit_json(other.folder / "tokenizer_config.json", eos_token="<|im_end|>", chat_template="another")
    (finding,) = compare_tokenizers(one, thinking=other)
    assert finding == Mismatch("the tokenizers differ in their chat template", fatal=False)


def test_tokenizers_that_cannot_be_compared(tokenizers: tuple[Checkpoint, Checkpoint]) -> None:
    one, other = tokenizers
    change_tokenizer(other, "odd form")
    with pytest.raises(CheckpointError, match=r"is not a file of the tokenizers library \(KeyError\('id'\)\)"):
        list(compare_tokenizers(one, thinking=other))
    (other.folder / "tokenizer.json").unlink()
    (finding,) = compare_tokenizers(one, thinking=other)
    assert not finding.fatal and finding.text == f"no tokenizer.json in {other.folder}: vocabularies were not compared"
