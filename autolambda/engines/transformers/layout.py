"""Finds a checkpoint's tensors in the parameters of a transformers model: by name, or within fused experts."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from autolambda.merging.pair import Pair
from autolambda.merging.rounding import Draws, matrix_shape
from autolambda.merging.shards import TensorInfo

_EXPERT = re.compile(r"(.+\.experts\.)(\d+)\.(gate|up|down)_proj\.weight")


def tensors_in(live: Mapping[str, Tensor], infos: Mapping[str, TensorInfo]) -> dict[str, Tensor] | None:
    """Returns views of the live values of all the checkpoint's tensors, or ``None`` if one of them is not found."""
    found = {name: _tensor_in(live, name) for name in infos}
    known = {name: view for name, view in found.items() if view is not None and tuple(view.shape) == infos[name].shape}
    return known if len(known) == len(infos) else None


def draws_in(live: Mapping[str, Tensor], pair: Pair) -> dict[str, Draws] | None:
    """Returns the draws of every live parameter that is dithered, on its device.

    Returns ``None`` if some are dithered and a checkpoint tensor is not found.
    """
    drawn = {name: pair.rounding.draws(name, info.shape, info.dtype) for name, info in pair.tensors.items()}
    if not any(drawn.values()):
        return {}
    if tensors_in(live, pair.tensors) is None:
        return None
    # one key for each row: tensors of keys have the layout of the parameters, with one column
    keys = {name: torch.zeros((*tensor.shape[:-1], 1), dtype=torch.int32) for name, tensor in live.items()}
    columns: dict[int, Tensor] = {}
    for name, draws in drawn.items():
        if draws:
            place = _tensor_in(keys, name)
            assert place is not None
            place.copy_(draws.rows.view(place.shape))
            columns[len(draws.columns)] = draws.columns
    return {
        name: Draws(rows.view(-1), columns[matrix_shape(live[name].shape)[1]]).to(live[name].device)
        for name, rows in keys.items()
        if bool(rows.all())  # keys are odd, so a parameter whose keys are zero is not dithered
    }


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
