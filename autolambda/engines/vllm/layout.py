"""Finds a checkpoint's tensors in the parameters of one vLLM worker: fused, sharded, padded, or packed.

vLLM stacks q, k and v, gate and up, and the experts (w13, w2). Each tensor-parallel rank gets a shard of the rows or
columns. vLLM's layers say which shard, so live weights can be compared with the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autolambda.errors import EngineError

FUSED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}
_EXPERT = re.compile(r"(.+\.experts\.)(\d+)\.(gate_proj|up_proj|down_proj|w1|w3|w2)\.weight")
_HALF = {"gate_proj": 0, "w1": 0, "up_proj": 1, "w3": 1}


@dataclass(frozen=True)
class Part:
    """A region of a checkpoint tensor, ``source``, and the region of the parameter that holds it, ``index``."""

    tensor: str
    index: tuple[int | slice, ...]
    source: tuple[slice, ...]


@dataclass(frozen=True)
class LiveParameter:
    """A live parameter (an attribute of its layer) and the parts of checkpoint tensors in it.

    ``tied`` marks a head that shares the embedding's parameter but computes from a packed copy.
    """

    layer: Any
    attribute: str
    parts: tuple[Part, ...]
    tied: bool = False

    @property
    def live(self) -> Tensor:
        live: Tensor = getattr(self.layer, self.attribute)
        return live

    @property
    def packed(self) -> bool:
        """Whether the layer computes from a copy of the weight, packed for a CPU kernel."""
        linear = getattr(self.layer, "cpu_linear", None)
        return self.attribute == "weight" and linear is not None and linear.__closure__ is not None

    @property
    def quantised(self) -> bool:
        """Whether the parameter holds quantised values instead of the checkpoint's."""
        return _quantises(self.layer)

    @property
    def plain(self) -> bool:
        """Whether the layer computes from the parameter, and the parameter holds the checkpoint's values."""
        return not self.packed and not self.quantised

    @property
    def reordered(self) -> bool:
        """Whether a CPU kernel holds this layer's experts in its own order."""
        return self._cpu_experts is not None

    @property
    def axis(self) -> int:
        """The axis of ``picks`` in ``read``: 0 (rows), or 1 (columns) for a packed weight."""
        return 1 if self.packed else 0

    def read(self, part: Part, picks: Tensor | None = None) -> Tensor:
        """Returns the live values of a part, or of its rows (columns) ``picks`` (int64 on the CPU).

        A packed weight is read by multiplying it with unit vectors, which loses only the sign of zeros.
        """
        if not self.packed:
            view = self._expert(part) if self.reordered else self.live[part.index]
            return view if picks is None else view.index_select(0, picks.to(view.device))
        num_columns = part.index[1].stop  # type: ignore[union-attr]  # a weight with experts is not packed
        picks = torch.arange(num_columns) if picks is None else picks
        units = torch.zeros(len(picks), num_columns, dtype=self.live.dtype)
        units[torch.arange(len(picks)), picks] = 1
        columns: Tensor = self.layer.quant_method.apply(self.layer, units, None)
        return columns.T[part.index[0]]

    def write(self, part: Part, values: Tensor) -> None:
        """Sets the live values of a part that is not packed."""
        if not self.reordered:
            self.live[part.index].copy_(values)
            return
        slot, *rest = part.index
        packed = self.live[slot]
        order = self._kernel_order(packed)
        matrix = _in_file_order(packed, order)
        matrix[tuple(rest)] = values.to(matrix.dtype)
        packed.copy_(matrix.view(-1)[order].view(packed.shape))

    def repack(self) -> None:
        """Packs weights that vLLM's ``reload_weights`` leaves stale on a CPU (0.32).

        vLLM packs the weights that it loads. A tied head loads none, and experts are packed at their first load only.
        """
        if self.tied:
            self.layer.quant_method.process_weights_after_loading(self.layer)
        elif self.attribute == "w13_weight" and hasattr(self._cpu_experts, "process_weights_after_loading"):
            self._cpu_experts.process_weights_after_loading(self.layer)  # of w2 too

    @property
    def _cpu_experts(self) -> Any:
        """The CPU kernel that reorders this layer's experts, or ``None``."""
        method = getattr(self.layer, "quant_method", None)
        kernel = getattr(getattr(method, "moe_kernel", None), "fused_experts", None)
        kernel = kernel or getattr(method, "cpu_fused_moe", None)  # vLLM 0.26
        return kernel if hasattr(kernel, "isa") else None

    def _expert(self, part: Part) -> Tensor:
        """Returns a copy of an expert's rows in the checkpoint's order."""
        slot, *rest = part.index
        packed = self.live[slot]
        return _in_file_order(packed, self._kernel_order(packed))[tuple(rest)]

    def _kernel_order(self, packed: Tensor) -> Tensor:
        """Returns the place of every value of an expert. Packing a range of integers shows the kernel's order."""
        from vllm._custom_ops import cpu_prepack_moe_weight

        numbers = torch.arange(packed.numel(), dtype=torch.float32).view(1, *packed.shape)
        order: Tensor = cpu_prepack_moe_weight(numbers, self._cpu_experts.isa).view(-1).long()
        return order


def _in_file_order(packed: Tensor, order: Tensor) -> Tensor:
    matrix = torch.empty_like(packed).view(-1)
    matrix[order] = packed.reshape(-1)
    return matrix.view(packed.shape)


def live_parameters(
    model: nn.Module, shapes: Mapping[str, Sequence[int]], *, rank: int, size: int
) -> dict[str, LiveParameter]:
    """Returns every parameter of a worker's model, by name, with the checkpoint tensors in it.

    ``shapes`` are the shapes of the checkpoint tensors; ``rank`` and ``size`` are tensor-parallel. Tensors of another
    pipeline stage or expert-parallel rank are left out. Raises ``EngineError`` for a parameter that no tensor fills.
    """
    live = dict(model.named_parameters())
    fused = FUSED | dict(getattr(model, "packed_modules_mapping", {}))
    owners = {member: (whole, i) for whole, members in fused.items() for i, member in enumerate(members)}
    parts: dict[str, list[Part]] = {name: [] for name in live}
    for tensor, shape in shapes.items():
        for name, part in _parts_of(tensor, shape, model, live, owners, (rank, size)):
            parts[name].append(part)
    scales = {name for name, found in parts.items() if not found and _quantises(_layer(model, name))}
    if lost := [name for name, found in parts.items() if not found and name not in scales]:
        raise EngineError(
            f"vLLM's {type(model).__name__} holds '{lost[0]}', for which the checkpoints have no tensor; "
            "use engine.name: transformers for this architecture"
        )
    parameters = {
        name: LiveParameter(_layer(model, name), name.rpartition(".")[2], tuple(found))
        for name, found in parts.items()
        if found
    }
    return parameters | _tied_head(model, parameters)


def _parts_of(
    tensor: str,
    shape: Sequence[int],
    model: nn.Module,
    live: Mapping[str, Tensor],
    owners: Mapping[str, tuple[str, int]],
    rank_and_size: tuple[int, int],
) -> Iterator[tuple[str, Part]]:
    """Yields the parameter that holds a checkpoint tensor or a shard of it, if this worker has one."""
    if match := _EXPERT.fullmatch(tensor):
        yield from _expert_part(tensor, shape, match, model, live)
        return
    prefix, _, suffix = tensor.rpartition(".")
    stem, _, last = prefix.rpartition(".")
    whole, i = owners.get(last, (last, 0))
    name = tensor if tensor in live else f"{stem}.{whole}.{suffix}"
    if name not in live:
        return
    layer = _layer(model, name)
    rows = list(getattr(layer, "output_partition_sizes", None) or live[name].shape[:1])
    start = sum(rows[:i])
    source = [_shard(shape[0], rows[i], *rank_and_size)]
    index: list[int | slice] = [slice(start, start + source[0].stop - source[0].start)]
    if len(shape) > 1:
        num_columns = next(
            (size for key in ("input_size_per_partition", "input_size") if (size := getattr(layer, key, None))),
            live[name].shape[-1],
        )
        source.append(_shard(shape[1], num_columns, *rank_and_size))
        index.append(slice(0, num_columns))
    yield name, Part(tensor, tuple(index), tuple(source))


def _expert_part(
    tensor: str, shape: Sequence[int], match: re.Match[str], model: nn.Module, live: Mapping[str, Tensor]
) -> Iterator[tuple[str, Part]]:
    """Yields rows of w13 (gate, then up) or all of w2, at the expert's slot."""
    stem, expert, kind = match[1], int(match[2]), match[3]
    stacked = "w13_weight" if kind in _HALF else "w2_weight"
    name = next((name for name in live if name.startswith(stem) and name.endswith(stacked)), None)
    if name is None:
        return
    layer = _layer(model, name)
    slot = layer._map_global_expert_id_to_local_expert_id(expert)
    if slot < 0:
        return
    _, rows, columns = live[name].shape
    rows //= 2 if kind in _HALF else 1
    ranks = max(shape[0] // rows, shape[1] // columns)  # 1 with expert parallelism
    rank = layer.moe_config.moe_parallel_config.tp_rank % ranks
    start = rows * _HALF.get(kind, 0)
    source = (_shard(shape[0], rows, rank, ranks), _shard(shape[1], columns, rank, ranks))
    yield name, Part(tensor, (slot, slice(start, start + rows), slice(0, columns)), source)


def _shard(full: int, part: int, rank: int, size: int) -> slice:
    """Returns the slice of ``full`` rows on a rank with ``part`` rows. Ranks may share rows; the last may be padded."""
    replicas = max(1, part * size // full)
    start = min(rank // replicas * part, full)
    return slice(start, min(start + part, full))


def _quantises(layer: Any) -> bool:
    method = getattr(layer, "quant_method", None)
    return method is not None and not type(method).__name__.startswith("Unquantized")


def _layer(model: nn.Module, name: str) -> Any:
    return model.get_submodule(name.rpartition(".")[0])


def _tied_head(model: nn.Module, parameters: Mapping[str, LiveParameter]) -> dict[str, LiveParameter]:
    """Returns a head that shares the embedding's parameter but computes from a packed copy, if there is one."""
    head = getattr(model, "lm_head", None)
    embedding = next((live for name, live in parameters.items() if name.endswith("embed_tokens.weight")), None)
    if head is None or embedding is None or getattr(head, "weight", None) is not embedding.live:
        return {}
    parameter = LiveParameter(head, "weight", embedding.parts, tied=True)
    return {"lm_head.weight": parameter} if parameter.packed else {}
