"""A merge of opened models by a method: its tensors, and the arithmetic of each, in pieces or as a whole.

What an engine holds, a file gets and a second run computes comes from here, in the same pieces, so it has the same
bits. The merge ties lm_head where all its models do, and has the Thinking parent's config.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autolambda.errors import ConfigError, PairError
from autolambda.merging.arithmetic import (
    Pieces,
    interpolate,
    pieces_of,
    slerp,
    slerp_weights,
    task_arithmetic,
    ties,
    ties_limits,
)
from autolambda.merging.checkpoint import Checkpoint, open_checkpoint
from autolambda.merging.compatibility import compare_tensors, compare_tokenizers
from autolambda.merging.method import Method
from autolambda.merging.pair import Pair, read_tensor, untied_tensors
from autolambda.merging.shards import TensorInfo
from autolambda.schedule import Schedule

Arithmetic = Callable[..., Tensor]
"""A piece of each model -> the merge's piece, which may be one of them."""


@dataclass(frozen=True)
class Merge:
    """A method's models, checked against each other; ``tensors`` are the merge's, sorted by name."""

    pair: Pair
    method: Method
    base: Checkpoint | None
    tensors: Mapping[str, TensorInfo]
    tied: bool

    @property
    def models(self) -> dict[str, Checkpoint]:
        """By their roles, in the order in which ``arithmetic`` takes their pieces."""
        around = {"base": self.base} if self.base else {}
        return {**around, "instruct": self.pair.instruct, "thinking": self.pair.thinking}

    @property
    def config(self) -> dict[str, Any]:
        """The Thinking parent's config with the merge's tied flag."""
        return self.pair.config | {"tie_word_embeddings": self.tied}

    def lam_of(self, name: str) -> float:
        """lam of a parameter, for the methods that have one."""
        assert self.method.schedule is not None
        return self.pair.lam_of(name, self.method.schedule)

    def arithmetic(self, name: str, pieces: Pieces) -> Arithmetic:
        """How a tensor is made of its models' pieces; TIES and SLERP look at all of them first."""
        info = self.tensors[name]
        if self.method.name == "task_arithmetic":
            return task_arithmetic
        if self.method.name == "ties":
            if not info.dtype.is_floating_point or info.num_values == 0:
                return partial(ties, limits=(torch.zeros(()), torch.zeros(())))
            return partial(ties, limits=ties_limits(pieces, num_values=info.num_values))
        lam = self.lam_of(name)
        if lam in (0.0, 1.0) or not info.dtype.is_floating_point:
            return _thinking if lam == 1.0 else _instruct
        if self.method.name == "slerp":
            return partial(slerp, lam=lam, weights=slerp_weights(pieces, lam))
        return partial(interpolate, lam=lam)

    def shows_broken(self, name: str) -> bool:
        """Whether a NaN or an infinity in any model is one in the merge too, so that looking at that is enough."""
        linear = self.method.name == "linear" and self.tensors[name].dtype.is_floating_point
        return linear and 0.0 < self.lam_of(name) < 1.0

    def tensor(self, name: str) -> Tensor:
        """A tensor of the merge, in the checkpoint's dtype on the CPU; do not write into it."""
        models = [read_tensor(model, name) for model in self.models.values()]
        pieces = pieces_of(*models)
        make = self.arithmetic(name, pieces)
        made = [make(*piece) for piece in pieces()]
        return (torch.cat(made) if made else models[0]).view(models[0].shape)

    def tensors_by_name(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors, one at a time."""
        for name in self.tensors:
            yield name, self.tensor(name)


def open_merge(pair: Pair, method: Method | Schedule) -> Merge:
    """The merge of a pair, by a schedule or another method.

    A base's tensors and vocabulary must be the pair's; its config may be another. Raises ``CheckpointError`` for one
    that cannot be opened, ``PairError`` for one that does not fit.
    """
    if isinstance(method, Schedule):
        method = Method.linear(method)
    if method.base is None:
        return Merge(pair, method, None, pair.tensors, pair.tied)
    base = open_checkpoint(method.base)
    _check_base(base, pair)
    tied = pair.tied and base.tied
    return Merge(
        pair, method, base, pair.tensors if tied else dict(sorted(untied_tensors(pair.thinking).items())), tied
    )


def check_in_place(merge: Merge) -> None:
    """Raises ``ConfigError`` for a merge that an engine of its pair has no place for: a head where it ties none."""
    if merge.tied != merge.pair.tied:
        raise ConfigError(
            "models.base: the base model has an lm_head of its own, which both parents tie to the embedding, so that "
            "an engine of theirs has no place for it; leave the baseline out, or write it with 'autolambda merge'"
        )


def _instruct(instruct: Tensor, thinking: Tensor) -> Tensor:
    return instruct


def _thinking(instruct: Tensor, thinking: Tensor) -> Tensor:
    return thinking


def _check_base(base: Checkpoint, pair: Pair) -> None:
    """Raises ``PairError`` with every mismatch."""
    tied = pair.tied and base.tied
    tensors = (base.tensors, pair.tensors) if tied else (untied_tensors(base), untied_tensors(pair.thinking))
    findings = [
        *compare_tensors(tensors[0], thinking=tensors[1], num_layers=pair.num_layers, first_name="base"),
        *compare_tokenizers(base, thinking=pair.thinking, first_name="base"),
    ]
    if errors := [finding.text for finding in findings if finding.fatal]:
        lines = "\n".join(f"  - {text}" for text in errors)
        raise PairError(f"models.base: '{base.source}' is not the parents' base; choose one that agrees in:\n{lines}")
