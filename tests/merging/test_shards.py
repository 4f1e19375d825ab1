"""Shards: headers that lie, tensors in pieces, sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from autolambda.errors import CheckpointError, ConfigError
from autolambda.merging.shards import ShardReader, bytes_of, parse_size, read_shard

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
        (b"", "header too small"),
        (b"\1\0\0", "header too small"),
        (raw(entry(), length=2**40), "header too large"),
        (raw(b"{nonsense"), "invalid (JSON|UTF-8) in header"),
        (raw(b"\xff\xfe"), "invalid (JSON|UTF-8) in header"),
        (raw(b"[" * 100_000), "invalid (JSON|UTF-8) in header"),
        (raw([1]), "invalid type: sequence"),
        (raw(entry(), data=b"123"), "file not fully covered"),
        (raw(entry(), data=b"12345"), "file not fully covered"),
        (raw(entry(offsets=[0, 8]), data=b"12345678"), "invalid shape, data type, or offset"),
        (raw(entry(offsets=[-4, 0])), "invalid (type|value)"),
        (raw(entry(shape=[-1, -1]), data=b"1234"), "invalid (type|value)"),
        (raw(entry(shape=["1"]), data=b"1234"), "invalid (type|value)"),
        (raw(entry(shape=1), data=b"1234"), "invalid (type|value)"),
        (raw({"x": 3}), "invalid (type|value)"),
        (raw({"x": {}}), "missing field"),
        (raw(entry(shape=[True], offsets=[False, 4]), data=b"1234"), "invalid (type|value)"),
        (raw(entry("U8", shape=[2**63, 0], offsets=[0, 0])), "'x' .* has the shape .*, too large for a tensor"),
        (
            raw(entry("U8", shape=[1] * 65, offsets=[0, 1]), data=b"1"),
            "'x' .* has the shape .*, too large for a tensor",
        ),
        (raw(entry("U8", shape=[1.0], offsets=[0, 1]), data=b"1"), "invalid (type|value)"),
        (raw(entry() | {"y": entry(offsets=[2, 6])["x"]}, data=b"123456"), "invalid offset for tensor `y`"),
        (raw(entry() | {"y": entry(offsets=[5, 9])["x"]}, data=b"123456789"), "invalid offset for tensor `y`"),
        (raw(entry(offsets=[1, 5]), data=b"12345"), "invalid offset for tensor `x`"),
        (raw(json.dumps(entry()).encode()[:-1] + b',"x":{}}', data=b"1234"), "missing field"),
        (
            raw(json.dumps(entry()).replace("}", ',"shape":[1]}', 1).encode(), data=b"1234"),
            "duplicate field `shape`",
        ),
        (raw(entry() | {"__metadata__": {"a": 1}}, data=b"1234"), "invalid type: integer"),
        (raw(entry() | {"__metadata__": []}, data=b"1234"), "invalid type: sequence"),
        (raw({"\ud800": entry()["x"]}, data=b"1234"), "hex escape"),
        (raw(json.dumps(entry()).encode("utf-16"), data=b"1234"), "invalid (JSON|UTF-8) in header"),
        (raw(b'{"x":' + b"[" * 400 + b"]" * 400 + b"}"), "recursion limit"),
        (raw(entry(dtype="F3"), data=b"1234"), "unknown variant `F3`"),
        (raw(entry("U16", offsets=[0, 2]), data=b"12"), "has dtype 'U16'; supported are BF16"),
        (raw(entry(dtype="\u2028" * 99), data=b"1234"), "unknown variant"),
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
