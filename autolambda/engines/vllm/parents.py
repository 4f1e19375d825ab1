"""Both parents in one vLLM worker, and their merge in its live parameters, by one of two paths.

*direct*: both parents were loaded once through vLLM's own loader and lie in the engine's own layout; a merge writes
into the live parameters, so that addresses stay and CUDA graphs stay valid. *stream*: the merge in checkpoint form goes
through vLLM's loader, which repacks and quantises it; it works everywhere, and is the reference for the other.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from autolambda.engines.base import Fingerprint
from autolambda.engines.vllm.layout import LiveParameter, Part
from autolambda.merging.arithmetic import interpolate
from autolambda.merging.fingerprint import digest_of_shares, digest_of_tensors
from autolambda.merging.merge import check_in_place, open_merge
from autolambda.merging.method import Method
from autolambda.merging.pair import Pair
from autolambda.schedule import Schedule

MergePath = Literal["direct", "stream"]
Home = Literal["gpu", "host", "files"]
Load = Callable[[Iterator[tuple[str, Tensor]]], None]

NUM_PICKS = 4  # rows of each tensor that are compared after a switch
NUM_EXPERTS = 8  # of each layer, others every time
_ALIGNMENT = 64  # bytes


class LiveParents:
    """Merges a pair into the live parameters of one worker and compares them with the files."""

    def __init__(
        self, pair: Pair, places: Mapping[str, LiveParameter], *, load: Load, path: MergePath, home: Home
    ) -> None:
        """Loads both parents for the direct path."""
        self._pair, self._places, self._load = pair, places, load
        self._snapshots: tuple[dict[str, Tensor], ...] = ()
        self._generator = torch.Generator().manual_seed(0)
        if path == "direct":
            ends = (Schedule.uniform(0.0), Schedule.uniform(1.0))
            self._snapshots = tuple(self._snapshot(schedule, home) for schedule in ends)

    @torch.no_grad()
    def merge(self, schedule: Schedule) -> None:
        """Sets every live parameter to the merge: float32 arithmetic, one rounding to the checkpoint's dtype."""
        if not self._snapshots:
            self._stream(open_merge(self._pair, schedule).tensors())
            return
        instruct, thinking = self._snapshots
        for name, place in self._places.items():
            lam = self._pair.lam_of(place.parts[0].tensor, schedule)
            interpolate(instruct[name], thinking[name], lam, out=place.parameter.data)

    @torch.no_grad()
    def differing(self, schedule: Schedule, *, whole: bool) -> list[str]:
        """The checkpoint tensors whose live values are not the merge of the files, in a sample or as a whole.

        What vLLM has quantised cannot be compared and is left out.
        """
        found = {
            part.tensor
            for place in self._places.values()
            if not place.quantised
            for part in self._chosen(place, whole)
            if not self._is_merge(place, part, schedule, whole)
        }
        return sorted(found)

    @torch.no_grad()
    def merge_by(self, method: Method) -> list[str]:
        """Merges by any method from the files, by either path; the tensors whose live values are then another's."""
        merge = open_merge(self._pair, method)
        check_in_place(merge)
        held: dict[str, list[tuple[LiveParameter, Part]]] = {}
        for place in self._places.values():
            for part in () if place.quantised else place.parts:
                held.setdefault(part.tensor, []).append((place, part))
        if self._snapshots:
            for name, tensor in merge.tensors():
                for place, part in held.get(name, ()):
                    place.read(part).copy_(tensor[part.source])
        else:
            self._stream(merge.tensors())
        found: set[str] = set()
        for name, tensor in merge.tensors():  # made again: a copy of all would not fit
            for place, part in held.get(name, ()):
                if not self._holds(place, part, tensor[part.source]):
                    found.add(name)
        return sorted(found)

    def _holds(self, place: LiveParameter, part: Part, expected: Tensor) -> bool:
        live = place.read(part)
        expected = expected.to(live.device).to(live.dtype)
        return torch.equal(live, expected) if place.packed else _same_bits(live, expected)

    @torch.no_grad()
    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The live values by checkpoint name, in the checkpoint's dtype: this rank's share of each.

        A parameter that is quantised comes as it is, by the first tensor in it.
        """
        for place in self._places.values():
            if place.quantised:
                yield place.parts[0].tensor, place.parameter
                continue
            for part in place.parts:
                yield part.tensor, place.read(part).to(self._pair.tensors[part.tensor].dtype)

    @torch.no_grad()
    def fingerprint(self) -> Fingerprint:
        """That of the live values; whole, where each tensor lies here at its full size, as it is and once."""
        infos = self._pair.tensors
        held = sorted(self.tensors(), key=lambda item: item[0])
        whole = all(place.plain for place in self._places.values()) and len(held) == len(infos)
        if whole and all(tuple(tensor.shape) == infos[name].shape for name, tensor in held):
            return Fingerprint(digest_of_tensors(dict(held), infos), whole=True)
        return Fingerprint(digest_of_shares(held), whole=False)

    def num_quantised(self) -> int:
        """How many checkpoint tensors vLLM has quantised."""
        return sum(len(place.parts) for place in self._places.values() if place.quantised)

    def unplaced(self) -> list[str]:
        """The checkpoint tensors that this worker does not hold."""
        held = {part.tensor for place in self._places.values() for part in place.parts}
        return [name for name in self._pair.names if name not in held]

    def _stream(self, tensors: Iterator[tuple[str, Tensor]]) -> None:
        """Sends a merge through vLLM's loader, and packs what that leaves unpacked."""
        self._load(tensors)
        for place in self._places.values():
            place.repack()

    def _snapshot(self, schedule: Schedule, home: Home) -> dict[str, Tensor]:
        """A parent in the engine's layout and the checkpoint's dtypes."""
        self._stream(open_merge(self._pair, schedule).tensors())
        live = {name: place.parameter.data for name, place in self._places.items()}
        empty = _allocate(live, {name: self._dtype(place) for name, place in self._places.items()}, home)
        return {name: empty[name].copy_(tensor) for name, tensor in live.items()}

    def _dtype(self, place: LiveParameter) -> torch.dtype:
        return self._pair.tensors[place.parts[0].tensor].dtype

    def _chosen(self, place: LiveParameter, whole: bool) -> list[Part]:
        if whole or len(place.parts) <= NUM_EXPERTS:
            return list(place.parts)
        order = torch.randperm(len(place.parts), generator=self._generator)[:NUM_EXPERTS]
        return [place.parts[i] for i in order.tolist()]

    def _is_merge(self, place: LiveParameter, part: Part, schedule: Schedule, whole: bool) -> bool:
        parents = self._pair.read(part.tensor)
        instruct, thinking = parents.instruct[part.source], parents.thinking[part.source]
        if instruct.numel() == 0:  # a rank of nothing but padding
            return True
        axis = place.axis if instruct.dim() > 1 else 0
        picks = None
        if not whole and instruct.dim() > 1 and instruct.shape[axis] > NUM_PICKS:
            picks = torch.randint(instruct.shape[axis], (NUM_PICKS,), generator=self._generator)
            instruct, thinking = (parent.index_select(axis, picks) for parent in (instruct, thinking))
        live = place.read(part, picks)
        instruct, thinking = (parent.to(live.device) for parent in (instruct, thinking))
        expected = interpolate(instruct, thinking, self._pair.lam_of(part.tensor, schedule)).to(live.dtype)
        return torch.equal(live, expected) if place.packed else _same_bits(live, expected)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))


def _allocate(live: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype], home: Home) -> dict[str, Tensor]:
    """An empty tensor for each live one: beside it, in (pinned) host memory, or in a file that is mapped."""
    if home == "files":
        return _mapped(live, dtypes)
    return {
        name: torch.empty_like(tensor, dtype=dtypes[name])
        if home == "gpu"
        else torch.empty(tensor.shape, dtype=dtypes[name], pin_memory=tensor.is_cuda)
        for name, tensor in live.items()
    }


def _mapped(live: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype]) -> dict[str, Tensor]:
    """Tensors in one file, whose name is gone at once: its space is freed with the process, however that ends."""
    offsets, end = {}, 0
    for name, tensor in live.items():
        offsets[name] = end
        end += -(-tensor.numel() * dtypes[name].itemsize // _ALIGNMENT) * _ALIGNMENT
    with tempfile.NamedTemporaryFile(prefix="autolambda-parents-") as file:
        os.posix_fallocate(file.fileno(), 0, end)  # a full disk raises here, and not as SIGBUS later
        whole = torch.from_file(file.name, shared=True, size=end, dtype=torch.uint8)
    sizes = {name: tensor.numel() * dtypes[name].itemsize for name, tensor in live.items()}
    return {
        name: whole[offsets[name] : offsets[name] + sizes[name]].view(dtypes[name]).view(tensor.shape)
        for name, tensor in live.items()
    }
