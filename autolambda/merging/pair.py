"""The two parents, checked against each other and read tensor by tensor.

``Pair.tensors`` describes the tensors of the merge. The merge ties lm_head to the embedding if both parents do. If only
one parent does, the merge is untied, and the embedding serves as that parent's lm_head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from autolambda.errors import PairError
from autolambda.merging.checkpoint import Checkpoint, open_checkpoint
from autolambda.merging.compatibility import Mismatch, compare_configs, compare_tensors, compare_tokenizers
from autolambda.merging.rounding import Rounding
from autolambda.merging.shards import TensorInfo


@dataclass(frozen=True)
class Pair:
    """Two checkpoints that fit together, and how their merges are rounded.

    ``tensors`` describes the tensors of a merge, sorted by name.
    """

    instruct: Checkpoint
    thinking: Checkpoint
    tensors: Mapping[str, TensorInfo]
    tied: bool
    warnings: tuple[str, ...]
    rounding: Rounding = field(default_factory=Rounding)

    @property
    def num_layers(self) -> int:
        return self.thinking.num_layers

    @property
    def num_parameters(self) -> int:
        return sum(info.num_values for info in self.tensors.values())

    @property
    def num_bytes(self) -> int:
        """The bytes of all tensors of the merge."""
        return sum(info.num_bytes for info in self.tensors.values())

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of most values; some tensors may have another one."""
        counts: dict[torch.dtype, int] = {}
        for info in self.tensors.values():
            counts[info.dtype] = counts.get(info.dtype, 0) + info.num_values
        return max(counts, key=lambda dtype: counts[dtype])

    @property
    def config(self) -> dict[str, Any]:
        """The config of the merge: the Thinking parent's with the tied flag set, without references to code."""
        config = {key: value for key, value in self.thinking.config.items() if key not in ("auto_map", "_name_or_path")}
        return config | {"tie_word_embeddings": self.tied}


def open_pair(
    instruct: str | Checkpoint,
    thinking: str | Checkpoint,
    *,
    across_configs: bool = False,
    rounding: Rounding = Rounding(),  # noqa: B008  # frozen
) -> Pair:
    """Opens both parents and checks that they can be merged.

    If ``across_configs`` is true, settings such as rope's may differ. The merge then uses the Thinking parent's, and a
    warning says that at lambda 0 it does not behave like the Instruct parent.
    Raises ``CheckpointError`` when a parent cannot be opened, and ``PairError`` with every mismatch, one per line.
    """
    one = open_checkpoint(instruct) if isinstance(instruct, str) else instruct
    other = open_checkpoint(thinking) if isinstance(thinking, str) else thinking
    tied = one.tied and other.tied
    tensors, others = (untied_tensors(one), untied_tensors(other)) if not tied else (one.tensors, other.tensors)
    findings = [
        *compare_configs(one, thinking=other),
        *compare_tensors(tensors, thinking=others, num_layers=other.num_layers),
        *compare_tokenizers(one, thinking=other),
    ]
    if one.tied != other.tied:
        owner = "instruct" if one.tied else "thinking"
        findings.append(Mismatch(f"only {owner} ties lm_head to its embedding; the merge is untied", fatal=False))
    if across_configs:
        findings = [_as_warning(finding) if finding.one_end else finding for finding in findings]
    warnings = tuple(finding.text for finding in findings if not finding.fatal)
    pair = Pair(one, other, dict(sorted(tensors.items())), tied, warnings, rounding)
    errors = [finding.text for finding in findings if finding.fatal] or _unequal_integers(pair)
    if errors:
        lines = "\n".join(f"  - {text}" for text in errors)
        raise PairError(f"'{one.source}' and '{other.source}' cannot be merged; choose two that agree in:\n{lines}")
    return pair


def _as_warning(finding: Mismatch) -> Mismatch:
    text = f"{finding.text}; the merge uses thinking's, so near lambda 0 it does not behave like the other model"
    return Mismatch(text, fatal=False)


def untied_tensors(checkpoint: Checkpoint) -> Mapping[str, TensorInfo]:
    """Returns the checkpoint's tensors with an lm_head; if lm_head is tied, its entry is the embedding's."""
    if not checkpoint.tied or checkpoint.embedding is None:
        return checkpoint.tensors
    return {**checkpoint.tensors, _head_of(checkpoint.embedding): checkpoint.tensors[checkpoint.embedding]}


def _head_of(embedding: str) -> str:
    """Returns the name of the lm_head that belongs to an embedding; it has no ``model.`` prefix."""
    return embedding.removesuffix("embed_tokens.weight").removesuffix("model.") + "lm_head.weight"


def stored_name(checkpoint: Checkpoint, name: str) -> str:
    """Returns the name under which a tensor of ``untied_tensors`` is stored; for a tied lm_head, the embedding's."""
    if checkpoint.tied and checkpoint.embedding is not None and name == _head_of(checkpoint.embedding):
        return checkpoint.embedding
    return name


def read_tensor(checkpoint: Checkpoint, name: str) -> Tensor:
    """Reads a tensor of ``untied_tensors``, memory-mapped. Raises ``CheckpointError`` when the file fails."""
    return checkpoint.read(stored_name(checkpoint, name))


def _unequal_integers(pair: Pair) -> list[str]:
    integers = {name: info for name, info in pair.tensors.items() if not info.dtype.is_floating_point}
    return [
        f"{name}: {info} holds different integers in the parents, and integers cannot be merged"
        for name, info in integers.items()
        if not torch.equal(read_tensor(pair.instruct, name), read_tensor(pair.thinking, name))
    ]
