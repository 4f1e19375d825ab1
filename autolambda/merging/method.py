"""The names of merge methods, roundings and parents, and a method with its arguments, as a value for other processes.

``linear`` interpolates by a schedule; a search optimises this method. The other three are the baselines of
arXiv 2510.10977: ``slerp`` takes a schedule too, ``task_arithmetic`` and ``ties`` take a base model and no lambda.
This module imports little, because ``autolambda --help`` reads the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from autolambda.errors import ConfigError

if TYPE_CHECKING:  # a schedule imports PyYAML
    from autolambda.schedule import Schedule

BaselineMethod = Literal["task_arithmetic", "ties", "slerp"]
MethodName = Literal["linear", BaselineMethod]
METHODS: tuple[MethodName, ...] = get_args(MethodName)
AROUND_BASE: tuple[BaselineMethod, ...] = ("task_arithmetic", "ties")
"""The methods that need a base model: they add the changes of both parents to it."""

Role = Literal["instruct", "thinking"]
ROLES: tuple[Role, ...] = get_args(Role)

RoundingName = Literal["dithered", "nearest"]
ROUNDINGS: tuple[RoundingName, ...] = get_args(RoundingName)

METHOD_TITLES: Mapping[BaselineMethod, str] = {"task_arithmetic": "task arithmetic", "ties": "TIES", "slerp": "SLERP"}
METHODS_IN_WORDS: Mapping[MethodName, str] = {
    "linear": "A weight interpolation `(1 - lambda) * Instruct + lambda * Thinking`",
    "task_arithmetic": "Task arithmetic `Base + 0.7 * ((Instruct - Base) + (Thinking - Base))`",
    "ties": "A TIES merge of Instruct and Thinking around their base model (density 0.2, scale 0.5)",
    "slerp": "A spherical interpolation of Instruct and Thinking, tensor by tensor",
}


BEYOND_IN_WORDS = (
    "A linear merge `Base + scale * ((1 - lambda - third) * (Instruct - Base) + lambda * (Thinking - Base) "
    "+ third * (Third - Base))`"
)


def reads_schedule(name: str, *, given: bool) -> bool:
    """Returns whether a user's lambda or schedule is to be read: the method needs one, or one is ``given``.

    ``Method`` refuses a schedule that it does not take.
    """
    return given or name not in AROUND_BASE


@dataclass(frozen=True)
class Method:
    """A method with its arguments: a ``schedule``, or the folder or hub id of a ``base`` model.

    Raises ``ConfigError`` when an argument is missing or when the method does not take it.
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
        if self.name == "slerp" and self.further:
            raise ConfigError(f"schedule: slerp takes no scale and no third parent, seen {self.schedule}")

    @classmethod
    def linear(cls, schedule: Schedule) -> Method:
        """Returns the linear method with a schedule."""
        return cls("linear", schedule)

    @property
    def further(self) -> tuple[str, ...]:
        """The roles of the models beside both parents that the schedule reads."""
        return self.schedule.further if self.schedule else ()

    @property
    def in_words(self) -> str:
        """The method and its formula, for a model card."""
        return BEYOND_IN_WORDS if self.further else METHODS_IN_WORDS[self.name]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON and for other processes. Leaves out ``base``, a path of this machine."""
        return {"method": self.name} | ({"schedule": self.schedule.to_dict()} if self.schedule else {})

    @classmethod
    def of(cls, name: MethodName, schedule: Schedule | None, *, base: str | None, third: str | None) -> Method:
        """Returns the method for the models that a user gives; the pair has the ``base`` that a linear schedule reads.

        Raises ``ConfigError`` if a model is missing or not read.
        """
        read = schedule.further if schedule and name == "linear" else ()
        method = cls(name, schedule, None if "base" in read else base)
        for role, source in (("base", base), ("third", third)):
            if role in read and source is None:
                raise ConfigError(
                    f"schedule: '{schedule}' reads a {role} model; give it with --{role} MODEL ({role}= in Python)"
                )
        if third is not None and "third" not in read:
            raise ConfigError(f"third: {method} takes no third model, seen {third!r}; give a schedule with its weight")
        return method

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], *, base: str | None = None) -> Method:
        """Returns the method that ``to_dict`` wrote. Raises ``ConfigError`` or ``ScheduleError`` for other values."""
        from autolambda.schedule import Schedule

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
