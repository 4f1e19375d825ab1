"""The first check of all: paths on the command line that are not there. It imports nothing that takes time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from autolambda.errors import CheckpointError, ConfigError, OutputError, TaskError

_ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".ndjson", ".parquet", ".jsonl.gz", ".csv.gz", ".json.gz")


def check_paths(models: Sequence[str | None], tasks: Sequence[str], config: str | os.PathLike[str] | None) -> None:
    """Raises ``InputError`` for a model, a task or a config that can only be a path, and that is missing.

    What may be a hub id or a benchmark's name is looked up later.
    """
    if config is not None and not os.path.exists(os.path.expanduser(config)):
        raise ConfigError(f"config file '{config}' cannot be read: No such file or directory")
    for text in tasks:
        if (_is_path(text) or text.lower().endswith(_ENDINGS)) and not os.path.exists(os.path.expanduser(text)):
            raise TaskError(f"task file '{text}' does not exist")
    for model in models:
        if model is not None and _is_path(model) and not os.path.exists(os.path.expanduser(model)):
            raise CheckpointError(f"no folder '{model}'; give an existing folder or a hub id such as Qwen/Qwen3-4B")


def check_writable(path: Path, *, force: bool) -> None:
    """Raises ``OutputError`` if the file exists, unless ``force``."""
    if os.path.lexists(path) and not force:
        raise OutputError(f"'{path.name}' exists already; edit it, or write a new one with --force")


def _is_path(text: str) -> bool:
    return text.startswith((".", "/", "~")) or text.count("/") > 1
