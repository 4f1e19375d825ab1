"""The compute dtype of an engine: which one it is, and whether the live weights lose nothing in it.

A checkpoint may hold some tensors in float32 among others in bfloat16, such as router biases. Model code keeps such
tensors in float32. Where it does not, the evaluated weights would not be the exported ones, so that is an error.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from autolambda.errors import ConfigError, EngineError
from autolambda.merging.pair import Pair


def resolve_dtype(name: str, pair: Pair, device: torch.device) -> torch.dtype:
    """Returns the compute dtype of ``engine.dtype``: auto is float32 on a CPU, the dtype of most weights on a GPU.

    Raises ``ConfigError`` for a dtype that cannot hold most weights.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else pair.dtype
    compute: torch.dtype = getattr(torch, name)
    if _narrower(compute, pair.dtype):
        raise ConfigError(
            f"engine.dtype: {name} cannot hold the checkpoints' {_in_words(pair.dtype)} values; use auto or float32"
        )
    return compute


def check_dtypes(live: Mapping[str, torch.dtype], pair: Pair) -> None:
    """Raises ``EngineError`` if an engine holds a tensor in a narrower dtype than the merge's files would.

    ``live`` has the dtype of each tensor in the engine, by its name in the checkpoint.
    """
    for name, dtype in live.items():
        stored = pair.tensors[name].dtype
        if stored.is_floating_point and _narrower(dtype, stored):
            raise EngineError(
                f"the engine holds '{name}' in {_in_words(dtype)}, but the checkpoints in {_in_words(stored)}, so it "
                "would not compute with the exported weights; set engine.dtype to float32"
            )


def _narrower(dtype: torch.dtype, stored: torch.dtype) -> bool:
    return torch.promote_types(dtype, stored) != dtype


def _in_words(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
