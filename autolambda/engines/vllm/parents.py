"""The parents in one vLLM worker, and their merge in its live parameters, by one of two paths.

*direct*: vLLM's loader loads each model once, and copies keep the engine's layout. A merge writes into the live
parameters in place, so CUDA graphs stay valid.

*stream*: vLLM's loader loads each merge as checkpoint tensors, and repacks and quantises them. It works for every
layout, and is the reference for the direct path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from autolambda.engines.base import Fingerprint
from autolambda.engines.dtype import check_dtypes
from autolambda.engines.vllm.expected import arithmetic_of, expected, of_matrix, rows_of
from autolambda.engines.vllm.layout import LiveParameter, Part
from autolambda.engines.vllm.snapshot import ParentMemory, allocate
from autolambda.merging.arithmetic import combine
from autolambda.merging.fingerprint import digest_of_shares, digest_of_tensors, same_bits
from autolambda.merging.kernels.formula import roles_of
from autolambda.merging.merge import Merge, open_merge
from autolambda.merging.pair import Pair
from autolambda.merging.rounding import Draws, matrix_shape
from autolambda.schedule import Schedule

MergePath = Literal["direct", "stream"]
Load = Callable[[Iterator[tuple[str, Tensor]]], None]

_ALONE = {
    "instruct": Schedule.uniform(0.0),
    "thinking": Schedule.uniform(1.0),
    "base": Schedule.uniform(0.0).beyond(scale=0.0),
    "third": Schedule.uniform(0.0).beyond(third=1.0),
}
"""The schedules whose merge is one of the models."""

NUM_PICKS = 4  # rows of each tensor that are compared after a merge
NUM_EXPERTS = 8  # experts of each layer that are compared after a merge, drawn anew each time


class LiveParents:
    """Merges a pair into the live parameters of one worker and compares them with the files."""

    def __init__(
        self,
        pair: Pair,
        parameters: Mapping[str, LiveParameter],
        *,
        load: Load,
        path: MergePath,
        memory: ParentMemory,
        holds_further: bool = True,
    ) -> None:
        """Copies both parents into ``memory`` for the direct path, and if ``holds_further`` the further models too.

        Raises ``EngineError`` if vLLM holds a tensor in a narrower dtype than the merge's files.
        """
        check_dtypes(_dtypes(parameters), pair)
        self.pair = pair
        self._parameters, self._load = parameters, load
        self._snapshots: dict[str, dict[str, Tensor]] = {}
        self._draws: dict[str, Draws] = {}
        self._generator = torch.Generator().manual_seed(0)
        self._merge: Merge | None = None
        if path == "direct":
            roles = ("instruct", "thinking", *(pair.further if holds_further else ()))
            self._snapshots = {role: self._snapshot(open_merge(pair, _ALONE[role]), memory) for role in roles}
            self._draws = {name: found for name, each in parameters.items() if (found := _draws_of(each, pair))}

    @torch.no_grad()
    def merge(self, merge: Merge) -> None:
        """Sets every live parameter to the merge: float32 arithmetic, rounded once by the pair's rounding.

        The linear merge uses the models in memory. Other methods and models read the files. So do parameters of tensors
        with several lambdas, parameters that are a function of a tensor, and a CPU kernel that orders experts anew.
        """
        self._merge = merge
        if not self._snapshots:
            self._stream(merge)
            return
        is_linear = merge.method.name == "linear"
        for name, parameter in self._parameters.items():
            points = {merge.coefficients_of(part.tensor) for part in parameter.parts} if is_linear else set()
            held = all(role in self._snapshots for point in points for role in roles_of(point))
            if len(points) != 1 or not held or parameter.reordered or parameter.derived:
                self._write(parameter, merge)
                continue
            models = {role: snapshot[name] for role, snapshot in self._snapshots.items()}
            combine(models, points.pop(), out=parameter.live.data, draws=self._draws.get(name))

    @torch.no_grad()
    def compare(self, merge: Merge, *, whole: bool) -> list[str]:
        """Returns the checkpoint tensors whose live values differ from the merge of the files, sorted by name.

        If ``whole`` is true, compares every value, else a sample of the rows. Quantised parameters are left out,
        because vLLM has rounded their values.
        """
        found = {
            part.tensor
            for parameter in self._parameters.values()
            if not parameter.quantised
            for part in self._sampled(parameter, whole)
            if not self._holds(parameter, part, merge, whole)
        }
        return sorted(found)

    @torch.no_grad()
    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yields the live values by checkpoint name, in the checkpoint's dtype: this rank's shard of each tensor.

        A quantised parameter is yielded unchanged, under the name of its first tensor.
        """
        for parameter in self._parameters.values():
            if parameter.quantised:
                yield parameter.parts[0].tensor, parameter.live
                continue
            for name in dict.fromkeys(part.tensor for part in parameter.parts):
                # a tensor that is fused in the files lies in several parts of rows
                parts = [self._in_files(parameter, part) for part in parameter.parts if part.tensor == name]
                yield name, torch.cat(parts) if len(parts) > 1 else parts[0]

    @torch.no_grad()
    def fingerprint(self) -> Fingerprint:
        """Hashes the live values; tensors without a place, as merges of the files.

        ``whole`` is true if this rank holds every other tensor whole and unmodified.
        """
        infos, merge = self.pair.tensors, self._merge
        held = list(self.tensors())
        tensors = {name: tensor for name, tensor in held if tuple(tensor.shape) == infos[name].shape}
        plain = all(parameter.plain for parameter in self._parameters.values())
        if merge is None or not plain or tensors.keys() != infos.keys() - set(self.missing()):
            return Fingerprint(digest_of_shares(sorted(held, key=lambda item: item[0])), whole=False)
        tensors |= {name: merge.tensor(name) for name in self.missing()}
        return Fingerprint(digest_of_tensors(tensors, infos), whole=True)

    def _in_files(self, parameter: LiveParameter, part: Part) -> Tensor:
        """Returns a part's values in the checkpoint's dtype.

        They cannot be computed from a function of them, so then they are the merge's, if the live ones follow from it.
        """
        live = parameter.read(part)
        if part.negative_exp and self._merge is not None:
            values = expected(self._merge, part, arithmetic_of(self._merge, part.tensor), device=live.device)
            if same_bits(live, part.in_engine(values).to(live.device, live.dtype)):
                return values
        return live.to(self.pair.tensors[part.tensor].dtype)

    def num_quantised(self) -> int:
        """Returns the number of checkpoint tensors that vLLM has quantised."""
        return sum(len(parameter.parts) for parameter in self._parameters.values() if parameter.quantised)

    def missing(self) -> list[str]:
        """Returns the checkpoint tensors that this rank does not hold."""
        held = {part.tensor for parameter in self._parameters.values() for part in parameter.parts}
        return [name for name in self.pair.tensors if name not in held]

    def _stream(self, merge: Merge) -> None:
        """Sends a merge through vLLM's loader, and packs what the loader leaves unpacked."""
        self._load(merge.tensors())
        for parameter in self._parameters.values():
            parameter.repack()

    def _write(self, parameter: LiveParameter, merge: Merge) -> None:
        """Sets a parameter to the merge of the files, piece by piece."""
        for part in parameter.parts:
            if any(span.stop == span.start for span in part.source):  # this rank holds nothing but padding
                continue
            arithmetic = arithmetic_of(merge, part.tensor)
            for piece in [part] if parameter.reordered else rows_of(part):
                values = expected(merge, piece, arithmetic, device=parameter.live.device)
                parameter.write(piece, part.in_engine(values))

    def _snapshot(self, parent: Merge, memory: ParentMemory) -> dict[str, Tensor]:
        """Loads a model and copies it, in the engine's layout and the checkpoint's dtypes."""
        self._stream(parent)
        live = {name: parameter.live.data for name, parameter in self._parameters.items()}
        dtypes = {name: self.pair.tensors[param.parts[0].tensor].dtype for name, param in self._parameters.items()}
        empty = allocate(live, dtypes, memory)
        return {name: empty[name].copy_(tensor) for name, tensor in live.items()}

    def _sampled(self, parameter: LiveParameter, whole: bool) -> list[Part]:
        """Returns all parts of a parameter, or a sample of its experts."""
        if whole or len(parameter.parts) <= NUM_EXPERTS:
            return list(parameter.parts)
        order = torch.randperm(len(parameter.parts), generator=self._generator)[:NUM_EXPERTS]
        return [parameter.parts[i] for i in order.tolist()]

    def _holds(self, parameter: LiveParameter, part: Part, merge: Merge, whole: bool) -> bool:
        """Whether the live values of a part equal the merge, in full or in a sample of its rows (columns if packed)."""
        sizes = [span.stop - span.start for span in part.source]
        if 0 in sizes:  # this rank holds nothing but padding
            return True
        axis = parameter.axis if len(sizes) > 1 else 0
        picks = None
        if not whole and len(sizes) == 2 and sizes[axis] > NUM_PICKS:
            picks = torch.randint(sizes[axis], (NUM_PICKS,), generator=self._generator)
        arithmetic = arithmetic_of(merge, part.tensor)
        pieces = [part] if picks is not None or parameter.packed else rows_of(part)
        for piece in pieces:
            live = parameter.read(piece, picks)
            values = expected(merge, piece, arithmetic, axis=axis, picks=picks, device=live.device)
            wanted = part.in_engine(values).to(live.device, live.dtype)
            if not (torch.equal(live, wanted) if parameter.packed else same_bits(live, wanted)):
                return False
        return True


def _dtypes(parameters: Mapping[str, LiveParameter]) -> dict[str, torch.dtype]:
    """Returns the dtype of each tensor in the engine, but for quantised ones and functions of a tensor."""
    plain = [each for each in parameters.values() if not each.quantised and not each.derived]
    return {part.tensor: parameter.live.dtype for parameter in plain for part in parameter.parts}


def _draws_of(parameter: LiveParameter, pair: Pair) -> Draws | None:
    """Returns the draws of a parameter on its device, or ``None`` if it is rounded to nearest.

    A parameter is a stack of rows of checkpoint tensors, all of them with the same columns.
    """
    live = parameter.live
    rows = torch.ones((*live.shape[:-1], 1), dtype=torch.int32)
    columns = torch.ones(matrix_shape(live.shape)[1], dtype=torch.int32)  # padding is zero in both parents
    for part in parameter.parts:
        info = pair.tensors[part.tensor]
        draws = pair.rounding.draws(part.tensor, info.shape, info.dtype)
        if draws is None:
            return None
        draws = draws.part(*of_matrix(part, info))
        place = rows[part.index[: live.dim() - 1]]
        place.copy_(draws.rows.view(place.shape))
        columns[part.index[-1] if len(part.index) == live.dim() else slice(None)] = draws.columns
    return Draws(rows.view(-1), columns).to(live.device)
