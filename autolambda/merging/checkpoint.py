"""Opens one checkpoint, a folder or hub id with a config and safetensors shards, without trusting its content.

Opening reads the config and the headers of the shards; tensors are memory-mapped when they are read. No pickle is
loaded, no code of the author is run, no file outside the folder is read. A second copy of a tied lm_head is left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from autolambda.errors import CheckpointError, in_short, one_line, printable
from autolambda.files import load_json
from autolambda.merging.fingerprint import TensorHash, hash_files
from autolambda.merging.shards import TensorInfo, read_shard

BOOKKEEPING = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "auto_map", "use_cache")
"""Config keys that do not change what the model computes."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)
_HUB_FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer*", "vocab*", "merges.txt", "README.md", "LICENSE*")
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint. ``tensors`` is sorted by name; ``embedding`` is the name of the input embedding.

    ``tied`` says that lm_head is the embedding, so that ``tensors`` holds no lm_head.
    """

    source: str
    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    num_layers: int
    tied: bool
    embedding: str | None
    _files: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def read(self, name: str) -> Tensor:
        """Returns a memory-mapped tensor; do not write into it. Raises ``CheckpointError`` when the file fails."""
        file = self.tensors[name].file
        try:
            if file not in self._files:
                self._files[file] = safe_open(self.folder / file, framework="pt")
            tensor: Tensor = self._files[file].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"cannot read tensor '{name}' from '{self.folder / file}': {error}; download it again"
            ) from error
        return tensor

    def digest(self) -> str:
        """Returns the SHA-256 (hex) of the model: of each tensor's name, dtype, shape and bytes, and of the config.

        It does not depend on the sharding or on the ``BOOKKEEPING`` keys of the config. Reads every byte once. Raises
        ``CheckpointError`` with the names of the tensors that hold a NaN or an infinity.
        """
        return self.digest_of(hash_files(self.folder, self.tensors))

    def digest_of(self, hashes: Mapping[str, TensorHash]) -> str:
        """Returns the digest, given the hashes of all tensors. Raises the errors of ``digest``."""
        self.check_finite(hashes)
        behaviour = {key: value for key, value in self.config.items() if key not in BOOKKEEPING}
        total = hashlib.sha256(json.dumps(behaviour, sort_keys=True).encode())
        for name in self.tensors:
            total.update(hashes[name].digest())
        return total.hexdigest()

    def check_finite(self, hashes: Mapping[str, TensorHash]) -> None:
        """Raises ``CheckpointError`` with the names of the tensors that hold a NaN or an infinity."""
        if broken := sorted(name for name in self.tensors if not hashes[name].finite):
            shown = ", ".join(broken[:5]) + (f" and {len(broken) - 5} more" if len(broken) > 5 else "")
            raise CheckpointError(f"'{self.source}' holds NaN or infinite values in {shown}; use an intact checkpoint")

    @property
    def model_id(self) -> str | None:
        """The hub id, or ``None`` for a folder outside the hub's cache."""
        repository = self._snapshot.parent.parent.name if self._snapshot else ""
        return repository.removeprefix("models--").replace("--", "/") if repository.startswith("models--") else None

    @property
    def revision(self) -> str | None:
        """The commit on the hub, or ``None`` for a folder outside the hub's cache."""
        return self._snapshot.name if self._snapshot else None

    @property
    def name(self) -> str:
        """The name for cards and reports: the hub id, or the name of the folder without its path."""
        return self.model_id or self.folder.resolve().name

    @property
    def _snapshot(self) -> Path | None:
        folder = self.folder.resolve()
        return folder if folder.parent.name == "snapshots" else None


def open_checkpoint(source: str) -> Checkpoint:
    """Opens a local folder or a hub id, which is downloaded without pickles and code. Raises ``CheckpointError``."""
    folder = _folder(source)
    config = read_json(folder, "config.json")
    num_layers = config.get("num_hidden_layers")
    if type(num_layers) is not int or num_layers < 1:
        raise CheckpointError(
            f"num_hidden_layers in '{folder / 'config.json'}' is {num_layers!r:.60}; it must be a positive whole number"
        )
    tensors = _tensors(folder)
    embedding = next((name for name in tensors if name.endswith("embed_tokens.weight")), None)
    untied = Checkpoint(source, folder, config, tensors, num_layers, False, embedding)
    return _tie(untied)


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


def _folder(source: str) -> Path:
    path = Path(os.path.expanduser(source))
    if source and path.exists():
        if not path.is_dir():
            raise CheckpointError(f"'{source}' is a file; give the folder that holds config.json and the weights")
        return path
    if not _HUB_ID.fullmatch(source) or ".." in source:
        raise CheckpointError(f"no folder '{source}'; give an existing folder or a hub id such as Qwen/Qwen3-4B")
    from huggingface_hub import snapshot_download  # slow to import, and not needed for folders

    try:
        # without subfolders, which hold the weights in other formats
        return Path(snapshot_download(source, allow_patterns=[*_HUB_FILES], ignore_patterns=["*/*"]))
    except Exception as error:  # the client raises the errors of several libraries, with no common base
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(
            f"no folder '{source}', and it could not be fetched from the hub ({reason}); check the name, the network "
            "and, for a gated model, your login"
        ) from error


def _tensors(folder: Path) -> dict[str, TensorInfo]:
    """Returns every tensor of the checkpoint, sorted by name and checked against the index."""
    if find_file(folder, _SINGLE):
        tensors = read_shard(folder / _SINGLE)
    elif find_file(folder, _INDEX):
        tensors = _indexed(folder)
    elif any(folder.glob("*.bin")) or any(folder.glob("*.pth")):
        raise CheckpointError(
            f"'{folder}' holds pickled weights only, which can run code when loaded; convert it to safetensors"
        )
    else:
        raise CheckpointError(f"'{folder}' has no {_SINGLE} and no {_INDEX}; give the folder of a complete checkpoint")
    return dict(sorted(tensors.items()))


def _indexed(folder: Path) -> dict[str, TensorInfo]:
    weight_map = read_json(folder, _INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise CheckpointError(f"'{folder / _INDEX}' has no weight_map of tensor names to files; download it again")
    tensors: dict[str, TensorInfo] = {}
    for file in sorted(set(weight_map.values())):
        if not re.fullmatch(r"[\w.-]+\.safetensors", file):
            raise CheckpointError(
                f"'{folder / _INDEX}' names the shard {in_short(file)}, which is not a plain file name; "
                "download it again"
            )
        path = find_file(folder, file)
        if path is None:
            raise CheckpointError(f"shard '{file}' is listed in '{folder / _INDEX}' but missing; download it again")
        shard = read_shard(path)
        if twice := sorted(tensors.keys() & shard.keys()):
            name = in_short(twice[0])
            raise CheckpointError(f"tensor {name} is in '{tensors[twice[0]].file}' and in '{file}'; keep one")
        tensors |= shard
    for name in sorted(weight_map.keys() | tensors.keys()):
        listed, actual = weight_map.get(name, "no shard"), tensors[name].file if name in tensors else "no shard"
        if listed != actual:
            seen, listed = in_short(name), printable(str(listed))
            raise CheckpointError(
                f"tensor {seen} is in {actual}, but '{folder / _INDEX}' lists it in {listed}; download it again"
            )
    return tensors


def _tie(checkpoint: Checkpoint) -> Checkpoint:
    """Returns the checkpoint with its tied flag set and without a second copy of a tied lm_head."""
    flag, tensors = checkpoint.config.get("tie_word_embeddings"), dict(checkpoint.tensors)
    if flag is not None and not isinstance(flag, bool):
        raise CheckpointError(
            f"tie_word_embeddings in the config of '{checkpoint.source}' is {in_short(flag)}; it must be true or false"
        )
    head = next((name for name in tensors if re.fullmatch(r"(.*\.)?lm_head\.weight", name)), None)
    if flag is False and head is None:
        raise CheckpointError(
            f"'{checkpoint.source}' has no lm_head.weight, but its config says tie_word_embeddings false; correct one"
        )
    if flag and head:
        if checkpoint.embedding is None or not _same_bytes(checkpoint, head, checkpoint.embedding):
            raise CheckpointError(
                f"'{checkpoint.source}' stores a '{head}' that differs from its embedding, but its config says "
                "tie_word_embeddings true; correct one"
            )
        del tensors[head]
    return replace(checkpoint, tensors=tensors, tied=head is None if flag is None else bool(flag))


def _same_bytes(checkpoint: Checkpoint, one: str, other: str) -> bool:
    first, second = checkpoint.read(one), checkpoint.read(other)
    same_form = (first.dtype, first.shape) == (second.dtype, second.shape)
    return same_form and torch.equal(first.view(-1).view(torch.uint8), second.view(-1).view(torch.uint8))
