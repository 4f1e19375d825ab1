"""A parameter of a vLLM worker, and the regions of checkpoint tensors in it: read, written, repacked.

vLLM stacks q, k and v, gate and up, and the experts (w13, w2). Each tensor-parallel rank gets a shard of the rows or
columns. A CPU kernel can hold weights in its own order. places.py finds the regions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Part:
    """A region of a checkpoint tensor, ``source``, and the region of the parameter that holds it, ``index``.

    A source names all dimensions of a matrix, and the rows of any other tensor. If ``negative_exp`` is set, the
    parameter holds ``-exp`` of the values (Mamba's ``A_log``).
    """

    tensor: str
    index: tuple[int | slice, ...]
    source: tuple[slice, ...]
    negative_exp: bool = False

    def in_engine(self, values: Tensor) -> Tensor:
        """Returns values of the checkpoint as the parameter holds them."""
        return -torch.exp(values.float()) if self.negative_exp else values


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
        return quantises(self.layer)

    @property
    def plain(self) -> bool:
        """Whether the layer computes from the parameter, and the parameter holds the checkpoint's values."""
        return not self.packed and not self.quantised

    @property
    def reordered(self) -> bool:
        """Whether a CPU kernel holds this layer's experts in its own order."""
        return self._cpu_experts is not None

    @property
    def derived(self) -> bool:
        """Whether the parameter holds a function of the checkpoint's values."""
        return any(part.negative_exp for part in self.parts)

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


def quantises(layer: Any) -> bool:
    """Returns whether a layer quantises the weights that it loads."""
    method = getattr(layer, "quant_method", None)
    return method is not None and not type(method).__name__.startswith("Unquantized")
