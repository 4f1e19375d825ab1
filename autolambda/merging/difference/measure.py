"""Compares two parents weight by weight in one pass, on an evenly spread sample of the rows of every tensor.

Small models are compared whole. Rows are read as pieces of mapped files, so the memory does not grow with the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from autolambda.merging.arithmetic import interpolate
from autolambda.merging.checkpoint import Checkpoint
from autolambda.merging.difference.values import PARTS, STEPS, WHOLE, ParentDifference
from autolambda.merging.merge import Merge
from autolambda.merging.pair import Pair
from autolambda.merging.reading import fitted, read_tensor, stored_name
from autolambda.merging.rounding import DITHERED, Draws, matrix_shape
from autolambda.merging.shards import TensorInfo
from autolambda.merging.writing.write import one_thread_each

LAMBDAS = (0.1, 0.2, 0.25, 0.3, 0.4, 0.45, 0.49, 0.5, 0.51, 0.55, 0.6, 0.7, 0.75, 0.8, 0.9)
MOST_WEIGHTS = 1 << 22  # of a sample, about: its shares are within a point or so
_PIECE = 1 << 16  # values that stay in the cache of a core
_GOLDEN = (math.sqrt(5) - 1) / 2
_DIGITS = 6  # of stored numbers; sums by several threads differ in later ones


@dataclass
class _Sums:
    """What is added up over the weights of a part of the model."""

    steps: Tensor = field(default_factory=lambda: torch.zeros(len(STEPS), dtype=torch.int64))
    moved: Tensor = field(default_factory=lambda: torch.zeros(len(LAMBDAS), dtype=torch.float64))
    square: float = 0.0


@torch.no_grad()
@one_thread_each()
def measure_difference(pair: Pair) -> ParentDifference:
    """Returns how far the parents are apart, and how far their merges rounded to nearest move from one to the other.

    The latter is ``sum((M - I) * (T - I)) / sum((T - I)**2)``, with the sums in float64; without rounding it is lambda.
    Only tensors in bfloat16 and float16 are compared, up to about ``MOST_WEIGHTS`` of their values. Raises
    ``CheckpointError`` when a file cannot be read.
    """
    infos = {name: info for name, info in pair.tensors.items() if info.dtype in DITHERED}
    infos = {name: info for name, info in infos.items() if name not in pair.outside}
    name_of, rounding = str(pair.dtype).removeprefix("torch."), pair.rounding.name
    if not infos:
        return ParentDifference(name_of, rounding, 0, False, None, (), {})
    sums: dict[str, _Sums] = {}
    parents = (pair.instruct, pair.thinking)
    for name, rows in _compared_rows(parents, infos).items():
        part = sums.setdefault(_module_of(name, pair), _Sums())
        for instruct, thinking in _pieces(parents, name, rows, infos[name].dtype):
            _add(part, instruct, thinking)
    sums = {WHOLE: _total(sums), **{part: sums[part] for part in PARTS if part in sums}}
    num_weights = int(sums[WHOLE].steps.sum())
    return ParentDifference(
        dtype=str(max(infos.values(), key=lambda info: info.num_values).dtype).removeprefix("torch."),
        rounding=rounding,
        num_weights=num_weights,
        is_sample=num_weights < sum(info.num_values for info in infos.values()),
        steps={part: _rounded(each.steps / each.steps.sum()) for part, each in sums.items() if each.steps.any()},
        lambdas=LAMBDAS,
        moved={part: _rounded(each.moved / each.square) for part, each in sums.items() if each.square},
    )


def hold_one_model(pair: Pair) -> bool:
    """Returns whether both parents hold the same weights. It reads until the first difference, small tensors first."""
    for name in sorted(pair.tensors, key=lambda name: pair.tensors[name].num_bytes):
        instruct, thinking = (read_tensor(parent, name) for parent in (pair.instruct, pair.thinking))
        if not torch.equal(fitted(instruct, thinking), thinking):
            return False
    return True


@one_thread_each()
def share_beside_nearest(merge: Merge) -> float:
    """Returns the share (0 to 1) of a merge's weights that rounding to nearest would give another value.

    It looks at the rows of ``measure_difference``, and also takes the sums of TIES and SLERP over these rows. Raises
    like ``measure_difference``.
    """
    infos = {name: info for name, info in merge.infos.items() if info.dtype in DITHERED}
    rows = _compared_rows([*merge.models.values()], infos)
    shapes = {name: (len(rows[name]), matrix_shape(info.shape)[1]) for name, info in infos.items()}
    small = replace(merge, infos={name: replace(info, shape=shapes[name]) for name, info in infos.items()})
    num_beside = sum(_num_beside(small, name, merge.draws(name), rows[name]) for name in infos)
    return num_beside / max(1, sum(map(math.prod, shapes.values())))


def sampled_rows(infos: Mapping[str, TensorInfo]) -> dict[str, Tensor]:
    """Returns the rows to compare of each tensor, seen as a matrix (``matrix_shape``): int64, ascending.

    There are all rows if the tensors have no more than ``MOST_WEIGHTS`` values, else one of every few. Their distances
    vary, so that they do not fall into step with the heads of a layer.
    """
    every = max(1, -(-sum(info.num_values for info in infos.values()) // MOST_WEIGHTS))
    return {name: _spread(matrix_shape(info.shape)[0], every) for name, info in infos.items()}


def _compared_rows(models: Sequence[Checkpoint], infos: Mapping[str, TensorInfo]) -> dict[str, Tensor]:
    """Returns the sampled rows that all models have, by tensor: padding rows are not compared."""
    return {
        name: rows[rows < min(matrix_shape(model.tensors[stored_name(model, name)].shape)[0] for model in models)]
        for name, rows in sampled_rows(infos).items()
    }


def order(values: Tensor) -> Tensor:
    """Returns bfloat16 or float16 values as int32 numbers in the order of all values; neighbours differ by 1."""
    bits = values.view(torch.int16).int()
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)


def _module_of(name: str, pair: Pair) -> str:
    """Returns the module of a tensor; ``other`` where the modules are not known."""
    locations = pair.modules.locations
    return locations[name].module if locations and name in locations else "other"


def _spread(num_rows: int, every: int) -> Tensor:
    """Returns one row of each ``every`` rows. Its place among them follows the golden ratio."""
    if every == 1:
        return torch.arange(num_rows)
    strata = torch.arange(-(-num_rows // every), dtype=torch.float64)
    places = (strata + strata * _GOLDEN % 1) * (num_rows / max(1, len(strata)))
    return places.long().clamp(max=num_rows - 1)


def _pieces(models: Sequence[Checkpoint], name: str, rows: Tensor, dtype: torch.dtype) -> Iterator[tuple[Tensor, ...]]:
    """Yields some ``rows`` of a tensor of each model, piece by piece, as matrices."""
    tensors = [read_tensor(model, name) for model in models]
    matrices = [tensor.reshape(matrix_shape(tensor.shape)) for tensor in tensors]
    for part in _parts(rows, matrices[0].shape[1]):
        yield tuple(matrix[part].to(dtype) for matrix in matrices)


def _parts(rows: Tensor, num_columns: int) -> tuple[Tensor, ...]:
    """Returns the rows in groups of about ``_PIECE`` values."""
    return torch.split(rows, max(1, _PIECE // max(1, num_columns)))


def _add(sums: _Sums, instruct: Tensor, thinking: Tensor) -> None:
    start = instruct.double()
    change = (thinking.double() - start).view(-1)
    steps = (order(instruct) - order(thinking)).abs_().clamp_(max=len(STEPS) - 1)
    sums.steps += torch.bincount(steps.view(-1), minlength=len(STEPS))
    sums.square += float(change @ change)
    for index, lam in enumerate(LAMBDAS):
        sums.moved[index] += (interpolate(instruct, thinking, lam).double() - start).view(-1) @ change


def _num_beside(small: Merge, name: str, draws: Draws | None, rows: Tensor) -> int:
    """Counts the values in some rows of a tensor that its draws round to another value than the nearest."""
    if draws is None:
        return 0
    num_beside = 0
    pieces = partial(_pieces, tuple(small.models.values()), name, rows, small.infos[name].dtype)
    make = small.arithmetic(name, pieces)
    for part, piece in zip(_parts(rows, small.infos[name].shape[1]), pieces(), strict=True):
        nearest, own = make(*piece, draws=None), make(*piece, draws=draws.part(part))
        num_beside += int((nearest.view(torch.int16) != own.view(torch.int16)).sum())
    return num_beside


def _total(sums: Mapping[str, _Sums]) -> _Sums:
    total = _Sums()
    for each in sums.values():
        total.steps += each.steps
        total.moved += each.moved
        total.square += each.square
    return total


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(round(value, _DIGITS) for value in values.tolist())
