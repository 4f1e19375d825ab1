"""The memory for a parent's copy in the engine's layout: on the GPU, in pinned host memory, or in a mapped file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from autolambda.errors import EngineError

ParentMemory = Literal["gpu", "host", "files"]

_ALIGNMENT = 64  # bytes


def allocate(live: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype], memory: ParentMemory) -> dict[str, Tensor]:
    """Makes an empty tensor for each live one: on its device, in (pinned) host memory, or in a mapped file.

    Raises ``EngineError`` if the GPU cannot pin that much host memory.
    """
    if memory == "gpu":
        return {name: torch.empty_like(tensor, dtype=dtypes[name]) for name, tensor in live.items()}
    offsets, size = layout(live, dtypes)
    whole = _mapped(size) if memory == "files" else torch.empty(size, dtype=torch.uint8)
    if memory == "host" and any(tensor.is_cuda for tensor in live.values()):
        _pin(whole)
    return {
        name: whole[offset : offset + live[name].numel() * dtypes[name].itemsize].view(dtypes[name]).view_as(live[name])
        for name, offset in offsets.items()
    }


def layout(live: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype]) -> tuple[dict[str, int], int]:
    """Returns the offset of each tensor in one block that holds them all, and the size of the block, in bytes."""
    offsets, end = {}, 0
    for name, tensor in live.items():
        offsets[name] = end
        end += -(-tensor.numel() * dtypes[name].itemsize // _ALIGNMENT) * _ALIGNMENT
    return offsets, end


def _pin(block: Tensor) -> None:
    """Pins a block as it is. PyTorch's own pinned memory is rounded up to powers of two, block by block."""
    error = torch.cuda.cudart().cudaHostRegister(block.data_ptr(), block.nbytes, 0)  # type: ignore[no-untyped-call]
    if int(error) != 0:
        raise EngineError(
            f"the GPU cannot pin {block.nbytes / 2**30:.1f} GiB of host memory ({error}); set engine.parents to files"
        )


def _mapped(size: int) -> Tensor:
    """Makes a block in a file that is unlinked at once, so that its space is freed when the process ends."""
    with tempfile.NamedTemporaryFile(prefix="autolambda-parents-") as file:
        os.posix_fallocate(file.fileno(), 0, size)  # a full disk raises here, and does not become a SIGBUS later
        return torch.from_file(file.name, shared=True, size=size, dtype=torch.uint8)
