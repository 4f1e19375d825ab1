"""Finds a checkpoint's tensors in a transformers model, which renames, stacks, fuses and transposes them.

transformers knows how to save what it has loaded. ``live_tensors`` lets it save stand-ins without values (meta
tensors), and makes no copies meanwhile. What comes out are views, so each shows where a tensor lies in the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.core_model_loading import revert_weight_conversion

from autolambda.merging.fingerprint import same_bits

_aten = torch.ops.aten
_RESHAPES = (_aten.view.default, _aten._unsafe_view.default)


def live_tensors(model: Any, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Returns views of the live values of a model's tensors, by their names in the checkpoint it was loaded from.

    ``shapes`` are those in the checkpoint. Parameters and persistent buffers count. A view has the tensor's values in
    the tensor's order, and a matrix's columns as its last dimension. Leading dimensions may be split further. Tensors
    that the model does not hold, or does not hold as one view, are left out.
    """
    state: dict[str, Tensor] = model.state_dict(keep_vars=True)
    with torch.inference_mode(False), torch.no_grad():
        stand_ins = {
            name: torch.empty_strided(live.shape, live.stride(), dtype=live.dtype, device="meta")
            for name, live in state.items()
        }
        owners = {_storage(each): state[name] for name, each in stand_ins.items()}
        with _NoCopies() as views:
            saved = revert_weight_conversion(model, stand_ins)
    prefix = f"{model.base_model_prefix}."
    found: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        # a checkpoint of the base model alone lacks the prefix
        key = next((key for key in (name, prefix + name, name.removeprefix(prefix)) if key in saved), None)
        view = views.source_of(saved[key]) if key else None
        live = None if view is None else owners.get(_storage(view))
        if view is not None and live is not None and _fits(view, shape):
            offset = live.storage_offset() + view.storage_offset()
            found[name] = live.detach().as_strided(view.shape, view.stride(), offset)
    return found


def misplaced(model: Any, live: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Returns the model's parameters and buffers whose loaded values are not those of ``expected`` in ``live``.

    ``live`` are views into the model by checkpoint name, ``expected`` the checkpoint's tensors. Writes ``expected``
    into the views, so that the model holds what it held, unless its name is returned. A tensor without a view, which
    transformers has made up, is left out.
    """
    views: dict[int, list[str]] = {}
    for name, view in live.items():
        views.setdefault(_storage(view), []).append(name)
    wrong = []
    for owner, loaded in model.state_dict().items():
        if not (names := views.pop(_storage(loaded), [])):  # a tied head has its embedding's
            continue
        before = loaded.clone()
        loaded.copy_(loaded.bitwise_not() if not loaded.is_floating_point() else torch.full_like(loaded, torch.nan))
        for name in names:
            live[name].copy_(expected[name].view(live[name].shape))
        if not same_bits(loaded, before):
            wrong.append(owner)
    return wrong


class _NoCopies(TorchDispatchMode):  # type: ignore[no-untyped-call]  # untyped upstream
    """Returns a view where an operation on a tensor without values would copy it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reshaped: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is _aten.clone.default:
            return args[0]
        if func not in _RESHAPES:
            return func(*args, **(kwargs or {}))
        try:
            return _aten.view.default(*args)
        except RuntimeError:  # the values are not next to each other, as after a transposition
            reshaped = torch.empty(args[1], dtype=args[0].dtype, device="meta")
            self._reshaped[id(reshaped)] = (reshaped, args[0])
            return reshaped

    def source_of(self, tensor: Tensor) -> Tensor:
        """Returns the view of which ``tensor`` is a reshaped copy, or ``tensor`` itself."""
        return self._reshaped.get(id(tensor), (tensor, tensor))[1]


def _fits(view: Tensor, shape: Sequence[int]) -> bool:
    return view.numel() == prod(shape) and (len(shape) < 2 or view.shape[-1] == shape[-1])


def _storage(tensor: Tensor) -> int:
    """Returns what identifies a tensor's memory, of a tensor without values too."""
    identity: int = tensor.untyped_storage()._cdata
    return identity
