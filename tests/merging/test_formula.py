"""The formula beyond the line: a scale around the base, a third parent, one rounding, equal bits everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from autolambda.coefficients import Coefficients
from autolambda.errors import PairError, ScheduleError
from autolambda.merging.arithmetic import combine, interpolate, task_arithmetic
from autolambda.merging.kernels.formula import roles_of
from autolambda.merging.kernels.sums import regions_of
from autolambda.merging.rounding import Draws, Rounding, matrix_shape, rounded

ROLES = ("instruct", "thinking", "base", "third")
FLOATS = (torch.bfloat16, torch.float16, torch.float32)
POINTS = (
    Coefficients(0.5, 1.4),
    Coefficients(0.3, 0.6),
    Coefficients(0.3, third=0.2),
    Coefficients(0.0, third=0.5),
    Coefficients(1.2, 1.1, -0.1),
    Coefficients(-0.2, 0.3, 0.7),
)
FUSED = torch.backends.cpu.get_cpu_capability().startswith("AVX")


def models_of(*shape: int, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(shape, generator=generator) * 0.05
    return {role: (base + 0.01 * torch.randn(shape, generator=generator)).to(dtype) for role in ROLES}


def draws_of(*shape: int) -> Draws | None:
    return Rounding().draws("a", shape, torch.bfloat16)


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(bits(one), bits(other))


def lerp(start: np.ndarray, end: np.ndarray, weight: float) -> np.ndarray:
    number = np.float32(weight)
    first, factor = (start, number) if abs(number) < 0.5 else (end, number - np.float32(1))
    kind = np.float64 if FUSED else np.float32
    return (first.astype(kind) + kind(factor) * (end - start).astype(kind)).astype(np.float32)


def reference(models: dict[str, Tensor], at: Coefficients) -> Tensor:
    """The formula in numpy, operation by operation."""
    instruct, thinking, base, third = (models[role].float().numpy() for role in ROLES)
    values = lerp(instruct, thinking, at.lam)
    if at.third:
        values = values + np.float32(at.third) * (third - instruct)
    return torch.from_numpy(lerp(base, values, at.scale) if at.scale != 1 else values)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("at", POINTS, ids=str)
def test_equals_the_formula_rounded_once(at: Coefficients, dtype: torch.dtype) -> None:
    models = models_of(301, 333, dtype=dtype)
    draws = Rounding().draws("a", (301, 333), dtype)
    expected = reference(models, at)
    assert same(combine(models, at), expected.to(dtype))
    assert same(combine(models, at, draws=draws), rounded(expected, dtype, draws))
    for wide in (torch.full((301, 333), torch.nan), torch.full((333, 301), torch.nan).t()):
        assert same(combine(models, at, draws=draws, out=wide), rounded(expected, dtype, draws).float())
        assert same(combine(models, at, out=wide), expected.to(dtype).float())


@pytest.mark.parametrize("at", POINTS, ids=str)
@pytest.mark.parametrize("shape", [(1203, 333), (3, 200_003), (4, 30, 50)], ids=str)
def test_pieces_and_parts_give_the_bits_of_the_whole(at: Coefficients, shape: tuple[int, ...]) -> None:
    models, draws = models_of(*shape), draws_of(*shape)
    assert draws is not None
    whole = combine(models, at, draws=draws).view(matrix_shape(shape))
    matrices = {role: model.view(matrix_shape(shape)) for role, model in models.items()}
    for region in [*regions_of(shape), (slice(1, 3), slice(5, 40)), (slice(0, 120, 2), slice(None, None, 3))]:
        parts = {role: model[region] for role, model in matrices.items()}
        assert same(combine(parts, at, draws=draws.part(*region)), whole[region])


@pytest.mark.parametrize("lam", [-0.7, -0.2, 0.0, 0.3, 0.5, 1.0, 1.3])
def test_scale_1_without_a_third_parent_is_the_line_and_reads_no_other_model(lam: float) -> None:
    models, draws = models_of(40, 50), draws_of(40, 50)
    parents = {role: models[role] for role in ("instruct", "thinking")}
    found = combine(parents, Coefficients(lam), draws=draws)
    assert same(found, interpolate(*parents.values(), lam, draws=draws))
    broken = {**models, "base": models["base"] * torch.nan, "third": models["third"][1:]}
    assert same(combine(broken, Coefficients(lam), draws=draws), found)


@pytest.mark.parametrize(
    ("at", "role"),
    [
        (Coefficients(0.0), "instruct"),
        (Coefficients(1.0), "thinking"),
        (Coefficients(0.0, third=1.0), "third"),
        (Coefficients(0.4, 0.0, 0.3), "base"),
    ],
)
def test_where_one_model_is_named_it_is_copied(at: Coefficients, role: str) -> None:
    models = models_of(20, 30)
    models = {name: torch.where(torch.arange(30) < 3, -0.0, model) for name, model in models.items()}
    assert at.copied == role and same(combine(models, at, draws=draws_of(20, 30)), models[role])
    assert combine(models, at).data_ptr() != models[role].data_ptr()


def test_task_arithmetic_at_any_coefficients_is_a_point() -> None:
    models = models_of(300, 400, dtype=torch.float32)
    first, second = 0.9, 0.5
    own = combine(models, Coefficients(second / (first + second), first + second)).double()
    start, one, other = (models[role].double() for role in ("base", "instruct", "thinking"))
    assert (own - (start + first * (one - start) + second * (other - start))).abs().max() < 1e-7
    paper = task_arithmetic(*(models[role] for role in ("base", "instruct", "thinking")))
    assert (combine(models, Coefficients(0.5, 1.4)) - paper).abs().max() < 1e-7


def test_a_model_that_is_missing_or_does_not_fit_is_refused() -> None:
    models = models_of(4, 5)
    with pytest.raises(ValueError, match="reads base"):
        combine({role: models[role] for role in ("instruct", "thinking")}, Coefficients(0.5, 1.2))
    with pytest.raises(PairError, match=r"third bfloat16 \[4, 4\]"):
        combine(models | {"third": models["third"][:, 1:]}, Coefficients(0.5, third=0.2))
    for wrong in ({"lam": 2.1}, {"lam": 0.5, "scale": -0.1}, {"lam": 0.5, "third": 2.5}):
        with pytest.raises(ScheduleError, match="must lie between"):
            Coefficients(**wrong)


def test_only_what_the_formula_needs_is_read() -> None:
    assert [roles_of(at)[2:] for at in POINTS[:3]] == [("base",), ("base",), ("third",)]
