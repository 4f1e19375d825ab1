"""The tree of a model's modules by transformers' own code, without weights: its layers, and what feeds what in them.

One run on the meta device shows which submodule reads the output of which. So no table of families is needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from autolambda.coefficients import Module
from autolambda.merging.checkpoint import Checkpoint

# A submodule whose forward takes one of these reads other positions.
_OF_OTHER_POSITIONS = frozenset(
    {"attention_mask", "past_key_values", "past_key_value", "layer_past", "cache_params", "position_embeddings"}
    | {"position_ids", "alibi", "state"}
)


def auto_class(checkpoint: Checkpoint) -> Any:
    """Returns transformers' class for a checkpoint's whole model: with a vision tower, if the config describes one.

    Raises the errors of transformers for an unknown config.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    auto: Any = AutoModelForCausalLM
    config = type(_config(checkpoint))
    if checkpoint.is_nested and config in AutoModelForImageTextToText._model_mapping:
        auto = AutoModelForImageTextToText
    return auto


def model_without_weights(checkpoint: Checkpoint) -> Any:
    """Returns the checkpoint's model on the meta device. Raises the errors of transformers."""
    with torch.device("meta"):
        return auto_class(checkpoint).from_config(_config(checkpoint), dtype=torch.bfloat16).eval()


def _config(checkpoint: Checkpoint) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)


def names_in(model: Any, names: Iterable[str]) -> dict[str, str]:
    """Returns the name in the model of each tensor of a checkpoint; transformers' loader renames and fuses some."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    transforms = get_model_conversion_mapping(model)
    renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
    converters = [each for each in transforms if isinstance(each, WeightConverter)]
    state = model.state_dict()
    return {name: rename_source_key(name, renamings, converters, model.base_model_prefix, state)[0] for name in names}


def lacking(model: Any, names: Mapping[str, str]) -> list[str]:
    """Returns the model's tensors that a checkpoint does not have; ``names`` are its names in the model (``names_in``).

    A tied head has its embedding's.
    """
    state = model.state_dict(keep_vars=True)
    found = {id(state[inner]) for inner in names.values() if inner in state}
    return sorted(name for name, tensor in state.items() if id(tensor) not in found)


@dataclass(frozen=True)
class Layers:
    """The layers of a language model: their name, and the list of them."""

    name: str
    modules: nn.ModuleList


def layers_of(model: Any) -> Layers:
    """Returns the layers of the language model. Raises ``LookupError`` if there is no list of that many modules."""
    num_layers = model.config.get_text_config(decoder=True).num_hidden_layers
    decoder = model.get_decoder()
    prefix = next((name for name, module in model.named_modules() if module is decoder), "")
    for name, module in decoder.named_modules(prefix=prefix):
        if isinstance(module, nn.ModuleList) and len(module) == num_layers:
            return Layers(name, module)
    raise LookupError(f"no list of {num_layers} layers")


def outside_language(model: Any, names: Mapping[str, str]) -> Iterator[str]:
    """Yields the tensors that belong neither to the language model nor to its head."""
    decoder = model.get_decoder()
    inside = {id(tensor) for tensor in decoder.state_dict(keep_vars=True).values()}
    for module in (model.get_output_embeddings(), model.get_input_embeddings()):
        if module is not None:
            inside |= {id(tensor) for tensor in module.state_dict(keep_vars=True).values()}
    state = model.state_dict(keep_vars=True)
    for name, inner in names.items():
        if inner in state and id(state[inner]) not in inside:
            yield name


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of a submodule of a layer, with the tensors that it took and gave."""

    layer: int
    child: str
    module: nn.Module
    taken: tuple[Tensor, ...]
    given: tuple[Tensor, ...]


class _AnyValue(TorchFunctionMode):
    """Answers every question for a tensor's value with ``True``, since tensors on the meta device have none."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.item, Tensor.__bool__, Tensor.__int__):
            return True
        if func is Tensor.tolist:
            return [True] * args[0].numel()
        return func(*args, **(kwargs or {}))


def modules_of(model: Any, layers: Layers) -> dict[tuple[int, str], Module]:
    """Returns the module of each submodule by layer and name.

    Raises ``LookupError`` if they cannot be told apart, or any error of the model's code.
    """
    calls = _calls(model, layers)
    mixers = [call for call in calls if _mixes(call.module)]
    if nested := next((call for call in mixers if _holds_a_layer(call.module)), None):
        raise LookupError(f"'{nested.child}' of layer {nested.layer} is a layer within a layer")
    if not mixers:
        raise LookupError("no part of its layers reads other positions")
    return {
        (call.layer, call.child): "attention" if _mixes(owner.module) else "ffn"
        for call in calls
        for owner in [_owner(call, [each for each in calls if each.layer == call.layer])]
    }


def _calls(model: Any, layers: Layers) -> list[_Call]:
    """Runs the model on the meta device, and returns the calls of the layers' submodules that have parameters."""
    calls: list[_Call] = []
    for index, layer in enumerate(layers.modules):
        for child, module in layer.named_children():
            if any(True for _ in module.parameters()):
                module.register_forward_hook(_recorder(calls, index, child), with_kwargs=True)
    ids = torch.zeros(1, 8, dtype=torch.long, device="meta")
    with torch.inference_mode(), _AnyValue():
        model(input_ids=ids, use_cache=False)
    return calls


def _recorder(calls: list[_Call], layer: int, child: str) -> Any:
    def record(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        outputs = output if isinstance(output, (tuple, list)) else (output,)
        taken = tuple(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        calls.append(_Call(layer, child, module, taken, tuple(each for each in outputs if isinstance(each, Tensor))))

    return record


def _owner(call: _Call, calls: list[_Call]) -> _Call:
    """Returns the sublayer that a call belongs to: itself, or for a norm the sublayer beside it."""
    if not _is_norm(call.module):
        return call
    at = calls.index(call)
    before = [each for each in calls[:at] if not _is_norm(each.module)]
    after = [each for each in calls[at + 1 :] if not _is_norm(each.module)]
    reads = [each for each in before if _share(each.given, call.taken)]
    feeds = sorted((each for each in after if _share(call.given, each.taken)), key=lambda each: not _mixes(each.module))
    return next(iter([*reads[-1:], *feeds, *after, *before[-1:], call]))


def _share(some: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> bool:
    return any(one is other for one in some for other in others)


def _is_norm(module: nn.Module) -> bool:
    return all(parameter.dim() < 2 for parameter in module.parameters())


def _mixes(module: nn.Module) -> bool:
    """Whether a submodule reads other positions."""
    return not _OF_OTHER_POSITIONS.isdisjoint(inspect.signature(module.forward).parameters)


def _holds_a_layer(module: nn.Module) -> bool:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return any(isinstance(each, GradientCheckpointingLayer) for each in module.modules())
