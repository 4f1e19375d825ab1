"""The formula of every linear merge, in float32: the line between the parents, a third parent, a scale around the base.

``W = B + scale ((1 - lam - third) (I - B) + lam (T - B) + third (C - B))`` is computed as ``lerp(B, P, scale)`` with
``P = lerp(I, T, lam) + third (C - I)``. ``torch.lerp(a, b, w)`` is ``fma(w, b - a, a)`` for |w| below 0.5, else
``fma(w - 1, b - a, b)``. All other operations are rounded one by one, so the bits depend on neither device nor shape.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from autolambda.coefficients import Coefficients


def roles_of(at: Coefficients) -> tuple[str, ...]:
    """Returns the roles of the models that the formula reads."""
    further = (("base", at.scale != 1.0), ("third", at.third != 0.0))
    return ("instruct", "thinking", *(role for role, is_read in further if is_read))


def blend(models: Mapping[str, Tensor], at: Coefficients, *, result: Tensor, spare: Tensor) -> Tensor:
    """Writes the unrounded merge of the ``models`` by role into ``result``, and returns it.

    ``result`` and ``spare`` are float32 tensors of the models' shape on one device, and ``spare`` is overwritten. The
    models may lie elsewhere, in any float dtype and strides.
    """

    def copied(role: str, to: Tensor) -> Tensor:
        # copies to a GPU run in the order of its stream; copies to the CPU are waited for
        return to.copy_(models[role].to(to.device, non_blocking=to.is_cuda))

    torch.lerp(copied("instruct", result), copied("thinking", spare), at.lam, out=result)
    if at.third != 0.0:
        instruct = models["instruct"].to(spare.device, non_blocking=spare.is_cuda)
        result.add_(copied("third", spare).sub_(instruct).mul_(at.third))
    if at.scale != 1.0:
        torch.lerp(copied("base", spare), result, at.scale, out=result)
    return result
