"""Finds a checkpoint's tensors in the parameters of a transformers model: by name, or within fused experts."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from autolambda.merging.shards import TensorInfo

_EXPERT = re.compile(r"(.+\.experts\.)(\d+)\.(gate|up|down)_proj\.weight")


def tensors_in(live: Mapping[str, Tensor], infos: Mapping[str, TensorInfo]) -> dict[str, Tensor] | None:
    """Returns views of the live values of all the checkpoint's tensors, or ``None`` if one of them is not found."""
    found = {name: _tensor_in(live, name) for name in infos}
    known = {name: view for name, view in found.items() if view is not None and tuple(view.shape) == infos[name].shape}
    return known if len(known) == len(infos) else None


def _tensor_in(live: Mapping[str, Tensor], name: str) -> Tensor | None:
    """Returns one tensor. transformers 5 stacks experts: [experts, gate then up, hidden], [experts, hidden, down]."""
    match = _EXPERT.fullmatch(name)
    if name in live or match is None:
        return live.get(name)
    stem, expert, kind = match[1], int(match[2]), match[3]
    stacked = live.get(f"{stem}down_proj" if kind == "down" else f"{stem}gate_up_proj")
    if stacked is None or stacked.dim() != 3 or expert >= len(stacked):
        return None
    if kind == "down":
        return stacked[expert]
    rows = stacked.shape[1] // 2
    return stacked[expert, :rows] if kind == "gate" else stacked[expert, rows:]
