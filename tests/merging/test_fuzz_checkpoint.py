"""Checkpoints, exported folders and stored configs with anything in them: read right, or refused in one line.

How many examples, and how to run more: see fuzz.py.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import tiny_checkpoint
from fuzz import ESCAPE, changed, damaged, examples, numbers, plain, refused_or, texts
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from autolambda.cli.main import main
from autolambda.config import Config, parse_config
from autolambda.driver.models import Models, open_models
from autolambda.errors import InputError
from autolambda.export.export import check_export, export
from autolambda.merging.checkpoint import Checkpoint, open_checkpoint
from autolambda.merging.shards import DTYPES, read_shard
from autolambda.schedule import Schedule
from autolambda.study.reader import stored_config
from autolambda.study.store import Store

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FILES = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 264}
HEADER = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},
    "b": {"dtype": "BF16", "shape": [3], "data_offsets": [8, 14]},
    "c": {"dtype": "U8", "shape": [], "data_offsets": [14, 15]},
    "d": {"dtype": "I64", "shape": [0, 4], "data_offsets": [15, 15]},
}
places = st.lists(st.integers(0, 16) | numbers, min_size=2, max_size=2)
header_parts = plain | places | st.sampled_from([*DTYPES, "F3", "f32"]) | st.sampled_from([*HEADER.values()])


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    for seed, name in enumerate(("instruct", "thinking")):
        tiny_checkpoint(folder / name, seed=seed, **SIZES)
        (folder / name / "generation_config.json").write_text('{"eos_token_id": 258, "temperature": 0.6, "top_k": 20}')
    tiny_checkpoint(folder / "sharded", max_shard_size=15_000, **SIZES)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def raw(header: bytes, data: bytes, length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def same_as_the_library(path: Path) -> bool:
    """Whether a file is read as the safetensors library reads it, down to the bytes."""
    found = refused_or(read_shard, path)
    if isinstance(found, InputError):
        return False
    content = path.read_bytes()
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    except SafetensorError:
        return True  # it is stricter in a few things, and says so when a tensor is read
    assert found.keys() == tensors.keys()
    for name, info in found.items():
        assert (info.dtype, info.shape) == (tensors[name].dtype, tuple(tensors[name].shape))
        stored = bytes(tensors[name].contiguous().view(-1).view(torch.uint8).tolist()) if info.num_bytes else b""
        assert content[info.offset : info.offset + info.num_bytes] == stored
    return True


@examples(300)
@given(data=st.data())
def test_a_changed_header_is_refused_or_read_as_the_library_does(folder: Path, data: st.DataObject) -> None:
    header = json.dumps(data.draw(changed(HEADER, other=header_parts))).encode()
    header = data.draw(st.just(header) | damaged(header))
    length = data.draw(st.none() | st.sampled_from([0, 7, 2**31, 2**62, 10**8]))
    (folder / "x.safetensors").write_bytes(raw(header, bytes(range(15)), length))
    same_as_the_library(folder / "x.safetensors")


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9).filter("__metadata__".__ne__)
shapes = st.lists(st.integers(0, 4), max_size=4)


@examples(60)
@given(drawn=st.dictionaries(names, st.tuples(shapes, st.sampled_from([*DTYPES.values()])), max_size=5))
def test_what_the_library_wrote_is_read(folder: Path, drawn: dict[str, Any]) -> None:
    path = folder / "y.safetensors"
    save_file({name: torch.ones(shape).to(dtype) for name, (shape, dtype) in drawn.items()}, path)
    assert same_as_the_library(path)
    assert {name: info.shape for name, info in read_shard(path).items()} == {
        name: tuple(shape) for name, (shape, _) in drawn.items()
    }


def opened(folder: Path) -> Checkpoint:
    checkpoint = open_checkpoint(str(folder))
    checkpoint.digest()
    for name in checkpoint.tensors:
        checkpoint.read(name)
    return checkpoint


@examples(80)
@given(data=st.data())
def test_a_damaged_file_of_weights(originals: Path, folder: Path, data: st.DataObject) -> None:
    broken = shutil.copytree(originals / "thinking", folder / "weights", dirs_exist_ok=True)
    content = (originals / "thinking" / SINGLE).read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = data.draw(damaged(content[:start]) | damaged(content[8:start]).map(lambda changed: content[:8] + changed))
    (broken / SINGLE).write_bytes(header + content[start:])
    refused_or(opened, broken)


@examples(80)
@given(data=st.data())
def test_a_changed_index(originals: Path, folder: Path, data: st.DataObject) -> None:
    broken = folder / "indexed"
    if not broken.exists():
        shutil.copytree(originals / "sharded", broken)
    index = json.loads((originals / "sharded" / INDEX).read_text())
    shards = sorted(set(index["weight_map"].values()))
    secret = folder / "secret.safetensors"
    shutil.copy(originals / "sharded" / shards[0], secret)
    names = st.sampled_from([*shards, "../secret.safetensors", str(secret), "secret.safetensors", "/dev/zero", "."])
    content = json.dumps(data.draw(changed(index, other=names | plain))).encode()
    (broken / INDEX).write_bytes(data.draw(st.just(content) | damaged(content)))
    found = refused_or(opened, broken)
    if isinstance(found, Checkpoint):
        assert {info.file for info in found.tensors.values()} <= set(shards)


VALUES = numbers | texts | st.sampled_from([[1], {}, {"a": 1}, ESCAPE, "{{ 1/0 }}", ["x"], 258, [258, "x"], [2**70]])


@examples(100)
@given(data=st.data())
def test_a_changed_folder_is_refused_or_exported_whole(originals: Path, folder: Path, data: st.DataObject) -> None:
    """Both parents have the same file, so that few of the changes are a mismatch."""
    here = folder / "changed"
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(originals, here)
    name = data.draw(st.sampled_from(FILES))
    if name.endswith(".jinja"):
        content = data.draw(damaged((originals / "thinking" / name).read_bytes()))
    else:
        plain_file = json.loads((originals / "thinking" / name).read_text())
        content = json.dumps(data.draw(changed(plain_file, other=VALUES | plain))).encode()
        content = data.draw(st.just(content) | st.just(content) | damaged(content))
    for parent in ("instruct", "thinking"):
        (here / parent / name).write_bytes(content)
    found = refused_or(open_models, parse_config({"models": {p: str(here / p) for p in ("instruct", "thinking")}}))
    if isinstance(found, Models):
        exported = refused_or(export, found, Schedule.uniform(0.5), here / "out")
        assert {path.name for path in here.iterdir()} - {"out"} == {"instruct", "thinking", "sharded"}
        assert (here / "out").exists() != isinstance(exported, InputError)
        if (here / "out").exists():
            assert check_export(here / "out") == "lambda 0.5"


@examples(60)
@given(data=st.data())
def test_an_exported_folder_with_a_changed_provenance(originals: Path, folder: Path, data: st.DataObject) -> None:
    out = folder / "exported"
    if not out.exists():
        parents = {name: str(originals / name) for name in ("instruct", "thinking")}
        export(open_models(parse_config({"models": parents})), Schedule.uniform(0.5), out)
        shutil.copy(out / "autolambda.json", folder / "provenance.json")
    content = data.draw(changed(json.loads((folder / "provenance.json").read_text())).map(json.dumps)).encode()
    (out / "autolambda.json").write_bytes(data.draw(st.just(content) | damaged(content)))
    assert isinstance(refused_or(check_export, out), str | InputError)


@examples(60)
@given(data=st.data())
def test_a_stored_config_that_was_changed(folder: Path, data: st.DataObject) -> None:
    database = folder / "study.db"
    url = f"sqlite:///{database}"
    config = parse_config({"tasks": [{"name": "arithmetic"}]}).model_dump(mode="json")
    if not database.exists():
        store = Store(url)
        store.create_study("s", config=config, identity={})
        store.close()
    content = json.dumps(data.draw(changed(config)))
    text = data.draw(
        st.just(content) | damaged(content.encode()).map(lambda changed: changed.decode("utf-8", "replace"))
    )
    connection = sqlite3.connect(database)
    connection.execute(
        "update autolambda_studies set config = ?", [text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")]
    )
    connection.commit()
    connection.close()
    assert isinstance(refused_or(stored_config, "s", url), Config | InputError)


CODE = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import PretrainedConfig, PreTrainedTokenizerFast, PreTrainedModel
class Evil(PretrainedConfig): model_type = "evil"
class EvilTokenizer(PreTrainedTokenizerFast): pass
class EvilModel(PreTrainedModel): pass
"""


@pytest.mark.parametrize("model_type", ["qwen3", "evil"])
@pytest.mark.parametrize("tokenizer", ["EvilTokenizer", "PreTrainedTokenizerFast"])
def test_code_of_a_checkpoint_is_never_run(
    originals: Path, tmp_path: Path, model_type: str, tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "it ran"
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked whether to run code"))
    for name in ("instruct", "thinking"):
        folder = shutil.copytree(originals / name, tmp_path / name)
        (folder / "evil.py").write_text(CODE.format(marker=str(marker)))
        config = json.loads((folder / "config.json").read_text()) | {"model_type": model_type}
        config["auto_map"] = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.EvilModel"}
        (folder / "config.json").write_text(json.dumps(config))
        settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"tokenizer_class": tokenizer}
        settings["auto_map"] = {"AutoTokenizer": [None, "evil.EvilTokenizer"]}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    arguments = [str(tmp_path / "instruct"), str(tmp_path / "thinking")]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"question": f"{i}", "answer": i}) + "\n" for i in range(4)))
    code, _, said = run(
        ["evaluate", *arguments, "--lambda", "0.5", "--task", str(rows), "--set", "sampling.max_tokens=2"]
    )
    assert code in (0, 2), said
    code, _, said = run(["merge", *arguments, str(tmp_path / "out"), "--lambda", "0.5"])
    assert code in (0, 2), said
    assert not marker.exists()
    if code == 0:
        assert not list((tmp_path / "out").glob("*.py"))
        assert "auto_map" not in (tmp_path / "out" / "config.json").read_text()


def run(arguments: list[str]) -> tuple[int, str, str]:
    """The exit code, output and errors of a command, in this process."""
    import contextlib
    import io

    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["autolambda", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = before
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()
