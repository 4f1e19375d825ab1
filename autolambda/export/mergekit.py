"""Describes a merge as a recipe for mergekit 0.1.5 (``mergekit-yaml mergekit.yml OUT``).

A uniform lambda becomes one weight per model, also with a scale (mergekit's task arithmetic) or a third parent. Any
other schedule on the line becomes one slice per layer, with filters for the modules. A filter is a substring of a
parameter name; mergekit uses the first match. A scale or third parent that varies by module or depth has no recipe.

Values can differ in their last bit. mergekit rounds to nearest (``mergekit_sentence`` says what this changes), and its
linear merge multiplies and adds in two steps, not one fused step. Its TIES keeps ``int(density * n)`` values and breaks
ties by position.
"""

from __future__ import annotations

from typing import Any

from autolambda.merging.arithmetic import SCALE_TASK_ARITHMETIC, SCALE_TIES
from autolambda.merging.difference.measure import share_beside_nearest
from autolambda.merging.difference.values import percent
from autolambda.merging.kernels.sums import TIES_DENSITY
from autolambda.merging.merge import Merge
from autolambda.merging.pair import Pair
from autolambda.merging.rounding import DITHERED
from autolambda.schedule import Location, Schedule

Setting = float | list[dict[str, Any]]


def mergekit_recipe(merge: Merge) -> dict[str, Any] | None:
    """Returns the recipe as plain values for YAML, or ``None`` if there is none. A local model is named ``./NAME``."""
    names = {role: model.model_id or f"./{model.name}" for role, model in merge.models.items()}
    method, schedule = merge.method.name, merge.method.schedule
    dtype = str(merge.pair.dtype).removeprefix("torch.")
    found: dict[str, Any] = {"merge_method": method, "dtype": "float32", "out_dtype": dtype}
    if schedule is None:
        both = [names["instruct"], names["thinking"]]
        ties = {"weight": 1.0, "density": TIES_DENSITY}
        each = ties if method == "ties" else {"weight": SCALE_TASK_ARITHMETIC}
        scale = {"parameters": {"normalize": True, "lambda": SCALE_TIES}} if method == "ties" else {}
        return found | {"base_model": names["base"], "models": [_input(name, **each) for name in both]} | scale
    if schedule.further:
        return _beyond(names, schedule, found)
    if method == "slerp":
        found["base_model"] = names["instruct"]
    else:
        found["parameters"] = {"normalize": False}
    if schedule.lam is not None:
        return found | {"models": _inputs(names, method, schedule.lam)} | _shared(method, schedule.lam)
    slices = []
    for layer in range(merge.pair.num_layers):
        setting = _setting(merge.pair, schedule, layer)
        sources = [{**each, "layer_range": [layer, layer + 1]} for each in _inputs(names, method, setting)]
        slices.append({"sources": sources, **_shared(method, setting)})
    return found | {"slices": slices}


def mergekit_sentence(merge: Merge) -> str:
    """Returns how far mergekit's merge differs from this one by its rounding, measured as in ``measure.py``.

    If there is no recipe, returns why.
    """
    if mergekit_recipe(merge) is None:
        return "There is no recipe for mergekit: with a scale or a third parent it needs uniform numbers."
    dtypes = sorted({str(info.dtype).removeprefix("torch.") for info in merge.infos.values() if info.dtype in DITHERED})
    if not dtypes:
        return "Neither autolambda nor mergekit rounds this merge, because it is float32."
    if merge.pair.rounding.name == "nearest":
        return "mergekit rounds to nearest, like this merge."
    share = share_beside_nearest(merge)
    if share == 0:
        return "mergekit rounds to nearest, which makes no difference for this merge."
    return (
        f"mergekit rounds to nearest: its merge differs from this one in {percent(share)} of the weights, by one step "
        f"of {' or '.join(dtypes)}."
    )


def _beyond(names: dict[str, str], schedule: Schedule, found: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the recipe of a schedule with a scale or a third parent: task arithmetic around the base, or linear."""
    at = schedule.coefficients
    if at is None:
        return None
    shares = {"instruct": 1.0 - at.lam - at.third, "thinking": at.lam, "third": at.third}
    models = [_input(names[role], weight=at.scale * share) for role, share in shares.items() if role in names]
    around = {"merge_method": "task_arithmetic", "base_model": names["base"]} if "base" in names else {}
    return found | around | {"parameters": {"normalize": False}, "models": models}


def _setting(pair: Pair, schedule: Schedule, layer: int) -> list[dict[str, Any]]:
    """Returns lam by filter: for a layer's parameters, and for the parameters outside the layers."""
    attention, ffn = (getattr(schedule, module).at(layer, pair.num_layers) for module in ("attention", "ffn"))
    found = pair.modules.locations or {}
    parts = sorted(
        {_part(name, layer) for name, location in found.items() if location == Location(layer, "attention")},
        key=_norms_last,
    )
    outside = sorted({f"{_holder(name)}." for name, location in found.items() if location.layer is None})
    return [
        *({"filter": part, "value": schedule.other} for part in outside),
        *({"filter": part, "value": attention} for part in parts),
        {"value": ffn},
    ]


def _holder(name: str) -> str:
    """Returns the end of the name of a tensor's module: ``embed_tokens``, or ``model.norm``, as layers have norms."""
    holder = name.rpartition(".")[0]
    return holder.rpartition(".")[2] if "norm" not in holder else holder


def _norms_last(part: str) -> tuple[bool, str]:
    return "norm" in part, part


def _part(name: str, layer: int) -> str:
    """Returns the name of the submodule of a layer that holds a tensor, with its dot: ``self_attn.``."""
    return name.split(f".{layer}.", 1)[1].partition(".")[0] + "."


def _inputs(names: dict[str, str], method: str, lam: Setting) -> list[dict[str, Any]]:
    instruct, thinking = names["instruct"], names["thinking"]
    if method == "slerp":
        return [{"model": instruct}, {"model": thinking}]
    return [_input(instruct, weight=_less(lam)), _input(thinking, weight=lam)]


def _input(model: str, **parameters: object) -> dict[str, Any]:
    return {"model": model, "parameters": parameters}


def _shared(method: str, lam: Setting) -> dict[str, Any]:
    """Returns the parameters that both models share, which only SLERP has."""
    return {"parameters": {"t": lam}} if method == "slerp" else {}


def _less(lam: Setting) -> Setting:
    if isinstance(lam, float):
        return 1.0 - lam
    return [{**weight, "value": 1.0 - weight["value"]} for weight in lam]
