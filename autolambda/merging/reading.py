"""Reads a model's tensors as a merge has them: with an lm_head if the merge has one, in Thinking's dtypes and rows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from autolambda.errors import CheckpointError
from autolambda.merging.checkpoint import HEAD, Checkpoint
from autolambda.merging.fingerprint import is_finite
from autolambda.merging.shards import TensorInfo

Region = tuple[slice, ...]
"""The slices of a tensor's first dimensions; empty for the whole tensor."""


def untied_tensors(checkpoint: Checkpoint) -> Mapping[str, TensorInfo]:
    """Returns the checkpoint's tensors with an lm_head; if lm_head is tied, its entry is the embedding's."""
    if not checkpoint.tied or checkpoint.embedding is None:
        return checkpoint.tensors
    return {**checkpoint.tensors, _head_of(checkpoint.embedding): checkpoint.tensors[checkpoint.embedding]}


def tied_tensors(checkpoint: Checkpoint) -> Mapping[str, TensorInfo]:
    """Returns the checkpoint's tensors without an lm_head."""
    return {name: info for name, info in checkpoint.tensors.items() if not HEAD.fullmatch(name)}


def _head_of(embedding: str) -> str:
    """Returns the name of the lm_head that belongs to an embedding; it has no ``model.`` prefix."""
    prefix = embedding.rpartition(".")[0].rpartition(".")[0]
    prefix = "" if prefix.startswith("model") or not prefix else prefix.removesuffix("model").rstrip(".") + "."
    return prefix + "lm_head.weight"


def stored_name(checkpoint: Checkpoint, name: str) -> str:
    """Returns the name under which a tensor of ``untied_tensors`` is stored; for a tied lm_head, the embedding's."""
    if checkpoint.tied and checkpoint.embedding is not None and name == _head_of(checkpoint.embedding):
        return checkpoint.embedding
    return name


def read_tensor(checkpoint: Checkpoint, name: str) -> Tensor:
    """Reads a tensor of ``untied_tensors``, memory-mapped. Raises ``CheckpointError`` when the file fails."""
    return checkpoint.read(stored_name(checkpoint, name))


def fitted(tensor: Tensor, thinking: Tensor, index: Region = ()) -> Tensor:
    """Returns a region of a model's tensor, in the dtype and with the rows of Thinking's, which the merge has too.

    Rows that the model lacks are Thinking's. Raises ``CheckpointError`` for a value that the dtype cannot hold.
    """
    own, wanted = tensor[index], thinking[index]
    own = own[: len(wanted)] if wanted.dim() else own
    converted = own.to(wanted.dtype)
    if not is_finite(converted) and is_finite(own):
        dtype = str(wanted.dtype).removeprefix("torch.")
        raise CheckpointError(f"a parent holds values that {dtype}, Thinking's dtype, cannot hold; convert Thinking")
    if wanted.dim() and len(converted) < len(wanted):
        converted = torch.cat([converted, wanted[len(converted) :]])
    return converted
