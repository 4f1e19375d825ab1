"""Merges and rounds in one pass over the memory: each model is read once, and the merge is written once.

On a CPU the work is done in pieces that stay in the cache, with PyTorch's own operations. On a GPU one Triton kernel
does all of it (``triton_kernel.py``), once it has given the same bits as PyTorch's operations on that GPU.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from autolambda.coefficients import Coefficients
from autolambda.merging.kernels.formula import blend, roles_of
from autolambda.merging.rounding import Draws, Rounding, dither, matrix_shape

ON_LINE = roles_of(Coefficients(0.5))
_PIECES = {"cpu": 1 << 19, "cuda": 1 << 24}  # values; a CPU takes one piece for each thread
_logger = logging.getLogger(__name__)
_scratch = threading.local()


def combine_in_pieces(models: Mapping[str, Tensor], at: Coefficients, *, draws: Draws | None, out: Tensor) -> Tensor:
    """Writes the merge (``formula.py``) of equal-shaped ``models`` by role, rounded to their dtype, into ``out``.

    ``out`` has their shape, their dtype or a wider one, and any strides and device. ``draws`` covers the whole tensor;
    without it the merge is rounded to nearest.
    """
    shape = matrix_shape(out.shape)
    if draws is not None and shape != (len(draws.rows), len(draws.columns)):
        raise ValueError(
            f"draws of {len(draws.rows)} rows and {len(draws.columns)} columns do not fit {list(out.shape)}"
        )
    if out.numel() == 0:
        return out
    fits = out.dim() == 2 or out.is_contiguous()
    target = out if fits else torch.empty_like(out, memory_format=torch.contiguous_format)
    matrices = {role: models[role].reshape(shape) for role in roles_of(at)}
    if draws is None:
        _merge_in_pieces(matrices, at, target.view(shape), None)
    else:
        merge = _merge_on_gpu if out.is_cuda else _merge_in_pieces
        merge(matrices, at, target.view(shape), draws.to(out.device))
    return out if target is out else out.copy_(target)


def _merge_on_gpu(models: Mapping[str, Tensor], at: Coefficients, out: Tensor, draws: Draws) -> None:
    """Merges matrices by the Triton kernel where it works, and on the line between the parents only.

    Parents in host memory are copied piece by piece.
    """
    dtype = models["instruct"].dtype
    with torch.cuda.device(out.device):
        if len(models) > len(ON_LINE) or not _triton_works(out.device, dtype):
            return _merge_in_pieces(models, at, out, draws)
        from autolambda.merging.kernels.triton_kernel import lerp_dithered_matrix

        on_device = all(parent.device == out.device for parent in models.values())
        step = len(out) if on_device else max(1, _PIECES["cuda"] // out.shape[1])
        for parents, target, keys in _pieces(models, out, draws, step=step):
            assert keys is not None
            start, end = (parents[role].to(out.device, non_blocking=True) for role in ON_LINE)  # in the stream's order
            lerp_dithered_matrix(start, end, at.lam, draws=keys, out=target)
    return None


def _merge_in_pieces(models: Mapping[str, Tensor], at: Coefficients, out: Tensor, draws: Draws | None) -> None:
    """Merges matrices by whole rows, in buffers that are used again by the next tensor of this thread."""
    num_rows, num_columns = out.shape
    size = _PIECES["cuda"] if out.is_cuda else _PIECES["cpu"] * torch.get_num_threads()
    step = min(max(1, size // num_columns), num_rows)
    dtype = models["instruct"].dtype
    kept = _buffers(step * num_columns, out.device)
    values, spare = (buffer[: step * num_columns].view(step, num_columns) for buffer in kept)
    bits, drawn = values.view(torch.int32), spare.view(torch.int32)  # the draws take the place of a model's values
    for parents, target, keys in _pieces(models, out, draws, step=step):
        if len(target) < step:
            values, spare, bits, drawn = (buffer[: len(target)] for buffer in (values, spare, bits, drawn))
        blend(parents, at, result=values, spare=spare)
        if keys is None:
            target.copy_(values if target.dtype == dtype else values.to(dtype))
            continue
        torch.mul(keys.rows[:, None], keys.columns[None, :], out=drawn)
        drawn.bitwise_right_shift_(16).bitwise_and_(0xFFFF)
        if target.dtype == torch.bfloat16:  # what ``dither`` does, in fewer passes
            target.view(torch.int16).copy_(drawn.add_(bits).bitwise_right_shift_(16))
        else:
            target.copy_(dither(values, dtype, drawn))


def _pieces(
    models: Mapping[str, Tensor], out: Tensor, draws: Draws | None, *, step: int
) -> Iterator[tuple[dict[str, Tensor], Tensor, Draws | None]]:
    """Yields ``step`` rows of the models by role and of the target, and the draws of these rows."""
    parts = (torch.split(tensor, step) for tensor in (out, *models.values()))
    for index, (target, *pieces) in enumerate(zip(*parts, strict=True)):
        rows = slice(index * step, (index + 1) * step)
        yield dict(zip(models, pieces, strict=True)), target, draws and draws.part(rows)


def _buffers(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns two float32 buffers of at least ``size`` values that this thread keeps."""
    kept: tuple[Tensor, Tensor] | None = getattr(_scratch, "buffers", None)
    if kept is None or kept[0].device != device or len(kept[0]) < size:
        with torch.inference_mode(False):  # else they could not be written outside inference mode later
            kept = (torch.empty(size, device=device), torch.empty(size, device=device))
        _scratch.buffers = kept
    return kept


@functools.cache
def _triton_works(device: torch.device, dtype: torch.dtype) -> bool:
    """Tells whether the Triton kernel gives the bits of PyTorch's operations on this device."""
    try:
        for shape in ((37, 301), (6000, 1)):
            _check_triton(shape, device, dtype)
    except Exception as error:  # whatever fails in a compiler
        _logger.warning("merges on %s run without Triton, more slowly: %s", device, error)
        return False
    return True


def _check_triton(shape: tuple[int, int], device: torch.device, dtype: torch.dtype) -> None:
    """Merges close parents of many magnitudes both ways. Raises ``ArithmeticError`` if the bits differ.

    A matrix of one column gets draws that just move a weight, or just do not, so one step of float32 would be seen.
    """
    from autolambda.merging.kernels.triton_kernel import lerp_dithered_matrix

    generator = torch.Generator().manual_seed(0)
    instruct = torch.randn(shape, generator=generator) * 10 ** (-6 * torch.rand(shape, generator=generator))
    thinking = instruct * (1 + 0.5 * torch.randn(shape, generator=generator))
    parents = instruct.to(device, dtype), thinking.to(device, dtype)
    models = dict(zip(ON_LINE, parents, strict=True))
    for lam in (-0.7, 0.05, 0.3, 0.5, 0.55, 0.9, 1.2):
        draws = Rounding().draws("", shape, dtype)
        assert draws is not None
        if shape[1] == 1:
            one, other = (parent.cpu().float() for parent in parents)
            draws = _edge_draws(torch.lerp(one, other, lam), dtype)
        for out_dtype in (dtype, torch.float32):
            expected, found = (torch.zeros(shape, dtype=out_dtype, device=device) for _ in range(2))
            _merge_in_pieces(models, Coefficients(lam), expected, draws.to(device))
            lerp_dithered_matrix(*parents, lam, draws=draws.to(device), out=found)
            if not torch.equal(found.view(torch.uint8), expected.view(torch.uint8)):
                raise ArithmeticError(f"the kernel's bits differ for {dtype} at lambda {lam}")


def _edge_draws(values: Tensor, dtype: torch.dtype) -> Draws:
    """Returns draws with which every even value of a column [n, 1] is rounded away from zero by 1, and no odd one."""
    cut = 16 if dtype == torch.bfloat16 else 13
    rest = values.view(torch.int32).view(-1) & (1 << cut) - 1
    drawn = ((1 << cut) - rest - torch.arange(len(rest), dtype=torch.int32) % 2) << 16 - cut
    return Draws(drawn.clamp(max=0xFFFF) << 16 | 1, torch.ones(1, dtype=torch.int32))
