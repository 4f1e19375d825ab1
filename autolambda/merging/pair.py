"""The two parents, checked against each other and read tensor by tensor.

``Pair.tensors`` describes the tensors of the merge. The merge ties lm_head to the embedding if both parents do. If only
one parent does, the merge is untied, and the embedding serves as that parent's lm_head.

The merge has the Thinking parent's dtypes and rows, to which other tensors are ``fitted`` when they are read. Tensors
outside the language model, such as a vision tower's, are those of one parent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from autolambda.errors import CheckpointError, PairError, ScheduleError
from autolambda.merging.checkpoint import TEXT_CONFIGS, Checkpoint, open_checkpoint
from autolambda.merging.compatibility import Mismatch, compare_configs, compare_tensors, without_lone_drafts
from autolambda.merging.fingerprint import is_finite
from autolambda.merging.method import Role
from autolambda.merging.modules import ModuleMap, module_map
from autolambda.merging.rounding import Rounding
from autolambda.merging.shards import TensorInfo
from autolambda.merging.tokenizer import compare_tokenizers, num_tokens
from autolambda.schedule import Location, Schedule

Region = tuple[slice, ...]
"""The slices of a tensor's first dimensions; empty for the whole tensor."""


@dataclass(frozen=True)
class Pair:
    """Two checkpoints that fit together, and how their merges are rounded.

    ``tensors`` describes the tensors of a merge, sorted by name. ``vision`` is the parent whose tensors outside the
    language model every merge has.
    """

    instruct: Checkpoint
    thinking: Checkpoint
    tensors: Mapping[str, TensorInfo]
    tied: bool
    warnings: tuple[str, ...]
    rounding: Rounding = field(default_factory=Rounding)
    vision: Role = "thinking"

    @cached_property
    def modules(self) -> ModuleMap:
        """The place of each tensor in the model; takes seconds for layouts other than Llama's."""
        found = module_map(self.thinking)
        if found.locations is not None and (head := self.tensors.keys() - self.thinking.tensors.keys()):
            return replace(found, locations={**found.locations, **dict.fromkeys(head, Location(None, "other"))})
        return found

    @cached_property
    def outside(self) -> frozenset[str]:
        """The tensors that are no part of the language model, such as a vision tower's.

        Raises ``PairError`` if they are not known.
        """
        outside = self.modules.outside if self.thinking.is_nested else frozenset()
        if outside is None:
            raise PairError(
                f"the language part of '{self.thinking.source}' cannot be told from its other parts: "
                f"{self.modules.reason}; merge the language models alone"
            )
        return outside

    def lam_of(self, name: str, schedule: Schedule) -> float:
        """Returns lam of a tensor: the schedule's, or the end at which a tensor outside the language model stays.

        Raises ``ScheduleError`` for a schedule that is not uniform, if the modules of this model are not known.
        """
        if name in self.outside:
            return 1.0 if self.vision == "thinking" else 0.0
        if schedule.lam is not None:
            return schedule.lam
        if self.modules.locations is None:
            raise ScheduleError(
                f"the layers and modules of '{self.thinking.source}' are not known: {self.modules.reason}; "
                "use a uniform lambda"
            )
        return schedule.lam_at(self.modules.locations[name], num_layers=self.num_layers)

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
        return with_tied_flag(config, self.tied)


def with_tied_flag(config: Mapping[str, Any], tied: bool) -> dict[str, Any]:
    """Returns a config with the tied flag, which nested configs have twice."""
    nested = {
        key: {**part, "tie_word_embeddings": tied}
        for key, part in config.items()
        if isinstance(part, dict) and "tie_word_embeddings" in part and key in TEXT_CONFIGS
    }
    return {**config, **nested, "tie_word_embeddings": tied}


def open_pair(
    instruct: str | Checkpoint,
    thinking: str | Checkpoint,
    *,
    across_configs: bool = False,
    rounding: Rounding = Rounding(),  # noqa: B008  # frozen
    vision: Role = "thinking",
) -> Pair:
    """Opens both parents and checks that they can be merged.

    ``vision`` is the parent whose tensors outside the language model every merge has. If ``across_configs`` is true,
    settings such as rope's may differ. The merge then uses the Thinking parent's, and a warning says that at lambda 0
    it does not behave like the Instruct parent.

    Raises ``CheckpointError`` when a parent cannot be opened, and ``PairError`` with every mismatch, one per line.
    """
    one = open_checkpoint(instruct) if isinstance(instruct, str) else instruct
    other = open_checkpoint(thinking) if isinstance(thinking, str) else thinking
    (one, lone), (other, lone_too) = (
        without_lone_drafts(one, other, role="instruct"),
        without_lone_drafts(other, one, role="thinking"),
    )
    tied = one.tied and other.tied
    tensors, others = (untied_tensors(one), untied_tensors(other)) if not tied else (one.tensors, other.tensors)
    padded, padding = _padded(one, other, tensors, others)
    findings = [
        *compare_configs(one, thinking=other),
        *padding,
        *lone,
        *lone_too,
        *compare_tensors(tensors, thinking=others, padded=padded),
        *compare_tokenizers(one, thinking=other),
    ]
    if one.tied != other.tied:
        owner = "instruct" if one.tied else "thinking"
        findings.append(Mismatch(f"only {owner} ties lm_head to its embedding; the merge is untied", fatal=False))
    if across_configs:
        findings = [_as_warning(finding) if finding.one_end else finding for finding in findings]
    warnings = tuple(finding.text for finding in findings if not finding.fatal)
    pair = Pair(one, other, dict(sorted(others.items())), tied, warnings, rounding, vision)
    errors = [finding.text for finding in findings if finding.fatal] or _unequal_integers(pair)
    if errors:
        lines = "\n".join(f"  - {text}" for text in errors)
        raise PairError(f"'{one.source}' and '{other.source}' cannot be merged; choose two that agree in:\n{lines}")
    return pair


def _as_warning(finding: Mismatch) -> Mismatch:
    text = f"{finding.text}; the merge uses thinking's, so near lambda 0 it does not behave like the other model"
    return Mismatch(text, fatal=False)


def _padded(
    one: Checkpoint, other: Checkpoint, tensors: Mapping[str, TensorInfo], others: Mapping[str, TensorInfo]
) -> tuple[frozenset[str], list[Mismatch]]:
    """Returns the tensors with a row for each token that differ in their padding rows only, and what to say of it.

    Embeddings have more rows than the tokenizer has tokens. Those rows are never used.
    """
    sizes = [int(checkpoint.text_config.get("vocab_size") or 0) for checkpoint in (one, other)]
    if sizes[0] == sizes[1]:
        return frozenset(), []
    text = f"config 'vocab_size': instruct {sizes[0]}, thinking {sizes[1]}"
    needed = [num_tokens(checkpoint.folder) for checkpoint in (one, other)]
    rows = {
        name for name in tensors.keys() & others.keys() if [*tensors[name].shape[:1], *others[name].shape[:1]] == sizes
    }
    if not rows or any(number is None or number > min(sizes) for number in needed):
        return frozenset(), [Mismatch(text)]
    return frozenset(rows), [Mismatch(f"{text}; only padding rows differ, the merge has thinking's", fatal=False)]


def untied_tensors(checkpoint: Checkpoint) -> Mapping[str, TensorInfo]:
    """Returns the checkpoint's tensors with an lm_head; if lm_head is tied, its entry is the embedding's."""
    if not checkpoint.tied or checkpoint.embedding is None:
        return checkpoint.tensors
    return {**checkpoint.tensors, _head_of(checkpoint.embedding): checkpoint.tensors[checkpoint.embedding]}


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


def _unequal_integers(pair: Pair) -> list[str]:
    integers = {name: info for name, info in pair.tensors.items() if not info.dtype.is_floating_point}
    return [
        f"{name}: {info} holds different integers in the parents, and integers cannot be merged"
        for name, info in integers.items()
        if not torch.equal(read_tensor(pair.instruct, name), read_tensor(pair.thinking, name))
    ]
