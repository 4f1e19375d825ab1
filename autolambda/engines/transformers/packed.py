"""Weights of linear layers once more in the layout that oneDNN computes with, for float32 on an x86 CPU.

oneDNN's products of packed weights take a tenth to a half less time than MKL's, and a row's sums depend even less on
the rows around it. The copies belong to one merge: ``renew`` makes them again after each.
"""

from __future__ import annotations

import platform
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear

from autolambda.merging.model_tree import model_without_weights
from autolambda.merging.pair import Pair

SMALLEST = 1 << 18  # values of a weight; for smaller ones the call takes longer than packing saves
MOST_BYTES = 4 << 30  # of all copies, which are memory on top of the live weights


class PackedLinears:
    """The linear layers of a model that compute with packed copies of their weights; none where that does not pay."""

    def __init__(self, model: Any) -> None:
        """``model`` is a transformers model. Packs nothing before ``renew``."""
        self._linears = _to_pack(model)

    def renew(self) -> None:
        """Packs the live weights; drops the copies of former ones."""
        for each in self._linears:
            packed = torch.ops.mkldnn._reorder_linear_weight(each.weight, None)
            each.forward = partial(_multiply, packed, each.bias)

    def close(self) -> None:
        """Lets go of the layers."""
        self._linears = []


def packed_bytes(pair: Pair, *, dtype: torch.dtype) -> int:
    """Returns the bytes of the packed copies on a CPU, before the model is loaded; ``dtype`` is the compute dtype.

    The result is 0 for a model that transformers cannot make: opening the engine says why.
    """
    try:
        model = model_without_weights(pair.thinking).to(dtype)
    except Exception:  # an unknown or wrong config can raise anything
        return 0
    return sum(each.weight.nbytes for each in _to_pack(model))


def _to_pack(model: Any) -> list[Any]:
    """Returns the linear layers to pack; none where that does not pay or takes too much memory."""
    large = [each for each in model.modules() if type(each) is Linear and _is_packable(each.weight)]
    num_bytes = sum(each.weight.nbytes for each in large)
    return large if _has_onednn() and num_bytes <= MOST_BYTES else []


def _is_packable(weight: Tensor) -> bool:
    """Returns whether a weight gets a packed copy; one without values (on the meta device) counts as on a CPU."""
    return weight.device.type in ("cpu", "meta") and weight.dtype == torch.float32 and weight.numel() >= SMALLEST


def _has_onednn() -> bool:
    """Returns whether this PyTorch has the operations, which torch.compile uses and which no API names."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return (
        platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # untyped upstream
        and all(hasattr(torch.ops.mkldnn, name) for name in names)
    )


def _multiply(packed: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """Returns ``x`` [..., in] times the weights, [..., out]."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, packed, bias, "none", (), "")
    return product
