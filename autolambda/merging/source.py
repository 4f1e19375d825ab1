"""Finds the folder of a checkpoint, on the disk or on the hub, and reads its JSON files without trusting them.

No file outside the folder is read. Whatever is not a whole model in safetensors is named in one line: adapters, GGUF,
quantised weights.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autolambda.errors import CheckpointError, one_line, printable
from autolambda.files import load_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)
_HUB_FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer*", "vocab*", "merges.txt", "README.md", "LICENSE*")
_OTHER_FORMS = {
    "adapter_config.json": "is an adapter (LoRA), not a whole model; merge it into its base model, for example with "
    "PEFT's merge_and_unload(), and save the result",
    "*.gguf": "holds GGUF files, which cannot be merged; use the safetensors checkpoint from which they were made",
    "consolidated*": "holds consolidated weights only; use the files for transformers: config.json with "
    "model.safetensors, or convert them",
    "*.bin": "holds pickled weights only, which can run code when loaded; convert it to safetensors",
    "*.pth": "holds pickled weights only, which can run code when loaded; convert it to safetensors",
}


def check_form(folder: Path, source: str) -> None:
    """Raises ``CheckpointError`` if a folder holds weights in another form than a whole model in safetensors."""
    if find_file(folder, SINGLE) or find_file(folder, INDEX):
        return
    for pattern, form in _OTHER_FORMS.items():
        if any(folder.glob(pattern)):
            raise CheckpointError(f"'{source}' {form}")


def check_not_quantised(config: Mapping[str, Any], source: str) -> None:
    """Raises ``CheckpointError`` if the config, or a section of it, says that the weights are quantised."""
    for part in (config, *(each for each in config.values() if isinstance(each, dict))):
        if quantisation := part.get("quantization_config") or part.get("compression_config"):
            method = quantisation.get("quant_method") if isinstance(quantisation, dict) else None
            kind = f"{printable(str(method)[:40])}, " if method else ""
            raise CheckpointError(
                f"'{source}' is quantised ({kind}quantization_config); use the bfloat16 checkpoint from which it was "
                "made, or dequantise it with transformers and save it"
            )


def find_folder(source: str) -> Path:
    """Returns a local folder, or the folder of a downloaded hub id. Raises ``CheckpointError``."""
    path = Path(os.path.expanduser(source))
    if source and path.exists():
        if path.suffix == ".gguf":
            raise CheckpointError(f"'{source}' {_OTHER_FORMS['*.gguf'].replace('holds GGUF files', 'is a GGUF file')}")
        if not path.is_dir():
            raise CheckpointError(f"'{source}' is a file; give the folder that holds config.json and the weights")
        return path
    if not _HUB_ID.fullmatch(source) or ".." in source:
        raise CheckpointError(f"no folder '{source}'; give an existing folder or a hub id such as Qwen/Qwen3-4B")
    from huggingface_hub import snapshot_download  # slow to import, and not needed for folders

    try:
        # without subfolders, which hold the weights in other formats
        return Path(snapshot_download(source, allow_patterns=[*_HUB_FILES], ignore_patterns=["*/*", "consolidated*"]))
    except Exception as error:  # the client raises the errors of several libraries, with no common base
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(
            f"no folder '{source}', and it could not be fetched from the hub ({reason}); check the name, the network "
            "and, for a gated model, your login"
        ) from error


def find_file(folder: Path, name: str) -> Path | None:
    """Returns the path of a file in a checkpoint's folder, or ``None`` when it is missing.

    Raises ``CheckpointError`` for a link out of the folder. The hub cache's links into ``blobs`` are allowed.
    """
    path = folder / name
    if not os.path.lexists(path):
        return None
    root, target = folder.resolve(), path.resolve()
    from_cache = root.parent.name == "snapshots" and target.is_relative_to(root.parent.parent / "blobs")
    if not (target.is_relative_to(root) or from_cache):
        raise CheckpointError(f"'{path}' is a link out of its folder, to '{target}'; replace it by the file itself")
    return path if target.is_file() else None


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Reads a JSON object from a checkpoint's folder. Raises ``CheckpointError`` when it is missing or not valid."""
    path = find_file(folder, name)
    if path is None:
        raise CheckpointError(f"'{folder}' has no {name}; give the folder of a complete checkpoint")
    try:
        content = load_json(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read '{path}': {error.strerror}; check its permissions") from error
    except ValueError as error:
        raise CheckpointError(f"'{path}' is not valid JSON ({one_line(error)}); download it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"'{path}' holds a {type(content).__name__}, not a JSON object; download it again")
    return content


def read_json_if_any(folder: Path, name: str) -> dict[str, Any]:
    """Reads a JSON object like ``read_json``, but returns an empty one when the file is missing."""
    return read_json(folder, name) if find_file(folder, name) else {}
