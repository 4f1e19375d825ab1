"""The arithmetic on tensors: computes a merged tensor from the models' tensors, on any device.

``combine`` computes the formula of ``kernels/formula.py`` in float32, with one rounding to the checkpoint's dtype
(``rounding.py``); ``interpolate`` is its line, ``W = (1 - lam) * Instruct + lam * Thinking``. Where the coefficients
name one model, it returns this model bit for bit, -0.0 included. Every linear merge calls it, so engines, exports and
later runs hold equal bits. The baselines (task arithmetic, TIES, SLERP) also compute in float32 and round once, by the
same rules.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from autolambda.coefficients import Coefficients
from autolambda.errors import PairError
from autolambda.merging.kernels.formula import roles_of
from autolambda.merging.kernels.lerp import combine_in_pieces
from autolambda.merging.rounding import Draws, rounded

MERGEABLE = (torch.bfloat16, torch.float16, torch.float32)
SCALE_TASK_ARITHMETIC, SCALE_TIES = 0.7, 0.5  # from arXiv 2510.10977


def interpolate(
    instruct: Tensor, thinking: Tensor, lam: float, *, out: Tensor | None = None, draws: Draws | None = None
) -> Tensor:
    """Returns the merge on the line between two tensors: ``combine`` of both parents alone."""
    return combine({"instruct": instruct, "thinking": thinking}, Coefficients(lam), out=out, draws=draws)


@torch.no_grad()
def combine(
    models: Mapping[str, Tensor], at: Coefficients, *, out: Tensor | None = None, draws: Draws | None = None
) -> Tensor:
    """Returns the linear merge of tensors of equal shape and dtype, in their dtype and on Instruct's device.

    ``models`` are by role: instruct, thinking, base and third; only those of ``roles_of`` are read. ``draws`` are the
    tensor's for dithered rounding; without them the merge is rounded to nearest.

    If ``out`` is given, the merge is written there and ``out`` is returned. ``out`` has the models' shape, their dtype
    or a wider one, and any strides and device. The value is rounded to the models' dtype first. Integer and boolean
    tensors must be equal and are copied. Raises ``PairError`` when the models differ in shape, dtype or integer values,
    and ``ValueError`` when a model is missing or ``out`` does not fit.
    """
    if missing := [role for role in roles_of(at) if role not in models]:
        raise ValueError(f"{at} reads {missing[0]}, which is not among the models: {', '.join(models)}")
    models = {role: models[role] for role in roles_of(at)}
    _check_alike(models)
    instruct, thinking = models["instruct"], models["thinking"]
    if out is None:
        out = torch.empty_like(instruct, memory_format=torch.contiguous_format)
    elif out.shape != instruct.shape or torch.promote_types(out.dtype, instruct.dtype) != out.dtype:
        raise ValueError(
            f"out is {_form(out)}, but the parents are {_form(instruct)}; "
            "give an out of the parents' shape, in their dtype or a wider one"
        )
    if at.copied is not None or not instruct.is_floating_point():
        return out.copy_(models[at.copied or "instruct"])
    on_line = out.dtype == instruct.dtype and at == Coefficients(at.lam)
    if draws is None and on_line and instruct.device == thinking.device == out.device:
        return torch.lerp(instruct, thinking, at.lam, out=out)
    return combine_in_pieces(models, at, draws=draws, out=out)


@torch.no_grad()
def task_arithmetic(
    base: Tensor,
    instruct: Tensor,
    thinking: Tensor,
    *,
    scale: float = SCALE_TASK_ARITHMETIC,
    draws: Draws | None = None,
) -> Tensor:
    """Returns ``B + scale * ((I - B) + (T - B))`` for three tensors of equal shape, in their dtype and device.

    The formula is from Ilharco et al. (2023); arXiv 2510.10977 uses a scale of 0.7 for both parents. Each value is
    independent, so pieces and whole tensors give equal bits. Integer and boolean tensors must be equal and are
    copied. Raises ``PairError`` when the tensors differ in shape, dtype or integer values.
    """
    _check_alike({"base": base, "instruct": instruct, "thinking": thinking})
    if not base.is_floating_point():
        return base.clone()
    start, one, other = (tensor.contiguous().float() for tensor in (base, instruct, thinking))
    return rounded(start + scale * ((one - start) + (other - start)), base.dtype, draws)


@torch.no_grad()
def ties(
    base: Tensor,
    instruct: Tensor,
    thinking: Tensor,
    *,
    limits: tuple[Tensor, Tensor],
    scale: float = SCALE_TIES,
    draws: Draws | None = None,
) -> Tensor:
    """Returns the TIES merge (Yadav et al. 2023) of three tensors of equal shape and dtype, in their dtype and device.

    A task vector is ``I - B`` or ``T - B``, in float32. A value of it is kept if its magnitude is not 0 and at least
    the limit in ``limits`` (float32 [], from ``ties_limits``). The elected sign is the sign of the sum of the kept
    values; if the sum is 0, the base's value stays. The result is ``B + scale * mean``, the mean of the kept values
    with the elected sign. Once the limits are known, each value is independent, so pieces and whole tensors give
    equal bits. Integer and boolean tensors must be equal and are copied. Raises ``PairError`` when the tensors differ
    in shape, dtype or integer values.
    """
    _check_alike({"base": base, "instruct": instruct, "thinking": thinking})
    if not base.is_floating_point():
        return base.clone()
    start = base.contiguous().float()
    changes = [(model.float() - start, limit) for model, limit in zip((instruct, thinking), limits, strict=True)]
    kept = [change * (change.abs() >= limit) for change, limit in changes]
    sign = (kept[0] + kept[1]).sign()
    agreeing = [change * (change.sign() == sign) for change in kept]
    count = (agreeing[0] != 0).float() + (agreeing[1] != 0).float()
    return rounded(start + scale * ((agreeing[0] + agreeing[1]) / count.clamp(min=1)), base.dtype, draws)


@torch.no_grad()
def slerp(
    instruct: Tensor,
    thinking: Tensor,
    lam: float,
    *,
    weights: tuple[float, float] | None,
    draws: Draws | None = None,
) -> Tensor:
    """Returns ``weights[0] * I + weights[1] * T`` for two tensors of equal shape and dtype, in their dtype and device.

    ``weights`` come from ``slerp_weights``. If they are ``None``, if lam is 0 or 1, and for integers, it returns
    ``interpolate``. Raises the errors of ``interpolate``.
    """
    _check_alike({"instruct": instruct, "thinking": thinking})
    if weights is None or lam in (0.0, 1.0) or not instruct.is_floating_point():
        return interpolate(instruct, thinking, lam, draws=draws)
    return rounded(weights[0] * instruct.contiguous().float() + weights[1] * thinking.float(), instruct.dtype, draws)


def _check_alike(tensors: Mapping[str, Tensor]) -> None:
    """Raises ``PairError`` when tensors, keyed by the names of their models, cannot be merged with each other."""
    first, *others = tensors.values()
    names = list(tensors)
    if any(other.shape != first.shape or other.dtype != first.dtype for other in others):
        seen = ", ".join(f"{name} {_form(tensor)}" for name, tensor in tensors.items())
        raise PairError(f"the models' tensors differ: {seen}; merge checkpoints of one architecture and dtype")
    if first.is_floating_point():
        if first.dtype not in MERGEABLE:
            raise PairError(f"{_form(first)} cannot be merged; use bfloat16, float16 or float32 checkpoints")
    elif not all(torch.equal(first, other) for other in others):
        raise PairError(f"integer tensors must be equal in {' and '.join(names)}; these of {_form(first)} differ")


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
