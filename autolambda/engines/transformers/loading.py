"""Loads a checkpoint as a transformers model: its class, its device, and errors of one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoConfig, PretrainedConfig
from transformers.utils import logging as logging_of_transformers

from autolambda.errors import CheckpointError, ConfigError, EngineError, one_line, reason
from autolambda.merging.checkpoint import Checkpoint
from autolambda.merging.model_tree import auto_class
from autolambda.merging.pair import Pair


def load_model(pair: Pair, *, dtype: torch.dtype) -> Any:
    """Returns the pair's model with Thinking's weights, on the CPU. With a vision part, it is loaded whole.

    If only Instruct has an lm_head, the model has one without weights. Raises ``CheckpointError`` if transformers
    cannot make the model of its config, and ``EngineError`` if the files lack tensors.
    """
    folder = pair.thinking.folder
    with _without_bars(), _model_errors(pair.thinking):
        model, report = auto_class(pair.thinking).from_pretrained(
            folder,
            config=_config(pair),
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,  # if left out, transformers asks on the terminal
        )
    lent = tuple(pair.tensors.keys() - pair.thinking.tensors.keys())
    if missing := sorted(name for name in report["missing_keys"] if not name.endswith(lent)):
        raise EngineError(f"{folder}: {len(missing)} parameters are missing in its files, the first is '{missing[0]}'")
    return model


def load_checkpoint(checkpoint: Checkpoint) -> Any:
    """Returns a checkpoint's model in its own dtype, on the CPU. Raises ``CheckpointError`` like ``load_model``."""
    with _without_bars(), _model_errors(checkpoint):
        return auto_class(checkpoint).from_pretrained(
            checkpoint.folder, dtype="auto", use_safetensors=True, trust_remote_code=False
        )


def _config(pair: Pair) -> PretrainedConfig:
    config: PretrainedConfig = AutoConfig.from_pretrained(pair.thinking.folder, trust_remote_code=False)
    for part in (config, config.get_text_config(decoder=True)):
        part.tie_word_embeddings = pair.tied
    return config


@contextmanager
def _without_bars() -> Iterator[None]:
    shown = logging_of_transformers.is_progress_bar_enabled()
    logging_of_transformers.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped upstream
    try:
        yield
    finally:
        if shown:
            logging_of_transformers.enable_progress_bar()  # type: ignore[no-untyped-call]


def resolve_device(name: str) -> torch.device:
    """Returns the device of ``engine.device``; auto prefers CUDA. Raises ``ConfigError`` if it cannot be used."""
    try:
        device = torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"engine.device: '{name}' cannot be used ({reason(error)}); use auto, cpu or cuda") from error
    return device


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether an error says that the memory of a device is full."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def _model_errors(checkpoint: Checkpoint) -> Iterator[None]:
    """Turns any error of transformers over a config into a ``CheckpointError`` of one line."""
    try:
        yield
    except Exception as error:  # a wrong value can raise anything: types, keys, divisions, sizes
        if is_out_of_memory(error):
            raise
        raise CheckpointError(
            f"'{checkpoint.folder}': transformers cannot make the model of its config.json ({one_line(error)}); "
            "correct the config"
        ) from error
