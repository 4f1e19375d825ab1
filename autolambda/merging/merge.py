"""One merge of opened models by a method: its tensors, one at a time, and the arithmetic that makes each of them.

Engines, exported files and later runs all use this arithmetic, so they hold equal bits. A merge ties lm_head to the
embedding if all its models do. It has the Thinking parent's config.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autolambda.coefficients import Coefficients
from autolambda.errors import ConfigError, PairError, ScheduleError
from autolambda.merging.arithmetic import combine, slerp, task_arithmetic, ties
from autolambda.merging.checkpoint import Checkpoint, open_checkpoint
from autolambda.merging.kernels.sums import Pieces, pieces_of, regions_of, slerp_weights, ties_limits
from autolambda.merging.method import Method
from autolambda.merging.pair import Pair, compare_weights, with_tied_flag
from autolambda.merging.reading import Region, fitted, read_tensor, stored_name, untied_tensors
from autolambda.merging.rounding import Draws, matrix_shape
from autolambda.merging.shards import TensorInfo
from autolambda.schedule import Schedule

Arithmetic = Callable[..., Tensor]
"""Takes one piece of each model and the ``draws`` of its region, and returns the merge's piece.

It may return one of its arguments unchanged.
"""


_IN_WORDS = {"base": "the base model of both parents", "third": "a third parent"}


@dataclass(frozen=True)
class Merge:
    """A method with its models, which fit together. ``infos`` describes the merge's tensors, sorted by name."""

    pair: Pair
    method: Method
    base: Checkpoint | None
    infos: Mapping[str, TensorInfo]
    tied: bool

    @property
    def models(self) -> dict[str, Checkpoint]:
        """The models by role, in the order in which ``arithmetic`` takes their pieces."""
        parents = {"instruct": self.pair.instruct, "thinking": self.pair.thinking}
        if self.method.name != "linear":
            return ({"base": self.base} if self.base else {}) | parents
        assert self.method.schedule is not None
        return parents | {role: self.pair.further[role] for role in self.method.schedule.further}

    @property
    def config(self) -> dict[str, Any]:
        """The Thinking parent's config with the merge's tied flag."""
        return with_tied_flag(self.pair.config, self.tied)

    def coefficients_of(self, name: str) -> Coefficients:
        """Returns the coefficients of a parameter, for ``linear`` and ``slerp``."""
        assert self.method.schedule is not None
        return self.pair.coefficients_of(name, self.method.schedule)

    def read(self, role: str, name: str, index: Region = ()) -> Tensor:
        """Returns a model's tensor, or a region of it, in the merge's dtype and shape.

        Raises ``CheckpointError`` when the file fails.
        """
        tensor = read_tensor(self.models[role], name)
        return tensor[index] if self.fits(role, name) else fitted(tensor, read_tensor(self.pair.thinking, name), index)

    def fits(self, role: str, name: str) -> bool:
        """Returns whether a model stores a tensor in the merge's dtype and shape."""
        model, info = self.models[role], self.infos[name]
        stored = model.tensors[stored_name(model, name)]
        return (stored.dtype, stored.shape) == (info.dtype, info.shape)

    def arithmetic(self, name: str, pieces: Pieces) -> Arithmetic:
        """Returns the function that merges the pieces of a tensor. TIES and SLERP first read all ``pieces``."""
        info = self.infos[name]
        if (parent := self._copied(name)) is not None:
            return partial(_copy, index=[*self.models].index(parent))
        if self.method.name == "task_arithmetic":
            return task_arithmetic
        if self.method.name == "ties":
            if not info.dtype.is_floating_point or info.num_values == 0:
                return partial(ties, limits=(torch.zeros(()), torch.zeros(())))
            return partial(ties, limits=ties_limits(pieces, num_values=info.num_values))
        at = self.coefficients_of(name)
        if self.method.name == "slerp":
            return partial(slerp, lam=at.lam, weights=slerp_weights(pieces, at.lam))
        return partial(_combine, roles=tuple(self.models), at=at)

    def draws(self, name: str) -> Draws | None:
        """Returns the draws that round a tensor, or ``None`` if it is copied or rounded to nearest."""
        if self._copied(name) is not None:
            return None
        return self.pair.rounding.draws(name, self.infos[name].shape, self.infos[name].dtype)

    def shows_broken(self, name: str) -> bool:
        """Returns whether the merge is NaN or infinite wherever a model that it reads is, so only the merge is checked.

        That is true of the sums by ``linear``. It is false for a copy, which reads one model, and for other methods.
        """
        return self.method.name == "linear" and self._copied(name) is None

    def _copied(self, name: str) -> str | None:
        """The role of the model whose tensor the merge has, if it is one's.

        That is so outside the language model, and by ``linear`` and ``slerp`` at the ends and for integers.
        """
        if name in self.pair.outside:
            return self.pair.vision
        if self.method.schedule is None:
            return None
        copied = self.coefficients_of(name).copied
        return copied or (None if self.infos[name].dtype.is_floating_point else "instruct")

    def tensor(self, name: str) -> Tensor:
        """Returns a tensor of the merge, in the checkpoint's dtype on the CPU. Do not write into it."""
        models = [self.read(role, name) for role in self.models]
        if self.method.name == "linear":
            return combine(
                dict(zip(self.models, models, strict=True)), self.coefficients_of(name), draws=self.draws(name)
            )
        pieces, draws = pieces_of(*models), self.draws(name)  # float32 copies of whole tensors would take more memory
        make = self.arithmetic(name, pieces)
        merged = torch.empty(models[0].shape, dtype=models[0].dtype)
        matrix = merged.view(matrix_shape(merged.shape))
        for region, piece in zip(regions_of(merged.shape), pieces(), strict=True):
            matrix[region] = make(*piece, draws=draws and draws.part(*region))
        return merged

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yields each name with its tensor, one at a time."""
        for name in self.infos:
            yield name, self.tensor(name)


def _combine(*models: Tensor, roles: tuple[str, ...], at: Coefficients, draws: Draws | None) -> Tensor:
    return combine(dict(zip(roles, models, strict=True)), at, draws=draws)


def _copy(*models: Tensor, index: int, draws: Draws | None) -> Tensor:
    return models[index]


def open_merge(pair: Pair, method: Method | Schedule) -> Merge:
    """Returns the merge of a pair by a method; a schedule stands for the linear method.

    The base model needs the pair's tensors and vocabulary, but its config may differ. Raises ``CheckpointError`` when
    the base cannot be opened, ``PairError`` when it does not fit the pair, and ``ScheduleError`` when a schedule reads
    a model that the pair does not have.
    """
    if isinstance(method, Schedule):
        method = Method.linear(method)
    for role in method.further:
        if role not in pair.further:
            raise ScheduleError(f"the schedule '{method.schedule}' needs {_IN_WORDS[role]}; set models.{role}")
    if method.base is None:
        return Merge(pair, method, None, pair.tensors, pair.tied)
    base = open_checkpoint(method.base)
    _check_base(base, pair)
    tied = pair.tied and base.tied
    return Merge(
        pair, method, base, pair.tensors if tied else dict(sorted(untied_tensors(pair.thinking).items())), tied
    )


def check_in_place(merge: Merge) -> None:
    """Raises ``ConfigError`` when the pair's engine cannot hold the merge, because only the merge has an lm_head."""
    if merge.tied != merge.pair.tied:
        raise ConfigError(
            "models.base: the base model has an lm_head of its own, but both parents tie theirs to the embedding, so "
            "the engine has no place for it; leave the baseline out, or write it with 'autolambda merge'"
        )


def _check_base(base: Checkpoint, pair: Pair) -> None:
    """Raises ``PairError`` with every mismatch of the base and the pair."""
    tied = pair.tied and base.tied
    tensors = pair.tensors if tied else untied_tensors(pair.thinking)
    findings = compare_weights(base, pair.thinking, tensors, tied=tied, role="base")
    if errors := [finding.text for finding in findings if finding.fatal]:
        lines = "\n".join(f"  - {text}" for text in errors)
        raise PairError(f"models.base: '{base.source}' is not the parents' base; choose one that agrees in:\n{lines}")
