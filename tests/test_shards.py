"""Shards: headers that lie, sizes, and folders that appear complete or not at all."""

from __future__ import annotations

import errno
import json
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from autolambda.errors import CheckpointError, ConfigError, OutputError
from autolambda.shards import atomic_folder, parse_size, read_shard, write_checkpoint

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "b": torch.tensor([-0.0, 1.5, 2.5]).bfloat16(),
    "c": torch.tensor([True, False, True]),
    "d": torch.tensor(7),
    "e": torch.zeros(0, 4),
}


def raw(header: object, *, data: bytes = b"", length: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(encoded) if length is None else length).to_bytes(8, "little") + encoded + data


def entry(dtype: str = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def test_reads_what_the_library_wrote(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x.safetensors", metadata={"format": "pt"})
    infos = read_shard(tmp_path / "x.safetensors")
    assert {name: (info.dtype, info.shape) for name, info in infos.items()} == {
        name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in TENSORS.items()
    }
    assert infos["b"].num_bytes == 6 and infos["d"].num_bytes == 8 and infos["b"].file == "x.safetensors"
    content = (tmp_path / "x.safetensors").read_bytes()
    assert content[infos["b"].offset :][:6] == bytes(TENSORS["b"].view(torch.uint8).tolist())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is cut short"),
        (b"\1\0\0", "is cut short"),
        (raw(entry(), length=2**40), "is cut short"),
        (raw(b"{nonsense"), "not JSON"),
        (raw(b"\xff\xfe"), "not JSON"),
        (raw(b"[" * 100_000), "not JSON"),
        (raw([1]), "not a JSON object"),
        (raw(entry(), data=b"123"), "has 7. bytes, but its header describes"),
        (raw(entry(), data=b"12345"), "has 7. bytes, but its header describes"),
        (raw(entry(offsets=[0, 8]), data=b"12345678"), "tensor 'x' wrongly"),
        (raw(entry(offsets=[-4, 0])), "tensor 'x' wrongly"),
        (raw(entry(shape=[-1, -1]), data=b"1234"), "tensor 'x' wrongly"),
        (raw(entry(shape=["1"]), data=b"1234"), "tensor 'x' wrongly"),
        (raw(entry(shape=1), data=b"1234"), "tensor 'x' wrongly"),
        (raw({"x": 3}), "tensor 'x' wrongly"),
        (raw({"x": {}}), "tensor 'x' wrongly"),
        (raw(entry(shape=[True], offsets=[False, 4]), data=b"1234"), "tensor 'x' wrongly"),
        (raw(entry("U8", shape=[2**63, 0], offsets=[0, 0])), "tensor 'x' wrongly"),
        (raw(entry("U8", shape=[1] * 65, offsets=[0, 1]), data=b"1"), "tensor 'x' wrongly"),
        (raw(entry("U8", shape=[1.0], offsets=[0, 1]), data=b"1"), "tensor 'x' wrongly"),
        (raw(entry() | {"y": entry(offsets=[2, 6])["x"]}, data=b"123456"), "hole or an overlap before tensor 'y'"),
        (raw(entry() | {"y": entry(offsets=[5, 9])["x"]}, data=b"123456789"), "hole or an overlap before tensor 'y'"),
        (raw(entry(offsets=[1, 5]), data=b"12345"), "hole or an overlap before tensor 'x'"),
        (raw(json.dumps(entry()).encode()[:-1] + b',"x":{}}', data=b"1234"), "the key 'x' stands twice"),
        (
            raw(json.dumps(entry()).replace("}", ',"shape":[1]}', 1).encode(), data=b"1234"),
            "the key 'shape' stands twice",
        ),
        (raw(entry() | {"__metadata__": {"a": 1}}, data=b"1234"), "__metadata__"),
        (raw(entry() | {"__metadata__": []}, data=b"1234"), "__metadata__"),
        (raw({"\ud800": entry()["x"]}, data=b"1234"), "name is no Unicode"),
        (raw(json.dumps(entry()).encode("utf-16"), data=b"1234"), "not JSON"),
        (raw(b'{"x":' + b"[" * 400 + b"]" * 400 + b"}"), "nested deeper"),
        (raw(entry(dtype="F3"), data=b"1234"), "has dtype 'F3'; known are BF16"),
        (raw(entry(dtype="\u2028" * 99), data=b"1234"), "has dtype .{90,130}; known"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as raised:
        read_shard(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        read_shard(tmp_path / "x.safetensors")


def test_one_shard_has_no_index(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, TENSORS.items(), config={"model_type": "x"}, max_shard_size=10**9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert json.loads((tmp_path / "config.json").read_text()) == {"model_type": "x"}
    loaded = load_file(tmp_path / "model.safetensors")
    assert loaded.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded[name].dtype == tensor.dtype and torch.equal(loaded[name], tensor)
    assert torch.signbit(loaded["b"][0])
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_shards_are_filled_up_to_their_size(tmp_path: Path) -> None:
    tensors = {f"t{i}": torch.full((25,), float(i)) for i in range(7)} | {"large": torch.ones(1000)}
    write_checkpoint(tmp_path, tensors.items(), config={}, max_shard_size=300)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = [f"model-0000{i}-of-00004.safetensors" for i in range(1, 5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", *files, "model.safetensors.index.json"]
    assert index["metadata"]["total_size"] == 4700
    assert [sorted(load_file(tmp_path / file)) for file in files] == [
        ["t0", "t1", "t2"], ["t3", "t4", "t5"], ["t6"], ["large"],
    ]  # fmt: skip
    assert all(name in load_file(tmp_path / file) for name, file in index["weight_map"].items())
    assert index["weight_map"].keys() == tensors.keys()


def test_holds_one_shard_at_a_time(tmp_path: Path) -> None:
    arrays: list[weakref.ref[np.ndarray]] = []
    most = 0

    def stream() -> Iterator[tuple[str, Tensor]]:
        nonlocal most
        for number in range(20):
            array = np.ones(25, dtype=np.float32)  # lives as long as a tensor shares its memory
            arrays.append(weakref.ref(array))
            most = max(most, sum(reference() is not None for reference in arrays))
            yield f"t{number}", torch.from_numpy(array)
            del array

    write_checkpoint(tmp_path, stream(), config={}, max_shard_size=400)
    assert most <= 5  # four of a shard and the one that did not fit


def test_every_tensor_is_aligned(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, TENSORS.items(), config={}, max_shard_size=10**9)
    for name, info in read_shard(tmp_path / "model.safetensors").items():
        assert info.offset % info.dtype.itemsize == 0, name


def test_strided_and_shared_tensors_are_written_whole(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    write_checkpoint(tmp_path, {"a": base.t(), "b": base, "c": base[1:]}.items(), config={}, max_shard_size=10**6)
    loaded = load_file(tmp_path / "model.safetensors")
    assert torch.equal(loaded["a"], base.t()) and torch.equal(loaded["b"], base) and torch.equal(loaded["c"], base[1:])


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(OutputError, match=r"cannot write '.*': No space left on device; free some space"),
        atomic_folder(tmp_path / "out") as folder,
    ):
        write_checkpoint(folder, TENSORS.items(), config={}, max_shard_size=10**6)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_in_the_stream_keeps_its_own_error(tmp_path: Path) -> None:
    def stream() -> Iterator[tuple[str, Tensor]]:
        yield "a", torch.ones(3)
        raise CheckpointError("shard cut short")

    with pytest.raises(CheckpointError, match="shard cut short"), atomic_folder(tmp_path / "out") as folder:
        write_checkpoint(folder, stream(), config={}, max_shard_size=1)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with atomic_folder(out) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text("x")
        assert folder.parent == tmp_path and not out.exists()
    assert (out / "sub" / "file").read_text() == "x"
    assert list(tmp_path.iterdir()) == [out]
    assert out.stat().st_mode & 0o777 == 0o777 & ~_umask()


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_nothing_stays_after_a_failure(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), atomic_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("x")
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_what_exists_is_not_overwritten(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    {"folder": out.mkdir, "file": out.touch, "dangling link": lambda: out.symlink_to("nowhere")}[kind]()
    with pytest.raises(OutputError, match="exists already"), atomic_folder(out):
        pytest.fail("the block must not run")
    assert list(tmp_path.iterdir()) == [out]


def test_what_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OutputError, match="cannot write"), atomic_folder(out):
        out.mkdir()
        (out / "theirs").touch()
    assert list(tmp_path.iterdir()) == [out] and (out / "theirs").exists()


def test_a_missing_parent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"missing' is not a folder.*create it first"):
        atomic_folder(tmp_path / "missing" / "out").__enter__()


def test_an_unwritable_parent_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(OutputError, match=r"out': Permission denied"):
        atomic_folder(tmp_path / "out").__enter__()


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GB", 5 * 10**9), ("500 MB", 5 * 10**8), ("1.5gb", 15 * 10**8), ("2GiB", 2 * 2**30), ("64kb", 64_000),
     ("123", 123), ("7B", 7)],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "GB", "5TB", "-5GB", "0", "0.1B", "9" * 400, "9" * 30 + "GB", "5GB more", "5 0GB", "1e9", "iB", "5iB", "٥GB"],
)
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="such as 5GB; seen"):
        parse_size(text)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
