"""The memory for a parent's copy in the engine's layout: on the GPU, in pinned host memory, or in a mapped file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

ParentMemory = Literal["gpu", "host", "files"]

_ALIGNMENT = 64  # bytes


def allocate(live: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype], memory: ParentMemory) -> dict[str, Tensor]:
    """Makes an empty tensor for each live one: on its device, in (pinned) host memory, or in a mapped file."""
    if memory == "files":
        return _mapped(live, dtypes)
    return {
        name: torch.empty_like(tensor, dtype=dtypes[name])
        if memory == "gpu"
        else torch.empty(tensor.shape, dtype=dtypes[name], pin_memory=tensor.is_cuda)
        for name, tensor in live.items()
    }


def _mapped(live: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype]) -> dict[str, Tensor]:
    """Makes tensors in one file that is unlinked at once, so that its space is freed when the process ends."""
    offsets, end = {}, 0
    for name, tensor in live.items():
        offsets[name] = end
        end += -(-tensor.numel() * dtypes[name].itemsize // _ALIGNMENT) * _ALIGNMENT
    with tempfile.NamedTemporaryFile(prefix="autolambda-parents-") as file:
        os.posix_fallocate(file.fileno(), 0, end)  # a full disk raises here, and does not become a SIGBUS later
        whole = torch.from_file(file.name, shared=True, size=end, dtype=torch.uint8)
    sizes = {name: tensor.numel() * dtypes[name].itemsize for name, tensor in live.items()}
    return {
        name: whole[offsets[name] : offsets[name] + sizes[name]].view(dtypes[name]).view(tensor.shape)
        for name, tensor in live.items()
    }
