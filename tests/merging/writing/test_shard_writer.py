"""Shards being written: their layout, their index, and a disk that refuses."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from autolambda.errors import OutputError
from autolambda.merging.shards import TensorInfo, read_shard
from autolambda.merging.writing import shard_writer
from autolambda.merging.writing.shard_writer import ShardWriter
from tests.merging.test_shards import TENSORS


def write(folder: Path, tensors: Mapping[str, Tensor], *, max_shard_size: int = 10**9) -> None:
    """Writes tensors in two pieces each, the last tensor first."""
    infos = {name: TensorInfo(tensor.dtype, tuple(tensor.shape), "", 0) for name, tensor in tensors.items()}
    with ShardWriter(folder, infos, max_shard_size=max_shard_size) as writer:
        for name, tensor in reversed(tensors.items()):
            first, second = tensor.reshape(-1)[:1], tensor.reshape(-1)[1:]
            writer.write(name, first.nbytes, second)
            writer.write(name, 0, first)


def test_one_shard_has_no_index(tmp_path: Path) -> None:
    write(tmp_path, TENSORS)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    loaded = load_file(tmp_path / "model.safetensors")
    assert loaded.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded[name].dtype == tensor.dtype and torch.equal(loaded[name], tensor)
    assert torch.signbit(loaded["b"][0])
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_shards_are_filled_up_to_their_size(tmp_path: Path) -> None:
    tensors = {f"t{i}": torch.full((25,), float(i)) for i in range(7)} | {"large": torch.ones(1000)}
    write(tmp_path, tensors, max_shard_size=300)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = [f"model-0000{i}-of-00004.safetensors" for i in range(1, 5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*files, "model.safetensors.index.json"]
    assert index["metadata"]["total_size"] == 4700
    assert [sorted(load_file(tmp_path / file)) for file in files] == [
        ["t0", "t1", "t2"], ["t3", "t4", "t5"], ["t6"], ["large"],
    ]  # fmt: skip
    assert all(
        torch.equal(load_file(tmp_path / file)[name], tensors[name]) for name, file in index["weight_map"].items()
    )
    assert index["weight_map"].keys() == tensors.keys()


def test_every_tensor_is_aligned(tmp_path: Path) -> None:
    write(tmp_path, TENSORS)
    for name, info in read_shard(tmp_path / "model.safetensors").items():
        assert info.offset % info.dtype.itemsize == 0, name


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite", "fdatasync", "fsync"])
def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    num_open = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, call, full)
    monkeypatch.setattr(shard_writer, "_FLUSH_EVERY", 4)
    with pytest.raises(OutputError, match=r"cannot write '.*model.safetensors': No space left on device; free some"):
        write(tmp_path, TENSORS)
    assert len(os.listdir("/proc/self/fd")) == num_open


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("precious")
    with pytest.raises(OutputError, match="File exists"):
        write(tmp_path, TENSORS)
    assert (tmp_path / "model.safetensors").read_text() == "precious"
