"""SHA-256 of weights: of one tensor, of a checkpoint's files, of an engine's live tensors.

A tensor's hash covers its name, dtype, shape and bytes (``TensorHash``). The digest of a set of weights covers these
hashes in the order of the names. It therefore does not depend on sharding, and is equal for files and engines.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from autolambda.merging.shards import ShardReader, TensorInfo, bytes_of

NUM_THREADS = min(8, os.cpu_count() or 1)  # threads that read and hash
_CHUNK = 1 << 20  # bytes that a thread holds while it hashes


class TensorHash:
    """SHA-256 of a tensor's name, dtype, shape and bytes, updated with its pieces in order.

    ``finite`` is false once a checked piece held a NaN or an infinity.
    """

    def __init__(self, name: str, info: TensorInfo) -> None:
        self._sha = hashlib.sha256(json.dumps([name, str(info.dtype), info.shape]).encode())
        self.finite = True

    def update(self, piece: Tensor, *, hashed: bool = True, checked: bool = True) -> None:
        """Hashes the next piece, in the tensor's dtype, and checks it for NaN and infinities."""
        if hashed:
            self._sha.update(bytes_of(piece))
        if checked and self.finite:
            self.finite = is_finite(piece)

    def digest(self) -> bytes:
        return self._sha.digest()


def is_finite(values: Tensor) -> bool:
    """Returns whether no value is NaN or infinite. Integers and 8-bit floats count as finite."""
    if not values.is_floating_point() or values.dtype.itemsize == 1 or values.numel() == 0:
        return True
    low, high = torch.aminmax(values)  # both propagate NaN; ten times faster than isfinite on a CPU
    return math.isfinite(low.item()) and math.isfinite(high.item())


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Returns whether two tensors of one dtype hold equal bytes, so that -0.0 is not 0.0."""
    return torch.equal(*(tensor.reshape(-1).view(torch.uint8) for tensor in (one, other)))


def hash_files(folder: Path, tensors: Mapping[str, TensorInfo]) -> dict[str, TensorHash]:
    """Reads and hashes the tensors of a checkpoint's folder, the largest first. Raises ``CheckpointError``."""
    by_size = sorted(tensors, key=lambda name: -tensors[name].num_bytes)
    with ShardReader(folder) as reader, ThreadPoolExecutor(NUM_THREADS) as pool:
        hashes = pool.map(lambda name: _hash_file(name, tensors[name], reader), by_size)
        return dict(zip(by_size, hashes, strict=True))


def _hash_file(name: str, info: TensorInfo, reader: ShardReader) -> TensorHash:
    tensor_hash = TensorHash(name, info)
    buffer = torch.empty(min(_CHUNK, info.num_bytes), dtype=torch.uint8)
    for begin in range(0, info.num_bytes, _CHUNK):
        chunk = reader.read(name, info, begin, buffer[: info.num_bytes - begin])
        tensor_hash.update(chunk.view(info.dtype))
    return tensor_hash


def digest_of_hashes(hashes: Mapping[str, str]) -> str:
    """Returns the SHA-256 (hex) of a set of weights. ``hashes`` holds the hash of each tensor (hex) by name."""
    total = hashlib.sha256()
    for name in sorted(hashes):
        total.update(bytes.fromhex(hashes[name]))
    return total.hexdigest()


def digest_of_tensors(tensors: Mapping[str, Tensor], infos: Mapping[str, TensorInfo]) -> str:
    """Returns ``digest_of_hashes`` for tensors in memory.

    ``tensors`` have the checkpoint's names and shapes, on any device, in its dtype or a wider one.
    """

    def hashed(name: str) -> str:
        tensor_hash = TensorHash(name, infos[name])
        tensor_hash.update(tensors[name].detach().to(infos[name].dtype).cpu().contiguous(), checked=False)
        return tensor_hash.digest().hex()

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return digest_of_hashes(dict(zip(tensors, pool.map(hashed, tensors), strict=True)))


def digest_of_shares(shares: Iterable[tuple[str, Tensor]]) -> str:
    """Returns the SHA-256 (hex) of names and bytes in the given order, for weights that no checkpoint holds."""
    total = hashlib.sha256()
    for name, tensor in shares:
        total.update(name.encode())
        total.update(bytes_of(tensor.detach().cpu().contiguous()))
    return total.hexdigest()
