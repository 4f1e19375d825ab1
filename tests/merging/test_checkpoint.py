"""One checkpoint: what opens, and what is refused with a clear line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from checkpoints import edit_json, edit_tensors, tiny_checkpoint
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file

from autolambda.errors import CheckpointError
from autolambda.merging.checkpoint import open_checkpoint

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    tiny_checkpoint(folder / "tied")
    tiny_checkpoint(folder / "untied", tie=False)
    tiny_checkpoint(folder / "sharded", max_shard_size=30_000)
    return folder


@pytest.fixture
def tied(originals: Path, tmp_path: Path) -> Path:
    return shutil.copytree(originals / "tied", tmp_path / "tied")


@pytest.fixture
def untied(originals: Path, tmp_path: Path) -> Path:
    return shutil.copytree(originals / "untied", tmp_path / "untied")


@pytest.fixture
def sharded(originals: Path, tmp_path: Path) -> Path:
    return shutil.copytree(originals / "sharded", tmp_path / "sharded")


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*.safetensors"))


def refused(folder: Path | str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as raised:
        open_checkpoint(str(folder)).digest()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("family", ["qwen3", "llama", "qwen3_moe"])
@pytest.mark.parametrize("tie", [True, False])
def test_reads_what_transformers_saved(tmp_path: Path, family: str, tie: bool) -> None:
    folder = tiny_checkpoint(tmp_path, family=family, tie=tie)
    checkpoint = open_checkpoint(str(folder))
    tensors = load_file(folder / SINGLE)
    assert list(checkpoint.tensors) == sorted(tensors)
    assert (checkpoint.tied, checkpoint.num_layers, checkpoint.embedding) == (tie, 2, "model.embed_tokens.weight")
    assert checkpoint.config["hidden_size"] == 32
    for name, tensor in tensors.items():
        info = checkpoint.tensors[name]
        assert (info.dtype, info.shape) == (tensor.dtype, tuple(tensor.shape))
        assert torch.equal(checkpoint.read(name), tensor)


def test_a_second_copy_of_a_tied_head_is_left_out(tied: Path) -> None:
    digest = open_checkpoint(str(tied)).digest()

    def store_head(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    edit_tensors(tied / SINGLE, store_head)
    checkpoint = open_checkpoint(str(tied))
    assert checkpoint.tied and "lm_head.weight" not in checkpoint.tensors and checkpoint.digest() == digest
    edit_tensors(tied / SINGLE, lambda tensors: tensors["lm_head.weight"][0, :1].neg_())
    refused(
        tied, "stores a 'lm_head.weight' that differs from its embedding, but its config says tie_word_embeddings true"
    )


def test_the_tied_flag_may_be_left_out_but_not_wrong(tied: Path, untied: Path) -> None:
    for folder, expected in ((tied, True), (untied, False)):
        edit_json(folder / "config.json", tie_word_embeddings=None)
        assert open_checkpoint(str(folder)).tied is expected
    edit_json(tied / "config.json", tie_word_embeddings=False)
    refused(tied, "has no lm_head.weight, but its config says tie_word_embeddings false")


def test_broken_configs_are_refused(tied: Path) -> None:
    config = tied / "config.json"
    for content, message in (
        ("{", "not valid JSON"),
        ("\udcff", "not valid JSON"),
        ("[]", "holds a list, not a JSON object"),
        ("{}", "num_hidden_layers in '.*' is None"),
        ('{"num_hidden_layers": "2"}', "is '2'; it must be a positive whole number"),
    ):
        config.write_text(content, errors="surrogateescape")
        refused(tied, message)
    config.unlink()
    refused(tied, "has no config.json")


def test_folders_without_safetensors_are_refused(tied: Path) -> None:
    (tied / SINGLE).rename(tied / "model-00001-of-00001.safetensors")
    refused(tied, f"has no {SINGLE} and no {INDEX}")
    (tied / "model-00001-of-00001.safetensors").rename(tied / "pytorch_model.bin")
    refused(tied, "holds pickled weights only, which can run code when loaded; convert it to safetensors")


def test_code_of_the_checkpoint_is_not_run(tied: Path) -> None:
    edit_json(tied / "config.json", auto_map={"AutoModelForCausalLM": "evil.Model"})
    (tied / "evil.py").write_text("raise SystemExit")
    assert len(open_checkpoint(str(tied)).tensors) == 24


@pytest.mark.parametrize(
    "name",
    ["../model.safetensors", "/etc/model.safetensors", "sub/x.safetensors", "..", "x.bin", "a\\b.safetensors", ""],
)
def test_shard_names_that_leave_the_folder_are_refused(sharded: Path, name: str) -> None:
    index = json.loads((sharded / INDEX).read_text())["weight_map"]
    edit_json(sharded / INDEX, weight_map=index | {"model.norm.weight": name})
    refused(sharded, "names the shard '.*', which is not a plain file name")


def test_indexes_that_disagree_with_their_shards_are_refused(sharded: Path) -> None:
    index = json.loads((sharded / INDEX).read_text())["weight_map"]
    first, last = shards(sharded)[0].name, shards(sharded)[-1].name
    inside = next(name for name, file in index.items() if file == first)
    for weight_map, message in (
        (index | {"ghost": first}, f"'ghost' is in no shard, but '.*' lists it in {first}"),
        ({name: index[name] for name in index if name != inside}, f"is in {first}, but '.*' lists it in no shard"),
        (index | {inside: last}, f"is in {first}, but '.*' lists it in {last}"),
        (index | {inside: "x.safetensors"}, "shard 'x.safetensors' is listed in '.*' but missing"),
        ({"x": 3}, "has no weight_map"),
        ([], "has no weight_map"),
    ):
        edit_json(sharded / INDEX, weight_map=weight_map)
        refused(sharded, message)
    (sharded / INDEX).write_text("{")
    refused(sharded, "not valid JSON")


def test_broken_shards_are_refused(sharded: Path) -> None:
    first, last = shards(sharded)[0], shards(sharded)[-1]
    content = first.read_bytes()
    first.write_bytes(content[:-1])
    refused(sharded, f"{first.name}' is not a valid safetensors file .*not fully covered.*download it again")
    first.write_bytes(content)
    name = next(iter(load_file(last)))
    edit_tensors(first, lambda tensors: tensors.update({name: torch.zeros(1)}))
    refused(sharded, f"tensor '{name}' is in '{first.name}' and in '{last.name}'")
    first.unlink()
    refused(sharded, f"shard '{first.name}' is listed in '.*' but missing")


def test_links_out_of_the_folder_are_refused(tied: Path, tmp_path: Path) -> None:
    outside = (tied / SINGLE).rename(tmp_path / "elsewhere.safetensors")
    (tied / SINGLE).symlink_to(outside)
    refused(tied, "is a link out of its folder")
    (tied / SINGLE).unlink()
    outside.rename(tied / "inside")
    (tied / SINGLE).symlink_to("inside")
    assert open_checkpoint(str(tied)).digest()


def test_a_snapshot_of_the_hub_cache_is_opened(tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot, blobs = tmp_path / "models--me--x" / "snapshots" / "abc", tmp_path / "models--me--x" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in tied.iterdir():
        path.rename(blobs / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    calls: list[dict[str, object]] = []

    def download(source: str, **options: object) -> str:
        calls.append({"source": source, **options})
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    checkpoint = open_checkpoint("me/x")
    assert checkpoint.source == "me/x" and checkpoint.read("model.norm.weight").shape == (32,)
    assert calls[0]["source"] == "me/x"
    patterns = calls[0]["allow_patterns"]
    assert isinstance(patterns, list) and not {"*", "*.bin", "*.py"} & {*patterns} and calls[0]["ignore_patterns"]
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("../../../secret.json")
    refused(snapshot, "is a link out of its folder")


def test_an_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(source: str, **options: object) -> str:
        raise LocalEntryNotFoundError("no connection\nand a page of text")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    refused("nobody/nothing", r"no folder 'nobody/nothing', and .* from the hub \(no connection\); check the name")


@pytest.mark.parametrize("source", ["/no/such/folder", "./none", "a/b/c", "../x", "~nobody/x/y", "", "a b"])
def test_missing_folders_are_not_looked_up_on_the_hub(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # so that '../x' is nothing, wherever the tests run
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    refused(source, "give an existing folder or a hub id")


def test_a_file_is_refused(tied: Path) -> None:
    refused(tied / SINGLE, "is a file; give the folder")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"num_hidden_layers": 2, "num_hidden_layers": 3}', "the key 'num_hidden_layers' occurs twice"),
        (b'{"a": ' + b"[" * 800 + b"]" * 800 + b"}", "nested deeper than"),
        (b'{"num_hidden_layers": 2, "tie_word_embeddings": "false"}', "tie_word_embeddings .* is 'false'; it must be"),
        (b'{"num_hidden_layers": ' + b"9" * 5000 + b"}", "5000 digits"),
        ('{"num_hidden_layers": 2}'.encode("utf-16"), "not valid JSON"),
    ],
)
def test_a_config_that_could_be_read_in_two_ways_is_refused(tied: Path, content: bytes, message: str) -> None:
    (tied / "config.json").write_bytes(content)
    refused(tied, message)
