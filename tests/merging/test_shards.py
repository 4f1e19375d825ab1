"""Shards: headers that lie, tensors in pieces and their hashes, sizes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from autolambda.errors import CheckpointError, ConfigError
from autolambda.merging.shards import ShardReader, TensorHash, bytes_of, parse_size, read_shard

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


def test_pieces_are_the_bytes_of_the_tensor(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x.safetensors")
    infos = read_shard(tmp_path / "x.safetensors")
    with ShardReader(tmp_path) as reader:
        for name, tensor in TENSORS.items():
            read = [
                reader.read(name, infos[name], begin, torch.empty(1, dtype=torch.uint8))
                for begin in range(tensor.nbytes)
            ]
            assert b"".join(map(bytes, map(bytes_of, read))) == bytes(bytes_of(tensor))


def test_a_file_that_ends_too_soon_or_is_gone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path)
    info = read_shard(path)["a"]
    path.write_bytes(path.read_bytes()[: info.offset + 3])
    with ShardReader(tmp_path) as reader, pytest.raises(CheckpointError, match="ended inside 'a'; download"):
        reader.read("a", info, 0, torch.empty(24, dtype=torch.uint8))
    path.unlink()
    with ShardReader(tmp_path) as reader, pytest.raises(CheckpointError, match=r"cannot read .* No such file"):
        reader.read("a", info, 0, torch.empty(24, dtype=torch.uint8))


def test_a_hash_is_that_of_the_whole_and_sees_every_value(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x.safetensors")
    info = read_shard(tmp_path / "x.safetensors")["a"]
    whole, pieces = TensorHash("a", info), TensorHash("a", info)
    whole.update(TENSORS["a"])
    for row in TENSORS["a"]:
        pieces.update(row)
    said = json.dumps(["a", "torch.float32", [2, 3]]).encode() + bytes(bytes_of(TENSORS["a"]))
    assert whole.digest() == pieces.digest() == hashlib.sha256(said).digest() and pieces.finite
    pieces.update(torch.tensor([1.0, torch.nan]))
    pieces.update(torch.ones(2))
    assert not pieces.finite and pieces.digest() != whole.digest()


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
