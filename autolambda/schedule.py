"""Schedules: the weight ``lam`` of the Thinking model for each parameter, and what goes beyond two models.

A schedule maps a parameter's location to ``lam``: 0 is Instruct, 1 is Thinking. It holds one profile over depth for the
*attention* modules and one for the *ffn* modules. A number covers the *other* parameters (embeddings, head, final
norm). A uniform lambda, one lambda per module and a curve over depth are special cases; merging/modules.py finds the
locations. ``scale`` and ``third`` are numbers by module:

    W = B + scale ((1 - lam - third) (I - B) + lam (T - B) + third (C - B))

with the base model B and a third parent C. At scale 1 and third 0, a schedule is on the *line* between both parents.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import yaml

from autolambda.coefficients import NONE, ONE, ByModule, Coefficients, Module, check, number
from autolambda.errors import ScheduleError, in_short, one_line
from autolambda.files import load_yaml, read_text

Kind = Literal["knots", "bands"]


@dataclass(frozen=True)
class Location:
    """A parameter's layer, from 0 (``None`` outside the layers), and its module."""

    layer: int | None
    module: Module


@dataclass(frozen=True)
class Profile:
    """Values of lam over depth: ``knots`` at equal distances joined by straight lines, or ``bands`` of layers.

    Equal values are stored as one value. With as many bands as layers, each layer has its own lam.
    """

    values: tuple[float, ...]
    kind: Kind = "knots"

    def __post_init__(self) -> None:
        if not self.values:
            raise ScheduleError(f"a profile of {self.kind} needs at least one value")
        for value in self.values:
            check(value, "lambda")
        if len(set(self.values)) == 1:
            object.__setattr__(self, "values", self.values[:1])
            object.__setattr__(self, "kind", "knots")

    def at(self, layer: int, num_layers: int) -> float:
        """Returns lam of layer ``layer`` (from 0) of ``num_layers``."""
        if len(self.values) == 1:
            return self.values[0]
        if self.kind == "bands":
            return self.values[layer * len(self.values) // num_layers]
        position = layer / max(num_layers - 1, 1) * (len(self.values) - 1)
        left = min(int(position), len(self.values) - 2)
        share, low, high = position - left, self.values[left], self.values[left + 1]
        return (
            low + share * (high - low) if share < 0.5 else high - (1 - share) * (high - low)
        )  # from the nearer end, so that rounding never leaves the range

    def mean(self) -> float:
        """Returns the mean over depth: of the bands, or of the line through the knots (trapezoidal rule)."""
        if self.kind == "bands" or len(self.values) == 1:
            return math.fsum(self.values) / len(self.values)
        inner = math.fsum((*self.values, -self.values[0] / 2, -self.values[-1] / 2))
        return inner / (len(self.values) - 1)

    def __str__(self) -> str:
        """``0.5312``, ``0.46→0.33→0.48`` for knots, ``0.20|0.80`` for bands: from the first layer to the last."""
        if len(self.values) == 1:
            return f"{self.values[0]:.4g}"
        return ("→" if self.kind == "knots" else "|").join(f"{value:.2f}" for value in self.values)

    def to_plain(self) -> float | dict[str, list[float]]:
        """Returns a number, ``{"knots": [...]}`` or ``{"bands": [...]}``."""
        return self.values[0] if len(self.values) == 1 else {self.kind: list(self.values)}


@dataclass(frozen=True)
class Schedule:
    """A schedule as a value. Equal schedules give bit-identical merges."""

    attention: Profile
    ffn: Profile
    other: float
    scale: ByModule = ONE
    third: ByModule = NONE

    def __post_init__(self) -> None:
        check(self.other, "lambda")
        for name in ("scale", "third"):
            for value in asdict(getattr(self, name)).values():
                check(value, name)

    @classmethod
    def uniform(cls, lam: float) -> Schedule:
        """Returns a schedule with one lam for every parameter."""
        return cls(Profile((lam,)), Profile((lam,)), lam)

    @classmethod
    def by_module(cls, *, attention: float, ffn: float, other: float | None = None) -> Schedule:
        """Returns a schedule with one lam for attention and one for ffn; ``other`` defaults to their mean."""
        return cls.by_depth_and_module(Profile((attention,)), Profile((ffn,)), other=other)

    @classmethod
    def by_depth(cls, profile: Profile, *, other: float | None = None) -> Schedule:
        """Returns a schedule with one profile over depth for both modules; ``other`` defaults to its mean."""
        return cls.by_depth_and_module(profile, profile, other=other)

    @classmethod
    def by_depth_and_module(cls, attention: Profile, ffn: Profile, *, other: float | None = None) -> Schedule:
        """Returns a schedule with a profile for each module; ``other`` defaults to the mean of their means."""
        return cls(attention, ffn, (attention.mean() + ffn.mean()) / 2 if other is None else other)

    def beyond(self, *, scale: float | ByModule = ONE, third: float | ByModule = NONE) -> Schedule:
        """Returns the schedule with a scale and a weight of the third parent, for all modules or by module."""
        scale, third = (each if isinstance(each, ByModule) else ByModule.all(each) for each in (scale, third))
        return replace(self, scale=scale, third=third)

    @property
    def is_on_line(self) -> bool:
        """Whether it reads the two parents alone: scale 1 and third 0."""
        return not self.further

    @property
    def further(self) -> tuple[str, ...]:
        """The roles of the models that it reads beside the two parents."""
        return tuple(
            role for role, unread in (("base", self.scale == ONE), ("third", self.third == NONE)) if not unread
        )

    @property
    def coefficients(self) -> Coefficients | None:
        """The coefficients of every parameter; ``None`` if they differ."""
        lams = {*self.attention.values, *self.ffn.values, self.other}
        scale, third = self.scale.value, self.third.value
        return None if len(lams) > 1 or scale is None or third is None else Coefficients(self.other, scale, third)

    @property
    def lam(self) -> float | None:
        """The lam of a uniform schedule on the line; ``None`` for any other."""
        return self.coefficients.lam if self.coefficients is not None and self.is_on_line else None

    @property
    def extrapolates(self) -> bool:
        """Whether it gives a parent a weight below 0 or above 1."""
        sides = ((self.attention, "attention"), (self.ffn, "ffn"), (Profile((self.other,)), "other"))
        shares = [(lam, getattr(self.third, module)) for side, module in sides for lam in side.values]
        return any(min(lam, third, 1 - lam - third) < -1e-9 for lam, third in shares)

    def at(self, location: Location, *, num_layers: int) -> Coefficients:
        """Returns the coefficients at a location. Raises ``ScheduleError`` for a layer that the model lacks."""
        module = location.module if location.layer is not None else "other"
        scale, third = getattr(self.scale, module), getattr(self.third, module)
        if location.layer is None:
            return Coefficients(self.other, scale, third)
        if location.layer >= num_layers:
            raise ScheduleError(f"layer {location.layer} of a model with {num_layers}")
        profile = self.attention if module == "attention" else self.ffn
        return Coefficients(profile.at(location.layer, num_layers), scale, third)

    def to_dict(self) -> dict[str, object]:
        """Returns the plain form for YAML and JSON, without what has its default value."""
        if self.attention == self.ffn:
            plain: dict[str, object] = {"lambda": self.attention.to_plain()}
        else:
            plain = {"attention": self.attention.to_plain(), "ffn": self.ffn.to_plain()}
        if self.other != Schedule.by_depth_and_module(self.attention, self.ffn).other:
            plain["other"] = self.other
        beyond = {"scale": (self.scale, ONE), "third": (self.third, NONE)}
        return plain | {key: each.to_plain() for key, (each, usual) in beyond.items() if each != usual}

    @property
    def key(self) -> str:
        """The plain form as one line of JSON, by which databases and seeds identify a schedule."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_dict(cls, plain: Mapping[str, object]) -> Schedule:
        """Reads ``{lambda: 0.6}``, ``{attention: 0.7, ffn: 0.5}``, ``{lambda: {knots: [...]}}`` and their mixtures.

        Each value is a number, ``{knots: [...]}`` or ``{bands: [...]}``; ``other`` is optional. So are ``scale`` and
        ``third``: a number, or one for each module. Raises ``ScheduleError`` for anything else.
        """
        keys = set(plain) - {"other", "scale", "third"}
        if keys not in ({"lambda"}, {"attention", "ffn"}):
            raise ScheduleError(
                f"a schedule has the keys 'lambda', or 'attention' and 'ffn', and optionally 'other', 'scale' and "
                f"'third'; seen: {', '.join(map(repr, sorted(map(str, plain)))) or 'none'}"
            )
        other = number(plain["other"], "other") if "other" in plain else None
        if "lambda" in keys:
            line = cls.by_depth(_profile(plain["lambda"], "lambda"), other=other)
        else:
            profiles = _profile(plain["attention"], "attention"), _profile(plain["ffn"], "ffn")
            line = cls.by_depth_and_module(*profiles, other=other)
        return line.beyond(**{key: ByModule.from_plain(plain[key], key) for key in ("scale", "third") if key in plain})

    def __str__(self) -> str:
        """The schedule in short, such as ``attention 0.46→0.33→0.48, feed-forward 0.64``."""
        return ", ".join(self.parts())

    def parts(self, *, ffn: str = "feed-forward", other: str = "embeddings and head") -> list[str]:
        """Returns the schedule in short, a text for each module. ``ffn`` and ``other`` are the modules' names."""
        if self.attention == self.ffn:
            parts = [f"lambda {self.attention}"]
        else:
            parts = [f"attention {self.attention}", f"{ffn} {self.ffn}"]
        parts += [f"{other} {self.other:.4g}"] if "other" in self.to_dict() else []
        parts += [f"scale {self.scale.in_short(ffn, other)}"] if self.scale != ONE else []
        return [*parts, f"third {self.third.in_short(ffn, other)}"] if self.third != NONE else parts

    @property
    def in_words(self) -> str:
        """The schedule in short, with what its arrows or bars mean."""
        is_deep = max(len(self.attention.values), len(self.ffn.values)) > 1
        return f"{self} (from the first to the last layer)" if is_deep else str(self)


def read_schedule(path: Path) -> Schedule:
    """Returns the schedule of a YAML file. Raises ``ScheduleError`` if it cannot be read or holds no schedule."""
    try:
        plain = load_yaml(read_text(path))
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: not UTF-8
        raise ScheduleError(f"schedule file '{path}' cannot be read: {one_line(error)}") from error
    if not isinstance(plain, Mapping):
        raise ScheduleError(f"{path}: expected keys such as 'lambda: 0.6', seen {in_short(plain)}")
    return Schedule.from_dict(plain)


def _profile(plain: object, key: str) -> Profile:
    if isinstance(plain, Mapping):
        if len(plain) == 1 and (kind := next(iter(plain))) in ("knots", "bands") and isinstance(plain[kind], list):
            return Profile(tuple(number(value, key) for value in plain[kind]), kind)
        raise ScheduleError(
            f"{key}: expected a number, {{knots: [...]}} or {{bands: [...]}}, seen {in_short(dict(plain))}"
        )
    return Profile((number(plain, key),))
