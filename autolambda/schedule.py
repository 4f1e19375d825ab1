"""Schedules: the weight ``lam`` of the Thinking model for each parameter.

A schedule maps a parameter's location to ``lam`` in [0, 1]: 0 is Instruct, 1 is Thinking. It holds one profile over
depth for the *attention* modules and one for the *ffn* modules. A number covers the *other* parameters (embeddings,
head, final norm). A uniform lambda, one lambda per module and a curve over depth are special cases.
merging/modules.py finds the locations.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from autolambda.errors import ScheduleError, in_short, one_line
from autolambda.files import load_yaml, read_text

Module = Literal["attention", "ffn", "other"]
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
            _check_lam(value)
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

    def __post_init__(self) -> None:
        _check_lam(self.other)

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

    @property
    def lam(self) -> float | None:
        """The lam of a uniform schedule; ``None`` for any other."""
        values = {*self.attention.values, *self.ffn.values, self.other}
        return values.pop() if len(values) == 1 else None

    def lam_at(self, location: Location, *, num_layers: int) -> float:
        """Returns lam of the parameters at a location. Raises ``ScheduleError`` for a layer that the model lacks."""
        if location.layer is None:
            return self.other
        if location.layer >= num_layers:
            raise ScheduleError(f"layer {location.layer} of a model with {num_layers}")
        profile = self.attention if location.module == "attention" else self.ffn
        return profile.at(location.layer, num_layers)

    def to_dict(self) -> dict[str, object]:
        """Returns the plain form for YAML and JSON, without ``other`` if it has its default value."""
        if self.lam is not None:
            return {"lambda": self.lam}
        if self.attention == self.ffn:
            plain: dict[str, object] = {"lambda": self.attention.to_plain()}
        else:
            plain = {"attention": self.attention.to_plain(), "ffn": self.ffn.to_plain()}
        if self != Schedule.by_depth_and_module(self.attention, self.ffn):
            plain["other"] = self.other
        return plain

    @property
    def key(self) -> str:
        """The plain form as one line of JSON, by which databases and seeds identify a schedule."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_dict(cls, plain: Mapping[str, object]) -> Schedule:
        """Reads ``{lambda: 0.6}``, ``{attention: 0.7, ffn: 0.5}``, ``{lambda: {knots: [...]}}`` and their mixtures.

        Each value is a number, ``{knots: [...]}`` or ``{bands: [...]}``; ``other`` is optional. Raises
        ``ScheduleError`` for anything else.
        """
        keys = set(plain)
        if keys not in ({"lambda"}, {"lambda", "other"}, {"attention", "ffn"}, {"attention", "ffn", "other"}):
            raise ScheduleError(
                f"a schedule has the keys 'lambda', or 'attention' and 'ffn', and optionally 'other'; "
                f"seen: {', '.join(map(repr, sorted(map(str, keys)))) or 'none'}"
            )
        other = _number(plain["other"], "other") if "other" in keys else None
        if "lambda" in keys:
            return cls.by_depth(_profile(plain["lambda"], "lambda"), other=other)
        attention, ffn = _profile(plain["attention"], "attention"), _profile(plain["ffn"], "ffn")
        return cls.by_depth_and_module(attention, ffn, other=other)

    def __str__(self) -> str:
        """The schedule in short, such as ``attention 0.46→0.33→0.48, feed-forward 0.64``."""
        return ", ".join(self.parts())

    def parts(self, *, ffn: str = "feed-forward", other: str = "embeddings and head") -> list[str]:
        """Returns the schedule in short, a text for each module. ``ffn`` and ``other`` are the modules' names."""
        if self.attention == self.ffn:
            parts = [f"lambda {self.attention}"]
        else:
            parts = [f"attention {self.attention}", f"{ffn} {self.ffn}"]
        return [*parts, f"{other} {self.other:.4g}"] if "other" in self.to_dict() else parts

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
            return Profile(tuple(_number(value, key) for value in plain[kind]), kind)
        raise ScheduleError(
            f"{key}: expected a number, {{knots: [...]}} or {{bands: [...]}}, seen {in_short(dict(plain))}"
        )
    return Profile((_number(plain, key),))


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ScheduleError(f"{key}: expected a number between 0 and 1, seen {in_short(value)}")
    _check_lam(value)  # before the conversion, which fails for a huge integer
    return float(value)


def _check_lam(value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ScheduleError(f"lambda must lie between 0 (Instruct) and 1 (Thinking), seen {value!r:.40}")
