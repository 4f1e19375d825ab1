"""Reads safetensors files without trusting them: the header of a shard, then its tensors piece by piece.

The safetensors library checks a header against its file before any tensor is read. So a truncated or forged file gives
an error of one line. Tensors are read and not mapped, so the memory does not grow with the files.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
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
_MOST_DIMENSIONS = 64  # of a tensor in NumPy
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor in a header. ``offset`` is its first byte in ``file``, the name in the checkpoint's folder."""

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
    """Returns the tensors of one file by name.

    Raises ``CheckpointError`` when the file cannot be read, when header and file disagree, or for an unknown dtype.
    """
    try:
        with path.open("rb") as file, safe_open(path, framework="pt"):  # refuses holes, overlaps and wrong sizes
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = load_json(file.read(length))
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise CheckpointError(f"cannot read '{path}': {reason}; check the path or download it again") from error
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"'{path}' is not a valid safetensors file ({one_line(error, limit=160)}); download it again"
        ) from error
    header.pop("__metadata__", None)
    return {name: _info(path, name, entry, start=8 + length) for name, entry in header.items()}


def _info(path: Path, name: str, entry: dict[str, Any], *, start: int) -> TensorInfo:
    """Returns the description of one tensor. Refuses dtypes and shapes that the library allows but PyTorch lacks."""
    dtype, shape = entry["dtype"], entry["shape"]
    if dtype not in DTYPES:
        raise CheckpointError(
            f"tensor {in_short(name)} in '{path}' has dtype {in_short(dtype)}; supported are {', '.join(DTYPES)}"
        )
    if len(shape) > _MOST_DIMENSIONS or any(length >= 2**63 for length in shape):
        raise CheckpointError(
            f"tensor {in_short(name)} in '{path}' has the shape {in_short(shape)}, too large for a tensor; "
            "download it again"
        )
    return TensorInfo(DTYPES[dtype], tuple(shape), path.name, start + entry["data_offsets"][0])


class ShardReader:
    """A context manager that reads pieces of a folder's tensors into buffers, from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, int] = {}
        self._opening = Lock()

    def read(self, name: str, info: TensorInfo, begin: int, buffer: Tensor) -> Tensor:
        """Fills the uint8 ``buffer`` with the bytes of a tensor from byte ``begin`` on, and returns it.

        Raises ``CheckpointError`` when the file cannot be read or ends too early.
        """
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


def bytes_of(piece: Tensor) -> memoryview:
    """Returns the bytes of a contiguous CPU tensor, without a copy."""
    view: memoryview = piece.view(-1).view(torch.uint8).numpy().data
    return view


def parse_size(text: str) -> int:
    """Returns the bytes that ``5GB``, ``500 MB``, ``2GiB`` or a plain number stands for.

    Raises ``ConfigError`` for any other text and for less than 1 byte.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?I?B)?\s*", text, re.IGNORECASE | re.ASCII)
    unit = (match[2] or "").upper() if match else ""
    size = float(match[1]) * _UNITS[unit] if match and unit in _UNITS else 0
    if not 1 <= size < 2**63:
        raise ConfigError(f"a size is a number with KB, MB or GB, such as 5GB; seen {in_short(text)}")
    return int(size)
