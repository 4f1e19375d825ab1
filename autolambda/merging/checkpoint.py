"""Opens one checkpoint, a folder or hub id with a config and safetensors shards, without trusting its content.

Opening reads the config and the headers of the shards; tensors are memory-mapped when they are read. No pickle is
loaded, no code of the author is run, no file outside the folder is read. A second copy of a tied lm_head is left out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from autolambda.errors import CheckpointError, in_short, printable
from autolambda.merging.fingerprint import TensorHash, hash_files, same_bits
from autolambda.merging.shards import TensorInfo, read_shard
from autolambda.merging.source import INDEX, SINGLE, check_form, check_not_quantised, find_file, find_folder, read_json

BOOKKEEPING = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "auto_map", "use_cache")
"""Config keys that do not change what the model computes."""

TEXT_CONFIGS = ("text_config", "llm_config", "language_config")
_OTHER_CONFIGS = ("vision_config", "audio_config")
_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_LAYER = re.compile(r"(?:.*\.)?(?:layers|h|blocks)\.(\d{1,6})\..+")
HEAD = re.compile(r"(?:[a-z_]+\.){0,2}(?:lm_head|embed_out|output|output_layer)\.weight|head\.weight")
_EMBEDDING = re.compile(
    r"(?:[a-z_]+\.){0,3}(?:embed_tokens|wte|word_embeddings|embed_in|embeddings|embedding|tok_embeddings)\.weight"
)


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

    @property
    def text_config(self) -> Mapping[str, Any]:
        """The config of the language model: a section of the config if the model has other parts too."""
        return next((part for key in TEXT_CONFIGS if isinstance(part := self.config.get(key), dict)), self.config)

    @property
    def is_nested(self) -> bool:
        """Whether the model has parts beside its language model, such as a vision tower."""
        return self.text_config is not self.config or any(self.config.get(key) for key in _OTHER_CONFIGS)

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

        It does not depend on the sharding or on the ``BOOKKEEPING`` keys of the config. The first call reads
        every byte. Raises ``CheckpointError`` with the names of the tensors that hold a NaN or an infinity.
        """
        return self._digest

    @cached_property
    def _digest(self) -> str:
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
    folder = find_folder(source)
    check_form(folder, source)
    config = read_json(folder, "config.json")
    check_not_quantised(config, source)
    tensors = _tensors(folder)
    embedding = next((name for name in tensors if _EMBEDDING.fullmatch(name)), None)
    untied = Checkpoint(source, folder, config, tensors, 0, False, embedding)
    return _tie(replace(untied, num_layers=_num_layers(untied)))


def _num_layers(checkpoint: Checkpoint) -> int:
    """Returns the number of layers of the config, or of the tensors' names if the config leaves it out."""
    config = checkpoint.text_config
    key = next((key for key in _DEPTHS if key in config), _DEPTHS[0])
    found = config.get(key)
    if key not in config and "model_type" in checkpoint.config:
        numbers = [int(match[1]) for name in checkpoint.tensors if (match := _LAYER.fullmatch(name))]
        found = max(numbers, default=-1) + 1
    if type(found) is not int or found < 1:
        path = checkpoint.folder / "config.json"
        raise CheckpointError(f"{key} in '{path}' is {found!r:.60}; it must be a positive whole number")
    return found


def _tensors(folder: Path) -> dict[str, TensorInfo]:
    """Returns every tensor of the checkpoint, sorted by name and checked against the index."""
    if find_file(folder, SINGLE):
        tensors = read_shard(folder / SINGLE)
    elif find_file(folder, INDEX):
        tensors = _indexed(folder)
    else:
        raise CheckpointError(f"'{folder}' has no {SINGLE} and no {INDEX}; give the folder of a complete checkpoint")
    return dict(sorted(tensors.items()))


def _indexed(folder: Path) -> dict[str, TensorInfo]:
    weight_map = read_json(folder, INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise CheckpointError(f"'{folder / INDEX}' has no weight_map of tensor names to files; download it again")
    tensors: dict[str, TensorInfo] = {}
    for file in sorted(set(weight_map.values())):
        if not re.fullmatch(r"[\w.-]+\.safetensors", file):
            raise CheckpointError(
                f"'{folder / INDEX}' names the shard {in_short(file)}, which is not a plain file name; "
                "download it again"
            )
        path = find_file(folder, file)
        if path is None:
            raise CheckpointError(f"shard '{file}' is listed in '{folder / INDEX}' but missing; download it again")
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
                f"tensor {seen} is in {actual}, but '{folder / INDEX}' lists it in {listed}; download it again"
            )
    return tensors


def _tie(checkpoint: Checkpoint) -> Checkpoint:
    """Returns the checkpoint with its tied flag set and without a second copy of a tied lm_head."""
    flags, tensors = _tied_flags(checkpoint), dict(checkpoint.tensors)
    head = next((name for name in tensors if HEAD.fullmatch(name)), None)
    if flags == {False} and head is None:
        raise CheckpointError(
            f"'{checkpoint.source}' has no lm_head.weight, but its config says tie_word_embeddings false; correct one"
        )
    if flags == {True} and head:
        if checkpoint.embedding is None or not _same_bytes(checkpoint, head, checkpoint.embedding):
            raise CheckpointError(
                f"'{checkpoint.source}' stores a '{head}' that differs from its embedding, but its config says "
                "tie_word_embeddings true; correct one"
            )
        del tensors[head]
    return replace(checkpoint, tensors=tensors, tied=flags == {True} or (flags != {False} and head is None))


def _tied_flags(checkpoint: Checkpoint) -> set[bool]:
    """Returns the values of tie_word_embeddings in the config and in its part of the language model."""
    found = [config.get("tie_word_embeddings") for config in (checkpoint.config, checkpoint.text_config)]
    for flag in found:
        if flag is not None and not isinstance(flag, bool):
            raise CheckpointError(
                f"tie_word_embeddings in the config of '{checkpoint.source}' is {in_short(flag)}; "
                "it must be true or false"
            )
    return {flag for flag in found if flag is not None}


def _same_bytes(checkpoint: Checkpoint, one: str, other: str) -> bool:
    first, second = checkpoint.read(one), checkpoint.read(other)
    same_form = (first.dtype, first.shape) == (second.dtype, second.shape)
    return same_form and same_bits(first, second)
