"""Two parents: every mismatch at once, tied heads, and a merge that transformers loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from checkpoints import edit_json, edit_tensors, tiny_checkpoint, write_merge
from families import FAMILIES, save_family
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from autolambda.engines.transformers.layout import live_tensors
from autolambda.errors import CheckpointError, PairError, ScheduleError
from autolambda.merging.arithmetic import interpolate
from autolambda.merging.merge import open_merge
from autolambda.merging.method import Method, Role
from autolambda.merging.pair import Pair, open_pair
from autolambda.merging.reading import read_tensor
from autolambda.schedule import Schedule

SINGLE = "model.safetensors"
DENSE_AND_SPARSE = ("qwen3", "llama", "qwen3_moe")
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    for family in DENSE_AND_SPARSE:
        for seed, parent in enumerate(("instruct", "thinking")):
            for tie in (True, False):
                name = f"{family}-{parent}-{'tied' if tie else 'untied'}"
                tiny_checkpoint(folder / name, family=family, tie=tie, seed=seed)
    return folder


@pytest.fixture
def copies(originals: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A pair of files to be spoiled."""
    instruct = shutil.copytree(originals / "qwen3-instruct-untied", tmp_path / "instruct")
    return instruct, shutil.copytree(originals / "qwen3-thinking-untied", tmp_path / "thinking")


def refused(parents: tuple[Path, Path], *messages: str) -> str:
    with pytest.raises(PairError) as raised:
        open_pair(str(parents[0]), str(parents[1]))
    text = str(raised.value)
    assert all(message in text for message in messages), text
    return text


@pytest.mark.parametrize("family", DENSE_AND_SPARSE)
@pytest.mark.parametrize("ties", [("tied", "tied"), ("untied", "untied"), ("tied", "untied"), ("untied", "tied")])
def test_a_merge_is_loaded_by_transformers(originals: Path, tmp_path: Path, family: str, ties: tuple[str, str]) -> None:
    folders = [originals / f"{family}-{name}-{tie}" for name, tie in zip(("instruct", "thinking"), ties, strict=True)]
    pair = open_pair(str(folders[0]), str(folders[1]))
    assert pair.tied is (ties == ("tied", "tied")) and (HEAD in pair.tensors) is not pair.tied
    for lam in (0.0, 0.4, 1.0):
        (tmp_path / str(lam)).mkdir()
        write_merge(tmp_path / str(lam), open_merge(pair, Schedule.uniform(lam)), max_shard_size=20_000)
        merged, one, other = (loaded(folder, pair) for folder in (tmp_path / str(lam), *folders))
        for name, info in pair.tensors.items():
            draws = pair.rounding.draws(name, info.shape, info.dtype)
            assert torch.equal(merged[name], interpolate(one[name], other[name], lam, draws=draws)), name


def loaded(folder: Path, pair: Pair) -> dict[str, Tensor]:
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    found = live_tensors(model, {name: info.shape for name, info in pair.tensors.items()})  # of fused experts too
    assert found.keys() == pair.tensors.keys()
    return found


def test_a_pair_describes_its_merge(originals: Path) -> None:
    pair = open_pair(*(str(originals / f"qwen3-{name}-tied") for name in ("instruct", "thinking")))
    tensors = load_file(originals / "qwen3-instruct-tied" / SINGLE)
    assert tuple(pair.tensors) == tuple(sorted(tensors)) and pair.num_layers == 2 and pair.warnings == ()
    assert pair.num_parameters == sum(tensor.numel() for tensor in tensors.values())
    assert pair.num_bytes == 2 * pair.num_parameters and pair.dtype == torch.bfloat16
    assert all(torch.equal(read_tensor(pair.instruct, name), tensor) for name, tensor in tensors.items())
    assert not torch.equal(*(read_tensor(each, EMBEDDING) for each in (pair.instruct, pair.thinking)))
    with pytest.raises(KeyError):
        read_tensor(pair.thinking, "model.layers.9.mlp.up_proj.weight")


def test_each_tensor_gets_the_lam_of_its_place(originals: Path) -> None:
    pair = open_pair(*(str(originals / f"qwen3-{name}-untied") for name in ("instruct", "thinking")))
    schedule = Schedule.by_module(attention=0.0, ffn=1.0, other=0.5)
    merged = dict(open_merge(pair, schedule).tensors())
    for name, lam in (
        ("model.layers.1.self_attn.q_proj.weight", 0.0),
        ("model.layers.0.mlp.up_proj.weight", 1.0),
        (HEAD, 0.5),
    ):
        parents = (read_tensor(each, name) for each in (pair.instruct, pair.thinking))
        draws = pair.rounding.draws(name, merged[name].shape, merged[name].dtype)
        assert torch.equal(merged[name], interpolate(*parents, lam, draws=draws))


@pytest.mark.parametrize("tied", ["instruct", "thinking"])
def test_one_tied_parent_lends_its_embedding_as_head(originals: Path, tied: str) -> None:
    folders = [originals / f"qwen3-{name}-{'tied' if name == tied else 'untied'}" for name in ("instruct", "thinking")]
    pair = open_pair(str(folders[0]), str(folders[1]))
    parents = {"instruct": pair.instruct, "thinking": pair.thinking}
    same = {name: torch.equal(read_tensor(each, HEAD), read_tensor(each, EMBEDDING)) for name, each in parents.items()}
    assert same == {"instruct": tied == "instruct", "thinking": tied == "thinking"}
    assert pair.warnings == (f"only {tied} ties lm_head to its embedding; the merge is untied",)
    assert pair.config["tie_word_embeddings"] is False


def test_a_second_copy_of_a_tied_head_is_no_tensor_of_the_merge(originals: Path, tmp_path: Path) -> None:
    stored = shutil.copytree(originals / "qwen3-instruct-tied", tmp_path / "stored")
    edit_tensors(stored / SINGLE, lambda tensors: tensors.update({HEAD: tensors[EMBEDDING].clone()}))
    pair = open_pair(str(stored), str(originals / "qwen3-thinking-tied"))
    assert pair.tied and HEAD not in pair.tensors and pair.config["tie_word_embeddings"] is True


def test_every_mismatch_is_listed_at_once(copies: tuple[Path, Path]) -> None:
    instruct, thinking = copies
    changes = {"rms_norm_eps": 1e-5, "max_position_embeddings": 9, "rope_parameters": {"rope_theta": 5e6}}
    edit_json(thinking / "config.json", **changes)

    def spoil(tensors: dict[str, Tensor]) -> None:
        tensors["model.norm.weight"] = tensors["model.norm.weight"].float()
        tensors["model.visual.weight"] = tensors.pop("model.layers.0.mlp.up_proj.weight")
        tensors["model.layers.1.mlp.up_proj.weight"] = tensors["model.layers.1.mlp.up_proj.weight"][:-1].clone()

    edit_tensors(thinking / SINGLE, spoil)
    text = refused(
        copies,
        f"'{instruct}' and '{thinking}' cannot be merged",
        "config 'rms_norm_eps': instruct 1e-06, thinking 1e-05",
        "rope_theta': instruct 10000.0, thinking 5000000.0",
        "thinking does not have: model.layers.0.mlp.up_proj.weight",
        "instruct does not have: model.visual.weight",
        "model.layers.1.mlp.up_proj.weight: instruct bfloat16 [48, 32], thinking bfloat16 [47, 32]",
    )
    assert len(text.splitlines()) == 6 and "max_position_embeddings" not in text


def test_other_architectures_vocabularies_and_depths_are_refused(originals: Path, tmp_path: Path) -> None:
    qwen = originals / "qwen3-instruct-tied"
    refused((qwen, originals / "llama-thinking-tied"), "config 'model_type': instruct 'qwen3', thinking 'llama'")
    larger = tiny_checkpoint(tmp_path / "larger", vocab_size=270)
    edit_json(larger / "tokenizer.json", added_tokens=[{"id": 266, "content": "<answer>", "special": False}])
    refused((qwen, larger), "config 'vocab_size': instruct 264, thinking 270", "[264, 32], thinking bfloat16 [270, 32]")
    deeper = tiny_checkpoint(tmp_path / "deeper", num_hidden_layers=3)
    refused((qwen, deeper), "config 'num_hidden_layers': instruct 2, thinking 3", "and 6 more")


def test_the_merge_has_thinkings_dtypes_and_its_ends_are_the_converted_parents(originals: Path, tmp_path: Path) -> None:
    thinking = tiny_checkpoint(tmp_path / "thinking", dtype=torch.float16, seed=1)
    pair = open_pair(str(originals / "qwen3-instruct-tied"), str(thinking))
    assert pair.warnings == ("24 tensors are bfloat16 in instruct and float16 in thinking; the merge is float16",)
    ends = {lam: dict(open_merge(pair, Schedule.uniform(lam)).tensors()) for lam in (0.0, 1.0)}
    for name in pair.tensors:
        assert torch.equal(ends[0.0][name], read_tensor(pair.instruct, name).half())
        assert torch.equal(ends[1.0][name], read_tensor(pair.thinking, name))
    (tmp_path / "out").mkdir()
    write_merge(tmp_path / "out", open_merge(pair, Schedule.uniform(0.3)), max_shard_size=20_000)
    expected = dict(open_merge(pair, Schedule.uniform(0.3)).tensors())
    found = loaded(tmp_path / "out", pair)
    assert all(torch.equal(found[name], tensor) and tensor.dtype == torch.float16 for name, tensor in expected.items())


def test_a_value_that_thinkings_dtype_cannot_hold_is_an_error(originals: Path, tmp_path: Path) -> None:
    instruct = shutil.copytree(originals / "qwen3-instruct-tied", tmp_path / "instruct")
    edit_tensors(instruct / SINGLE, lambda tensors: tensors["model.norm.weight"].fill_(1e30))
    pair = open_pair(str(instruct), str(tiny_checkpoint(tmp_path / "thinking", dtype=torch.float16)))
    with pytest.raises(CheckpointError, match="values that float16, Thinking's dtype, cannot hold"):
        dict(open_merge(pair, Schedule.uniform(0.5)).tensors())


@pytest.mark.parametrize("sizes", [(264, 272), (280, 264)])
def test_vocabularies_may_differ_by_padding(tmp_path: Path, sizes: tuple[int, int]) -> None:
    folders = [tiny_checkpoint(tmp_path / f"{i}", vocab_size=size, tie=False, seed=i) for i, size in enumerate(sizes)]
    pair = open_pair(*map(str, folders))
    (warning,) = pair.warnings
    assert warning.endswith("only padding rows differ, the merge has thinking's")
    assert pair.config["vocab_size"] == sizes[1] and pair.tensors[EMBEDDING].shape == (sizes[1], 32)
    merged = dict(open_merge(pair, Schedule.uniform(0.0)).tensors())
    one, other = (read_tensor(each, HEAD) for each in (pair.instruct, pair.thinking))
    both = min(sizes)
    assert torch.equal(merged[HEAD][:both], one[:both]) and torch.equal(merged[HEAD][both:], other[both:])
    (tmp_path / "out").mkdir()
    write_merge(tmp_path / "out", open_merge(pair, Schedule.uniform(0.4)))
    assert torch.equal(loaded(tmp_path / "out", pair)[HEAD], open_merge(pair, Schedule.uniform(0.4)).tensor(HEAD))


def test_warnings_do_not_forbid_a_merge(copies: tuple[Path, Path]) -> None:
    instruct, thinking = copies
    edit_json(thinking / "config.json", max_position_embeddings=4096, auto_map={"AutoModel": "x.Y"}, _name_or_path="z")
    (thinking / "chat_template.jinja").write_text("<think>")
    pair = open_pair(str(instruct), str(thinking))
    assert [warning.split(":")[0] for warning in pair.warnings] == [
        "thinking brings its own code (auto_map), which is never run",
        "config 'max_position_embeddings'",
        "the tokenizers differ in their chat template",
    ]
    assert pair.config["max_position_embeddings"] == 4096
    assert not {"auto_map", "_name_or_path"} & pair.config.keys()


def test_integer_tensors_must_be_equal(copies: tuple[Path, Path]) -> None:
    name = "model.layers.0.self_attn.positions"
    for folder in copies:
        edit_tensors(folder / SINGLE, lambda tensors: tensors.update({name: torch.arange(4)}))
    pair = open_pair(str(copies[0]), str(copies[1]))
    assert torch.equal(dict(open_merge(pair, Schedule.uniform(0.5)).tensors())[name], torch.arange(4))
    edit_tensors(copies[0] / SINGLE, lambda tensors: tensors[name].add_(1))
    refused(copies, f"{name}: int64 [4] holds different integers in the parents")


def test_a_parent_that_cannot_be_opened_is_its_own_error(copies: tuple[Path, Path]) -> None:
    (copies[1] / SINGLE).write_bytes((copies[1] / SINGLE).read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="is not a valid safetensors file"):
        open_pair(str(copies[0]), str(copies[1]))


@pytest.mark.parametrize("vision", ["instruct", "thinking"])
@pytest.mark.parametrize("family", ["qwen3_vl", "mistral3"])
def test_a_nested_pair_merges_its_language_part(tmp_path: Path, family: str, vision: Role) -> None:
    folders = [save_family(tmp_path / str(seed), FAMILIES[family], seed=seed) for seed in (0, 1)]
    pair = open_pair(*map(str, folders), vision=vision)
    owner = {"instruct": pair.instruct, "thinking": pair.thinking}[vision]
    (tmp_path / "out").mkdir()
    merge = open_merge(pair, Schedule.by_module(attention=0.2, ffn=0.8))
    write_merge(tmp_path / "out", merge)
    _, info = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    assert pair.outside and len(pair.outside) < len(pair.tensors)
    for name in pair.tensors:
        merged, parents = merge.tensor(name), [read_tensor(each, name) for each in (pair.instruct, pair.thinking)]
        if name in pair.outside:
            assert torch.equal(merged, read_tensor(owner, name)), name
        else:
            assert not any(torch.equal(merged, parent) for parent in parents), name


def test_other_methods_keep_the_vision_part_too(tmp_path: Path) -> None:
    base, *folders = (str(save_family(tmp_path / str(seed), FAMILIES["qwen3_vl"], seed=seed)) for seed in range(3))
    pair = open_pair(*folders)
    merge = open_merge(pair, Method("ties", base=base))
    for name in pair.outside:
        assert torch.equal(merge.tensor(name), read_tensor(pair.thinking, name))
        assert merge.draws(name) is None


def test_a_base_and_a_third_parent_are_checked_with_the_parents_and_all_is_said_at_once(tmp_path: Path) -> None:
    shapes = {"base": {"num_hidden_layers": 1}, "third": {"num_hidden_layers": 3}, "thinking": {}, "instruct": {}}
    folders = {
        role: str(tiny_checkpoint(tmp_path / role, seed=seed, **shape))
        for seed, (role, shape) in enumerate(shapes.items())
    }
    with pytest.raises(PairError) as caught:
        open_pair(**folders)
    said = str(caught.value)
    assert "choose four that agree in" in said and "tensors that base does not have" in said
    assert "config 'num_hidden_layers': third 3, thinking 2" in said
    fitting = open_pair(folders["instruct"], folders["thinking"], third=folders["instruct"])
    assert fitting.further.keys() == {"third"}
    with pytest.raises(ScheduleError, match="needs the base model of both parents; set models"):
        open_merge(fitting, Schedule.uniform(0.5).beyond(scale=1.2))


@pytest.mark.parametrize("role", ["base", "third"])
def test_a_head_that_the_tied_parents_lack_is_said_once(originals: Path, role: str) -> None:
    parents = [str(originals / f"qwen3-{name}-tied") for name in ("instruct", "thinking")]
    with pytest.raises(PairError) as caught:
        open_pair(*parents, **{role: str(originals / "qwen3-instruct-untied")})
    (line,) = str(caught.value).splitlines()[1:]
    assert line == f"  - {role} has an lm_head of its own, but the parents tie theirs to the embedding"


@pytest.mark.parametrize("role", ["base", "third"])
def test_a_tied_head_beside_untied_parents_is_no_mismatch(originals: Path, role: str) -> None:
    parents = [str(originals / f"qwen3-{name}-untied") for name in ("instruct", "thinking")]
    pair = open_pair(*parents, **{role: str(originals / "qwen3-instruct-tied")})
    assert pair.warnings == () and torch.equal(*(read_tensor(pair.further[role], name) for name in (HEAD, EMBEDDING)))


def test_a_base_with_another_vocab_size_in_its_config_alone_fits(tmp_path: Path) -> None:
    """Its config may differ, and its tensors do not."""
    folders = [tiny_checkpoint(tmp_path / name, tie=False, seed=i) for i, name in enumerate(("i", "t", "b"))]
    size = json.loads((folders[2] / "config.json").read_text())["vocab_size"]
    edit_json(folders[2] / "config.json", vocab_size=size + 8)
    assert open_pair(str(folders[0]), str(folders[1]), base=str(folders[2])).base is not None
