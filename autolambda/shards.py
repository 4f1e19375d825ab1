"""Safetensors files: read a shard's header without trusting it, and write a merge as shards with their index.

A header is checked against the file before any tensor is touched, so that a truncated or forged file ends in one
clear line. Writing takes a stream of tensors, holds one shard in memory, and is atomic through ``atomic_folder``:
the folder appears under its name complete, or not at all.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from autolambda.errors import CheckpointError, ConfigError, OutputError, in_short, one_line
from autolambda.json_text import load_json

DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
TensorStream = Iterable[tuple[str, Tensor]]
"""Tensors by name, one at a time."""

_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library
_MOST_DIMENSIONS = 64  # of a tensor, in NumPy
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class TensorInfo:
    """What a header says about a tensor; ``offset`` is its first byte in ``file``, which lies in the folder."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    file: str
    offset: int

    @property
    def num_values(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.num_values * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} {list(self.shape)}"


def read_shard(path: Path) -> dict[str, TensorInfo]:
    """The tensors of one file by name. Raises ``CheckpointError`` where header and file do not agree."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(_MAX_HEADER, size - 8):
                raise _broken(path, f"is cut short or is no safetensors file ({size} bytes)")
            header = load_json(file.read(length))
    except OSError as error:
        raise CheckpointError(f"cannot read '{path}': {error.strerror}; check the path or download it again") from error
    except ValueError as error:
        raise _broken(path, f"has a header that is not JSON as it should be ({one_line(error, limit=80)})") from error
    if not isinstance(header, dict):
        raise _broken(path, "has a header that is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise _broken(path, "has a __metadata__ that is no mapping of texts")
    start = 8 + length
    infos = {name: _info(path, name, entry, start=start) for name, entry in header.items()}
    end = start
    if unfit := next((name for name in infos if any("\ud800" <= character <= "\udfff" for character in name)), None):
        raise _broken(path, f"has a tensor whose name is no Unicode, {unfit[:60]!r}")
    for name, info in sorted(infos.items(), key=lambda item: (item[1].offset, item[1].num_bytes)):
        if info.offset != end:
            raise _broken(path, f"has a hole or an overlap before tensor {in_short(name)}")
        end += info.num_bytes
    if end != size:
        raise _broken(path, f"has {size} bytes, but its header describes {end}")
    return infos


def _info(path: Path, name: str, entry: object, *, start: int) -> TensorInfo:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]}:
            if dtype not in DTYPES:
                seen = in_short(dtype, limit=20)
                raise CheckpointError(
                    f"tensor {in_short(name)} in '{path}' has dtype {seen}; known are {', '.join(DTYPES)}"
                )
            whole = all(type(number) is int for number in (begin, end, *shape))
            if whole and len(shape) <= _MOST_DIMENSIONS and all(0 <= length < 2**63 for length in shape):
                info = TensorInfo(DTYPES[dtype], tuple(shape), path.name, start + begin)
                if begin >= 0 and end - begin == info.num_bytes:
                    return info
    raise _broken(path, f"describes tensor {in_short(name)} wrongly ({in_short(entry, limit=80)})")


def _broken(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"'{path}' {what}; download it again")


def write_checkpoint(folder: Path, tensors: TensorStream, *, config: Mapping[str, Any], max_shard_size: int) -> None:
    """Writes config.json and the tensors, in their order, into an existing empty ``folder``.

    Fills shards up to ``max_shard_size`` bytes (a larger tensor gets its own) and adds an index where there are
    several. Holds one shard in memory. Raises ``OutputError`` where the disk refuses.
    """
    _write_json(folder / "config.json", config)
    parts: list[list[str]] = []
    total_size = 0
    for shard in _grouped(tensors, max_shard_size):
        total_size += sum(tensor.nbytes for tensor in shard.values())
        parts.append(list(shard))
        _write_shard(_part(folder, len(parts)), shard)
        shard.clear()  # frees it before the next one is filled
    if len(parts) == 1:
        _part(folder, 1).rename(folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for number, names in enumerate(parts, start=1):
        file = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        _part(folder, number).rename(folder / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
    _write_json(folder / "model.safetensors.index.json", index)


def _part(folder: Path, number: int) -> Path:
    return folder / f"model-{number:05d}.part"  # how many there will be is not known yet


def _grouped(tensors: TensorStream, max_shard_size: int) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors:
        if shard and size + tensor.nbytes > max_shard_size:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor.detach().cpu()
        size += tensor.nbytes
    yield shard


def _write_shard(path: Path, shard: Mapping[str, Tensor]) -> None:
    # The library's save_file doubles the memory (it makes a bytes object of each tensor) and refuses shared storage.
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    order = sorted(shard, key=lambda name: (-shard[name].dtype.itemsize, name))  # keeps each tensor aligned
    end = 0
    for name in order:
        tensor = shard[name]
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": _DTYPE_NAMES[tensor.dtype], "shape": [*tensor.shape], "data_offsets": [begin, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with _created(path) as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in order:
            file.write(shard[name].reshape(-1).view(torch.uint8).numpy().data)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with _created(path) as file:
        file.write(json.dumps(content, indent=2).encode() + b"\n")


@contextmanager
def _created(path: Path) -> Iterator[BinaryIO]:
    with _writing(path), path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write '{path}': {error.strerror}; free some space or choose another folder"
        ) from error


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that becomes ``out`` when the block ends, and is removed when it fails.

    Raises ``OutputError`` where ``out`` exists already or its parent folder is missing or cannot be written.
    """
    if os.path.lexists(out):
        raise OutputError(f"'{out}' exists already; choose another folder or remove it")
    if not out.parent.is_dir():
        raise OutputError(f"'{out.parent}' is not a folder, so '{out.name}' cannot be made in it; create it first")
    temporary = out.parent / f".{out.name}.{secrets.token_hex(4)}.tmp"
    with _writing(out):
        temporary.mkdir()
    try:
        yield temporary
        with _writing(out):
            for path in [*temporary.rglob("*"), temporary]:
                _sync(path)
            temporary.rename(out)
            _sync(out.parent)
    except BaseException:  # an interrupt too: nothing half-written stays behind
        shutil.rmtree(temporary, ignore_errors=True)  # the first error is the one to show
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def parse_size(text: str) -> int:
    """Bytes of ``5GB``, ``500 MB``, ``2GiB`` or a plain number. Raises ``ConfigError`` for anything else and for 0."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?I?B)?\s*", text, re.IGNORECASE | re.ASCII)
    unit = (match[2] or "").upper() if match else ""
    size = float(match[1]) * _UNITS[unit] if match and unit in _UNITS else 0
    if not 1 <= size < 2**63:
        raise ConfigError(f"a size is a number with KB, MB or GB, such as 5GB; seen {in_short(text)}")
    return int(size)
