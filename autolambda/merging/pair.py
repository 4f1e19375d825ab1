"""The two parents as one thing: checked against each other, read tensor by tensor, merged as a stream.

A pair's tensors are those of the merge. Where both parents tie lm_head to the embedding, the merge does too; where
only one does, the merge is untied and the tied parent's lm_head is its embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autolambda.errors import PairError
from autolambda.merging.checkpoint import Checkpoint, open_checkpoint
from autolambda.merging.compatibility import Mismatch, compare_configs, compare_tensors, compare_tokenizers
from autolambda.merging.shards import TensorInfo
from autolambda.schedule import Schedule


@dataclass(frozen=True)
class Parents:
    """One parameter in both parents: equal shapes and dtypes, memory-mapped (do not write into them)."""

    instruct: Tensor
    thinking: Tensor


@dataclass(frozen=True)
class Pair:
    """Two checkpoints that fit together; ``tensors`` describes the merge's, sorted by name."""

    instruct: Checkpoint
    thinking: Checkpoint
    tensors: Mapping[str, TensorInfo]
    tied: bool
    warnings: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.tensors)

    @property
    def num_layers(self) -> int:
        return self.thinking.num_layers

    @property
    def num_parameters(self) -> int:
        return sum(info.num_values for info in self.tensors.values())

    @property
    def num_bytes(self) -> int:
        """Bytes of the merge's tensors."""
        return sum(info.num_bytes for info in self.tensors.values())

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of most values; a few tensors may have another."""
        counts: dict[torch.dtype, int] = {}
        for info in self.tensors.values():
            counts[info.dtype] = counts.get(info.dtype, 0) + info.num_values
        return max(counts, key=lambda dtype: counts[dtype])

    @property
    def config(self) -> dict[str, Any]:
        """The merge's config: the Thinking parent's with the tied flag set, and without its own code."""
        config = {key: value for key, value in self.thinking.config.items() if key not in ("auto_map", "_name_or_path")}
        return config | {"tie_word_embeddings": self.tied}

    def read(self, name: str) -> Parents:
        """A parameter of the merge in both parents. Raises ``CheckpointError`` where a file fails."""
        return Parents(read_tensor(self.instruct, name), read_tensor(self.thinking, name))

    def lam_of(self, name: str, schedule: Schedule) -> float:
        """lam of a parameter of this pair."""
        return schedule.lam_of(name, num_layers=self.num_layers)


def open_pair(instruct: str | Checkpoint, thinking: str | Checkpoint, *, across_configs: bool = False) -> Pair:
    """Opens both parents and checks that they can be merged.

    With ``across_configs`` settings such as rope's may differ: the merge computes with the Thinking parent's, and a
    warning says that its other end is not the model it was.
    Raises ``CheckpointError`` for one that cannot be opened, ``PairError`` with every mismatch, one a line.
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
        findings = [_bent(finding) if finding.one_end else finding for finding in findings]
    warnings = tuple(finding.text for finding in findings if not finding.fatal)
    pair = Pair(one, other, dict(sorted(tensors.items())), tied, warnings)
    errors = [finding.text for finding in findings if finding.fatal] or _unequal_integers(pair)
    if errors:
        lines = "\n".join(f"  - {text}" for text in errors)
        raise PairError(f"'{one.source}' and '{other.source}' cannot be merged; choose two that agree in:\n{lines}")
    return pair


def _bent(finding: Mismatch) -> Mismatch:
    text = f"{finding.text}; the merge computes with thinking's, so towards lambda 0 it is not the model it was"
    return Mismatch(text, fatal=False)


def untied_tensors(checkpoint: Checkpoint) -> Mapping[str, TensorInfo]:
    """The checkpoint's tensors with an lm_head, which is the embedding where it is tied."""
    if not checkpoint.tied or checkpoint.embedding is None:
        return checkpoint.tensors
    return {**checkpoint.tensors, _head_of(checkpoint.embedding): checkpoint.tensors[checkpoint.embedding]}


def _head_of(embedding: str) -> str:
    """The name of the lm_head that goes with an embedding's: beside the model, not in it."""
    return embedding.removesuffix("embed_tokens.weight").removesuffix("model.") + "lm_head.weight"


def stored_name(checkpoint: Checkpoint, name: str) -> str:
    """The name under which a tensor of ``untied_tensors`` is stored: the embedding's for a tied lm_head."""
    if checkpoint.tied and checkpoint.embedding is not None and name == _head_of(checkpoint.embedding):
        return checkpoint.embedding
    return name


def read_tensor(checkpoint: Checkpoint, name: str) -> Tensor:
    """A tensor of ``untied_tensors``, memory-mapped. Raises ``CheckpointError`` where the file fails."""
    return checkpoint.read(stored_name(checkpoint, name))


def _unequal_integers(pair: Pair) -> list[str]:
    errors = []
    for name, info in pair.tensors.items():
        if not info.dtype.is_floating_point:
            parents = pair.read(name)
            if not torch.equal(parents.instruct, parents.thinking):
                errors.append(f"{name}: {info} holds other integers in each parent, and integers have no mean")
    return errors
