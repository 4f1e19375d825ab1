"""The two parents, checked against each other, and what a merge may read beside them: a base model, a third parent.

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

from autolambda.coefficients import Coefficients
from autolambda.errors import PairError, ScheduleError
from autolambda.merging.checkpoint import TEXT_CONFIGS, Checkpoint, open_checkpoint
from autolambda.merging.compatibility import Mismatch, compare_configs, compare_tensors, without_lone_drafts
from autolambda.merging.method import Role
from autolambda.merging.modules import ModuleMap, module_map
from autolambda.merging.reading import read_tensor, tied_tensors, untied_tensors
from autolambda.merging.rounding import Rounding
from autolambda.merging.shards import TensorInfo
from autolambda.merging.tokenizer import compare_tokenizers, num_tokens
from autolambda.schedule import Location, Schedule


@dataclass(frozen=True)
class Pair:
    """Two checkpoints that fit together, and how their merges are rounded.

    ``tensors`` describes the tensors of a merge, sorted by name. ``vision`` is the parent whose tensors outside the
    language model every merge has. ``base`` is the base model of the parents and ``third`` a third parent, for
    schedules that read them.
    """

    instruct: Checkpoint
    thinking: Checkpoint
    tensors: Mapping[str, TensorInfo]
    tied: bool
    warnings: tuple[str, ...]
    rounding: Rounding = field(default_factory=Rounding)
    vision: Role = "thinking"
    base: Checkpoint | None = None
    third: Checkpoint | None = None

    @property
    def further(self) -> dict[str, Checkpoint]:
        """The base model and the third parent by role, as far as they are given."""
        return {role: model for role, model in (("base", self.base), ("third", self.third)) if model is not None}

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

    def coefficients_of(self, name: str, schedule: Schedule) -> Coefficients:
        """Returns the coefficients of a tensor: the schedule's, or those of the parent whose other parts are kept.

        Raises ``ScheduleError`` for a schedule that is not uniform, if the modules of this model are not known.
        """
        if name in self.outside:
            return Coefficients(1.0 if self.vision == "thinking" else 0.0)
        if schedule.coefficients is not None:
            return schedule.coefficients
        if self.modules.locations is None:
            raise ScheduleError(
                f"the layers and modules of '{self.thinking.source}' are not known: {self.modules.reason}; "
                "use a uniform lambda"
            )
        return schedule.at(self.modules.locations[name], num_layers=self.num_layers)

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


_COUNT = ("two", "three", "four")


def open_pair(
    instruct: str | Checkpoint,
    thinking: str | Checkpoint,
    *,
    base: str | None = None,
    third: str | None = None,
    across_configs: bool = False,
    rounding: Rounding = Rounding(),  # noqa: B008  # frozen
    vision: Role = "thinking",
) -> Pair:
    """Opens both parents, and the base model and the third parent if given, and checks that they can be merged.

    ``vision`` is the parent whose tensors outside the language model every merge has. If ``across_configs`` is true,
    settings such as rope's may differ. The merge then uses the Thinking parent's, and a warning says that at lambda 0
    it does not behave like the Instruct parent.

    Raises ``CheckpointError`` when a model cannot be opened, and ``PairError`` with every mismatch, one per line.
    """
    one = open_checkpoint(instruct) if isinstance(instruct, str) else instruct
    other = open_checkpoint(thinking) if isinstance(thinking, str) else thinking
    further = {role: open_checkpoint(source) for role, source in (("base", base), ("third", third)) if source}
    (one, lone), (other, lone_too) = (
        without_lone_drafts(one, other, role="instruct"),
        without_lone_drafts(other, one, role="thinking"),
    )
    tied = one.tied and other.tied
    others = other.tensors if tied else untied_tensors(other)
    findings = [
        *compare_configs(one, thinking=other),
        *lone,
        *lone_too,
        *compare_weights(one, other, others, tied=tied, role="instruct"),
    ]
    if one.tied != other.tied:
        owner = "instruct" if one.tied else "thinking"
        findings.append(Mismatch(f"only {owner} ties lm_head to its embedding; the merge is untied", fatal=False))
    for role, model in further.items():
        further[role], lone = without_lone_drafts(model, other, role=role)
        configs = compare_configs(model, thinking=other, first_name=role) if role == "third" else ()
        findings += [*lone, *configs, *compare_weights(further[role], other, others, tied=tied, role=role)]
        if tied and not model.tied:
            findings.append(Mismatch(f"{role} has an lm_head of its own, but the parents tie theirs to the embedding"))
    if across_configs:
        findings = [_as_warning(finding) if finding.one_end else finding for finding in findings]
    warnings = tuple(finding.text for finding in findings if not finding.fatal)
    pair = Pair(one, other, dict(sorted(others.items())), tied, warnings, rounding, vision, **further)
    errors = [finding.text for finding in findings if finding.fatal] or _unequal_integers(pair)
    if errors:
        lines = "\n".join(f"  - {text}" for text in errors)
        seen = ", ".join(f"'{model.source}'" for model in (one, *further.values()))
        raise PairError(
            f"{seen} and '{other.source}' cannot be merged; choose {_COUNT[len(further)]} that agree in:\n{lines}"
        )
    return pair


def compare_weights(
    model: Checkpoint, thinking: Checkpoint, tensors: Mapping[str, TensorInfo], *, tied: bool, role: str
) -> list[Mismatch]:
    """Returns the differences of a model's tensors and vocabulary from Thinking's, whose ``tensors`` the merge has."""
    own = tied_tensors(model) if tied else untied_tensors(model)
    alike = all(own[name].shape == tensors[name].shape for name in own.keys() & tensors.keys())
    if role == "base" and alike:  # its config may differ
        padded, padding = frozenset[str](), list[Mismatch]()
    else:
        padded, padding = _padded(model, thinking, own, tensors, role=role)
    return [
        *padding,
        *compare_tensors(own, thinking=tensors, padded=padded, first_name=role),
        *compare_tokenizers(model, thinking=thinking, first_name=role),
    ]


def _as_warning(finding: Mismatch) -> Mismatch:
    text = f"{finding.text}; the merge uses thinking's, so near lambda 0 it does not behave like the other model"
    return Mismatch(text, fatal=False)


def _padded(
    one: Checkpoint,
    other: Checkpoint,
    tensors: Mapping[str, TensorInfo],
    others: Mapping[str, TensorInfo],
    *,
    role: str,
) -> tuple[frozenset[str], list[Mismatch]]:
    """Returns the tensors with a row for each token that differ in their padding rows only, and what to say of it.

    Embeddings have more rows than the tokenizer has tokens. Those rows are never used.
    """
    sizes = [int(checkpoint.text_config.get("vocab_size") or 0) for checkpoint in (one, other)]
    if sizes[0] == sizes[1]:
        return frozenset(), []
    text = f"config 'vocab_size': {role} {sizes[0]}, thinking {sizes[1]}"
    needed = [num_tokens(checkpoint.folder) for checkpoint in (one, other)]
    rows = {
        name for name in tensors.keys() & others.keys() if [*tensors[name].shape[:1], *others[name].shape[:1]] == sizes
    }
    if not rows or any(number is None or number > min(sizes) for number in needed):
        return frozenset(), [Mismatch(text)]
    return frozenset(rows), [Mismatch(f"{text}; only padding rows differ, the merge has thinking's", fatal=False)]


def _unequal_integers(pair: Pair) -> list[str]:
    integers = {name: info for name, info in pair.tensors.items() if not info.dtype.is_floating_point}
    return [
        f"{name}: {info} holds different integers in the parents, and integers cannot be merged"
        for name, info in integers.items()
        for model in (pair.instruct, *pair.further.values())
        if not torch.equal(read_tensor(model, name), read_tensor(pair.thinking, name))
    ]
