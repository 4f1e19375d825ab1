"""What the weights of a model are, in one SHA-256, wherever they lie: in files, or in an engine that computes.

It is taken over each tensor's name, dtype, shape and bytes in the form of a checkpoint (``TensorHash``), by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from autolambda.merging.checkpoint import NUM_THREADS
from autolambda.merging.shards import TensorHash, TensorInfo, bytes_of


def digest_of_hashes(hashes: Mapping[str, str]) -> str:
    """The SHA-256 (hex) of weights from that of each tensor (hex) by name."""
    total = hashlib.sha256()
    for name in sorted(hashes):
        total.update(bytes.fromhex(hashes[name]))
    return total.hexdigest()


def digest_of_tensors(tensors: Mapping[str, Tensor], infos: Mapping[str, TensorInfo]) -> str:
    """The same from tensors of the checkpoint's names and shapes, on any device and of the same or a wider dtype."""

    def hashed(name: str) -> str:
        found = TensorHash(name, infos[name])
        found.update(tensors[name].detach().to(infos[name].dtype).cpu().contiguous(), checked=False)
        return found.digest().hex()

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return digest_of_hashes(dict(zip(tensors, pool.map(hashed, tensors), strict=True)))


def digest_of_shares(shares: Iterable[tuple[str, Tensor]]) -> str:
    """The SHA-256 (hex) of weights that are no checkpoint's tensors: names and bytes in their order."""
    total = hashlib.sha256()
    for name, tensor in shares:
        total.update(name.encode())
        total.update(bytes_of(tensor.detach().cpu().contiguous()))
    return total.hexdigest()
