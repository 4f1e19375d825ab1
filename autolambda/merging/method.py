"""How models become one, as plain values that travel to other processes.

``linear`` is the interpolation that is searched, by a schedule. The others are the baselines of arXiv 2510.10977:
``slerp`` takes a schedule too; ``task_arithmetic`` and ``ties`` stand on a base model, and have no lambda.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from autolambda.errors import ConfigError
from autolambda.schedule import Schedule

MethodName = Literal["linear", "task_arithmetic", "ties", "slerp"]
METHODS: tuple[MethodName, ...] = get_args(MethodName)
METHODS_IN_WORDS: Mapping[MethodName, str] = {
    "linear": "A weight interpolation `(1 - lambda) * Instruct + lambda * Thinking`",
    "task_arithmetic": "Task arithmetic `Base + 0.7 * ((Instruct - Base) + (Thinking - Base))`",
    "ties": "A TIES merge of Instruct and Thinking around their base model (density 0.2, scale 0.5)",
    "slerp": "A spherical interpolation of Instruct and Thinking, tensor by tensor",
}
AROUND_BASE = ("task_arithmetic", "ties")


@dataclass(frozen=True)
class Method:
    """A method with what it takes: a ``schedule``, or the folder or hub id of a ``base`` model.

    Raises ``ConfigError`` for one that lacks what it takes, or is given what it does not.
    """

    name: MethodName
    schedule: Schedule | None = None
    base: str | None = None

    def __post_init__(self) -> None:
        if (self.name in AROUND_BASE) != (self.base is not None):
            needs = "needs a" if self.base is None else "takes no"
            raise ConfigError(f"base: {self.name} {needs} base model, seen {self.base!r}")
        if (self.name in AROUND_BASE) == (self.schedule is not None):
            needs = "needs a" if self.schedule is None else "takes no"
            raise ConfigError(f"schedule: {self.name} {needs} lambda, seen {self.schedule}")

    @classmethod
    def linear(cls, schedule: Schedule) -> Method:
        """The interpolation by a schedule."""
        return cls("linear", schedule)

    def to_dict(self) -> dict[str, Any]:
        """The plain form for JSON and for other processes; without the base, which is a path of this machine."""
        return {"method": self.name} | ({"schedule": self.schedule.to_dict()} if self.schedule else {})

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], *, base: str | None = None) -> Method:
        """The method of ``to_dict``. Raises ``ConfigError`` or ``ScheduleError`` for anything else."""
        name, schedule = plain.get("method"), plain.get("schedule")
        if name not in METHODS or not isinstance(schedule, Mapping | None):
            raise ConfigError(
                f"a method is one of {', '.join(METHODS)}, with a schedule; seen {str(dict(plain))[:80]!r}"
            )
        return cls(name, None if schedule is None else Schedule.from_dict(schedule), base)

    def __str__(self) -> str:
        if self.name == "linear":
            return str(self.schedule)
        return self.name if self.schedule is None else f"{self.name}, {self.schedule}"
