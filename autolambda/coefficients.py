"""The numbers of a schedule: of one parameter, and of the modules.

A parameter of the base model B, Instruct I, Thinking T and a third parent C is merged to

    W = B + scale ((1 - lam - third) (I - B) + lam (T - B) + third (C - B))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from autolambda.errors import ScheduleError, in_short

Module = Literal["attention", "ffn", "other"]
MODULES: tuple[Module, ...] = get_args(Module)

LIMITS = {"lambda": (-1.0, 2.0), "scale": (0.0, 3.0), "third": (-1.0, 2.0)}
"""The range of each number of a schedule. A lambda outside [0, 1] extrapolates."""

RANGE_EXTRAPOLATES = "lambdas outside [0, 1] give weights that are no average of trained ones, so check the outputs"
EXTRAPOLATES = "the schedule extrapolates: its weights are no average of trained ones, so check the model's outputs"


@dataclass(frozen=True)
class Coefficients:
    """The numbers that merge one parameter."""

    lam: float
    scale: float = 1.0
    third: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("lambda", self.lam), ("scale", self.scale), ("third", self.third)):
            check(value, name)

    @property
    def copied(self) -> str | None:
        """The role of the model whose parameter the merge has bit for bit; ``None`` for a true merge."""
        if self.scale == 0.0:
            return "base"
        ends = {(0.0, 0.0): "instruct", (1.0, 0.0): "thinking", (0.0, 1.0): "third"}
        return ends.get((self.lam, self.third)) if self.scale == 1.0 else None


@dataclass(frozen=True)
class ByModule:
    """One number for each module."""

    attention: float
    ffn: float
    other: float

    @classmethod
    def all(cls, value: float) -> ByModule:
        """Returns equal numbers."""
        return cls(value, value, value)

    @classmethod
    def from_plain(cls, plain: object, key: str) -> ByModule:
        """Reads what ``to_plain`` wrote, the numbers of ``key``. Raises ``ScheduleError`` for anything else."""
        if isinstance(plain, Mapping) and set(plain) == set(MODULES):
            return cls(**{module: number(value, key) for module, value in plain.items()})
        if isinstance(plain, Mapping):
            raise ScheduleError(
                f"{key}: expected a number, or one each for attention, ffn and other, seen {in_short(dict(plain))}"
            )
        return cls.all(number(plain, key))

    @property
    def value(self) -> float | None:
        """The number of all modules; ``None`` if they differ."""
        return self.other if self.attention == self.ffn == self.other else None

    def to_plain(self) -> float | dict[str, float]:
        """Returns a number, or one for each module by its name."""
        return asdict(self) if self.value is None else self.value

    def named(self, name: str) -> dict[str, float]:
        """Returns the numbers by name: ``scale``, or ``scale.attention`` and so on if they differ."""
        return {name: self.value} if self.value is not None else {f"{name}.{key}": n for key, n in asdict(self).items()}

    def in_short(self, ffn: str, other: str) -> str:
        """Returns the numbers as text; ``ffn`` and ``other`` are the modules' names."""
        if self.value is not None:
            return f"{self.value:.4g}"
        return f"(attention {self.attention:.4g}, {ffn} {self.ffn:.4g}, {other} {self.other:.4g})"


ONE, NONE = ByModule.all(1.0), ByModule.all(0.0)


def number(value: object, key: str) -> float:
    """Returns a value of a schedule's plain form as a number of ``key``. Raises ``ScheduleError`` for anything else."""
    name = key if key in LIMITS else "lambda"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ScheduleError(f"{key}: expected a number between {_limits(name)}, seen {in_short(value)}")
    check(value, name)  # before the conversion, which fails for a huge integer
    return float(value)


def check(value: float, name: str) -> None:
    """Raises ``ScheduleError`` for a number outside its ``LIMITS``."""
    if not LIMITS[name][0] <= value <= LIMITS[name][1]:
        raise ScheduleError(f"{name} must lie between {_limits(name)}, seen {value!r:.40}")


def _limits(name: str) -> str:
    low, high = LIMITS[name]
    return f"{low:g} and {high:g}" if name != "lambda" else f"{low:g} and {high:g} (0 is Instruct, 1 is Thinking)"
