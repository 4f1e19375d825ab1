"""Where each tensor of a checkpoint lies in its model: its layer, its module, or outside the language model.

A layer's *attention* is what reads other positions: attention, linear attention, convolutions, state spaces. Whatever
works on each position alone is *ffn*: dense, mixture of experts, gates. A norm belongs to the sublayer whose output it
reads, else to the sublayer that reads its output. Everything outside the layers is *other*.

The names of Llama's layout say this by themselves. For every other layout, the model's own code says it
(``model_tree.py``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autolambda.coefficients import Module
from autolambda.errors import one_line
from autolambda.merging.checkpoint import Checkpoint
from autolambda.merging.model_tree import (
    Layers,
    lacking,
    layers_of,
    model_without_weights,
    modules_of,
    names_in,
    outside_language,
)
from autolambda.schedule import Location

_OUTSIDE = Location(None, "other")
_LLAMA_LAYER = re.compile(r"model\.layers\.(\d{1,6})\.(self_attn|input_layernorm|post_attention_layernorm|mlp)\.(.+)")
_LLAMA_OTHER = re.compile(r"(model\.(embed_tokens|norm)|lm_head)\.(weight|bias)")
_LLAMA_MODULES: Mapping[str, Module] = {"self_attn": "attention", "input_layernorm": "attention"}
_MTP = re.compile(r"(?:.*\.)?mtp(?:_\w+)?\..+")
_NUMBERED = re.compile(r"(?:model\.)?(?:language_model\.)?(?:model\.)?layers\.(\d+)\..+")
_DERIVED = re.compile(r".+\.rotary_emb\.inv_freq|(?:.+\.)?position_ids")


def is_uncomputed(name: str, *, num_layers: int) -> bool:
    """Returns whether a checkpoint tensor is of multi-token prediction (MTP), or of old files that store positions.

    MTP is named ``mtp`` (Qwen, ERNIE), or is a layer beyond the config's ``num_layers`` (DeepSeek-V3, GLM-4.5). It
    drafts tokens for speculative decoding, and changes no token that is drawn.
    """
    layer = _NUMBERED.fullmatch(name)
    beyond = layer is not None and int(layer[1]) >= num_layers
    return beyond or bool(_MTP.fullmatch(name) or _DERIVED.fullmatch(name))


@dataclass(frozen=True)
class ModuleMap:
    """The places of a checkpoint's tensors by name.

    ``locations`` is ``None`` if the modules are not known; ``reason`` then says why, and only uniform merges are
    possible. ``outside`` holds the names of tensors that do not belong to the language model, such as a vision tower's.
    It is ``None`` if these are not known.
    """

    locations: Mapping[str, Location] | None
    outside: frozenset[str] | None = frozenset()
    reason: str = ""


def module_map(checkpoint: Checkpoint) -> ModuleMap:
    """Returns the places of a checkpoint's tensors.

    Imports transformers for layouts other than Llama's, which takes seconds.
    """
    if not checkpoint.is_nested and (plain := _llama_locations(checkpoint)):
        return ModuleMap(plain)
    try:
        model, names = _model_of(checkpoint)
    except LookupError as error:
        return ModuleMap(None, None if checkpoint.is_nested else frozenset(), str(error.args[0]))
    outside = frozenset(outside_language(model, names) if checkpoint.is_nested else ())
    try:
        layers = layers_of(model)
        modules = modules_of(model, layers)
    except Exception as error:  # the model code of an architecture can need values
        return ModuleMap(None, outside, f"its layers cannot be followed ({one_line(error)})")
    locations = {name: _location(inner, layers, modules) for name, inner in names.items() if name not in outside}
    return ModuleMap(locations, outside)


def why_unloadable(checkpoint: Checkpoint) -> str | None:
    """Returns why transformers could not load the checkpoint, or ``None``. Takes seconds, and reads no tensor."""
    try:
        model, names = _model_of(checkpoint)
    except LookupError as error:
        return str(error.args[0])
    if not (missing := lacking(model, names)):
        return None
    return f"its files lack {len(missing)} tensors of transformers' {type(model).__name__}, such as '{missing[0]}'"


def _model_of(checkpoint: Checkpoint) -> tuple[Any, dict[str, str]]:
    """Returns the model without weights, and the names of the checkpoint's tensors in it.

    Raises ``LookupError`` with a sentence without a path, because exports hold it.
    """
    try:
        model = model_without_weights(checkpoint)
        return model, names_in(model, checkpoint.tensors)
    except Exception as error:  # an unknown or wrong config can raise anything
        said = one_line(str(error).replace(str(checkpoint.folder), checkpoint.name))
        raise LookupError(f"transformers cannot make a model of its config.json ({said})") from error


def _llama_locations(checkpoint: Checkpoint) -> dict[str, Location] | None:
    """Returns the locations if every tensor has one of the names of Llama's layout, else ``None``."""
    found = {name: llama_location(name) for name in checkpoint.tensors}
    known = {
        name: location
        for name, location in found.items()
        if location is not None and (location.layer or 0) < checkpoint.num_layers
    }
    return known if len(known) == len(found) else None


def llama_location(name: str) -> Location | None:
    """Returns the location of a tensor with a name of Llama's layout, ``None`` for any other name.

    That layout has one norm before each sublayer: ``input_layernorm`` and ``post_attention_layernorm``.
    """
    if match := _LLAMA_LAYER.fullmatch(name):
        return Location(int(match[1]), _LLAMA_MODULES.get(match[2], "ffn"))
    return _OUTSIDE if _LLAMA_OTHER.fullmatch(name) else None


def _location(name: str, layers: Layers, modules: Mapping[tuple[int, str], Module]) -> Location:
    """Returns the location of a tensor by its name in the model. What a layer never calls counts as ffn."""
    rest = name.removeprefix(f"{layers.name}.")
    index, _, inner = rest.partition(".")
    if rest == name or not index.isdigit() or int(index) >= len(layers.modules):
        return _OUTSIDE
    return Location(int(index), modules.get((int(index), inner.partition(".")[0]), "ffn"))
