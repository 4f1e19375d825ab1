"""Safetensors files: a shard's header, read without trusting it, and its tensors, read in pieces and hashed.

A header is checked against the file before any tensor is touched, so that a truncated or forged file ends in one
clear line.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from autolambda.errors import CheckpointError, ConfigError, in_short, one_line
from autolambda.files import load_json

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


class ShardReader:
    """Reads pieces of the tensors of one folder's files into buffers, from any thread; closed at the end of its block.

    Pieces are read, not mapped: the memory it takes does not grow with the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, int] = {}
        self._opening = Lock()

    def read(self, name: str, info: TensorInfo, begin: int, buffer: Tensor) -> Tensor:
        """Fills the uint8 ``buffer`` from byte ``begin`` of a tensor on; returns it. Raises ``CheckpointError``."""
        view = bytes_of(buffer)
        done = 0
        try:
            descriptor = self._open(info.file)
            while done < len(view):
                num_read = os.preadv(descriptor, [view[done:]], info.offset + begin + done)
                if num_read == 0:
                    path = self._folder / info.file
                    raise CheckpointError(f"'{path}' ended inside '{name}'; download it again")
                done += num_read
        except OSError as error:
            path = self._folder / info.file
            raise CheckpointError(f"cannot read '{path}': {error.strerror}; check the path or the disk") from error
        return buffer

    def _open(self, file: str) -> int:
        with self._opening:
            if file not in self._files:
                self._files[file] = os.open(self._folder / file, os.O_RDONLY | os.O_CLOEXEC)
            return self._files[file]

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, *raised: object) -> None:
        while self._files:
            os.close(self._files.popitem()[1])


class TensorHash:
    """SHA-256 of a tensor's name, dtype, shape and bytes, fed with its pieces in order; ``finite`` so far."""

    def __init__(self, name: str, info: TensorInfo) -> None:
        self._sha = hashlib.sha256(json.dumps([name, str(info.dtype), info.shape]).encode())
        self.finite = True

    def update(self, piece: Tensor, *, hashed: bool = True, checked: bool = True) -> None:
        """Takes the next piece, in the tensor's dtype: hashes it, and looks for NaN and infinities."""
        if hashed:
            self._sha.update(bytes_of(piece))
        if checked and self.finite:
            self.finite = is_finite(piece)

    def digest(self) -> bytes:
        return self._sha.digest()


def bytes_of(piece: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, shared with it."""
    view: memoryview = piece.view(-1).view(torch.uint8).numpy().data
    return view


def is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite; integers and 8-bit floats always are taken to be."""
    if not values.is_floating_point() or values.dtype.itemsize == 1 or values.numel() == 0:
        return True
    low, high = torch.aminmax(values)  # both propagate NaN; ten times faster than isfinite on a CPU
    return math.isfinite(low.item()) and math.isfinite(high.item())


def parse_size(text: str) -> int:
    """Bytes of ``5GB``, ``500 MB``, ``2GiB`` or a plain number. Raises ``ConfigError`` for anything else and for 0."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?I?B)?\s*", text, re.IGNORECASE | re.ASCII)
    unit = (match[2] or "").upper() if match else ""
    size = float(match[1]) * _UNITS[unit] if match and unit in _UNITS else 0
    if not 1 <= size < 2**63:
        raise ConfigError(f"a size is a number with KB, MB or GB, such as 5GB; seen {in_short(text)}")
    return int(size)
