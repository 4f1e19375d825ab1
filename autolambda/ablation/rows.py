"""The rows of the paper's studies (arXiv 2510.10977): uniform lambdas, layers, modules, decoding, backbones, methods.

A row is a schedule with further changes. Its JSON is its key in the database, so equal rows are measured once. Every
row is compared with a uniform merge on the same prompts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Literal

from autolambda.config import AblationConfig, AblationName
from autolambda.engines.base import Sampling
from autolambda.merging.method import METHOD_TITLES, BaselineMethod
from autolambda.schedule import Profile, Schedule

NUM_BANDS = 3
_THIRDS = ((0,), (1,), (2,), (0, 1), (1, 2))


@dataclass(frozen=True)
class AblationRow:
    """A row of a study; a field that is ``None`` changes nothing.

    ``parent`` measures a parent under its own chat template. ``temperature`` and ``top_p`` replace the study's
    sampling. ``backbone`` is the source of a model in Instruct's place, ``weights`` the digest of its contents.
    """

    study: AblationName
    schedule: Schedule
    parent: Literal["instruct", "thinking"] | None = None
    temperature: float | None = None
    top_p: float | None = None
    backbone: str | None = None
    weights: str | None = None
    method: BaselineMethod | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the row's own settings that its numbers depend on; the others are in the study's identity.

        A backbone is the last part of its source and the first 16 digits of its digest. Rows stay equal if weights
        move.
        """
        changes = {
            "parent": self.parent,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "backbone": name_of(self.backbone) if self.backbone else None,
            "weights": (self.weights or "")[:16] if self.backbone else None,
            "method": self.method,
        }
        given = {name: value for name, value in changes.items() if value is not None}
        return {"study": self.study, "schedule": self.schedule.to_dict(), **given}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> AblationRow:
        """Returns the row that ``to_dict`` returned as a dictionary."""
        return cls(**{**plain, "schedule": Schedule.from_dict(plain["schedule"])})

    @property
    def key(self) -> str:
        """The row's key in the database: its JSON."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @property
    def reference(self) -> Schedule:
        """The uniform merge to compare with; the uniform study compares with lambda 1, the Thinking model."""
        if self.study == "uniform":
            return Schedule.uniform(1.0)
        return Schedule.uniform(max(*self.schedule.attention.values, *self.schedule.ffn.values))

    def sampling(self, own: Sampling) -> Sampling:
        """Returns the study's sampling (``own``) with the row's changes."""
        temperature = own.temperature if self.temperature is None else self.temperature
        return replace(own, temperature=temperature, top_p=own.top_p if self.top_p is None else self.top_p)

    def label(self, num_layers: int | None = None) -> str:
        """Returns a label for the row. Layers have numbers if ``num_layers`` is known."""
        if self.parent:
            return f"{self.parent.capitalize()} as is"
        lam = f"lambda {self.reference.other if self.study != 'uniform' else self.schedule.other:g}"
        if self.study == "layers":
            return f"only {_layers(self.schedule.attention, num_layers)}"
        if self.study == "modules":
            return "without attention" if not any(self.schedule.attention.values) else "without ffn"
        if self.study == "decoding":
            return f"{lam}, T {self.temperature:g}, top-p {self.top_p:g}"
        if self.backbone:
            return f"{name_of(self.backbone)}, {lam}"
        if self.method:
            return METHOD_TITLES[self.method] + (f", {lam}" if self.method == "slerp" else "")
        return lam


def uniform_row(lam: float) -> AblationRow:
    """Returns the row of a uniform merge, which other rows are compared with."""
    return AblationRow("uniform", Schedule.uniform(lam))


def rows_of(
    study: AblationName, config: AblationConfig, *, num_layers: int, backbones: Sequence[str]
) -> list[AblationRow]:
    """Returns the rows of a study, without their uniform reference rows.

    ``backbones`` are the sources of models: folders or hub ids.
    """
    lam = config.partial_lambda
    match study:
        case "uniform":
            ends: tuple[AblationRow, ...] = (
                AblationRow(study, Schedule.uniform(0.0), parent="instruct"),
                AblationRow(study, Schedule.uniform(1.0), parent="thinking"),
            )
            return [*ends, *map(uniform_row, dict.fromkeys(config.lambdas))]
        case "layers":
            return [row for row in _layer_rows(lam) if any(_at(row.schedule.attention, num_layers))]
        case "modules":
            return [
                AblationRow(study, Schedule.by_module(attention=0.0, ffn=lam, other=lam)),
                AblationRow(study, Schedule.by_module(attention=lam, ffn=0.0, other=lam)),
            ]
        case "decoding":
            return [
                AblationRow(study, Schedule.uniform(each), temperature=temperature, top_p=top_p)
                for each in dict.fromkeys(config.decoding_lambdas)
                for temperature in dict.fromkeys(config.temperatures)
                for top_p in dict.fromkeys(config.top_ps)
            ]
        case "backbones":
            return [
                AblationRow(study, Schedule.uniform(each), backbone=source)
                for source in dict.fromkeys(backbones)
                for each in dict.fromkeys(config.backbone_lambdas)
            ]
        case "methods":
            return [
                AblationRow(study, Schedule.uniform(lam), method=method) for method in dict.fromkeys(config.methods)
            ]


def references_of(rows: Sequence[AblationRow]) -> list[AblationRow]:
    """Returns the uniform reference rows of ``rows``. For layers and modules, Instruct is one of them."""
    lams = {row.reference.other for row in rows} | {0.0 for row in rows if row.study in ("layers", "modules")}
    return [uniform_row(lam) for lam in sorted(lams)]


def name_of(source: str) -> str:
    """Returns a model's name: the last part of its path or hub id, at most 64 characters."""
    return PurePath(source).name[:64]


def _layer_rows(lam: float) -> Iterator[AblationRow]:
    """Yields rows with one third, or two neighbouring thirds, of the layers at ``lam``; the rest is Instruct."""
    for chosen in _THIRDS:
        profile = Profile(tuple(lam if band in chosen else 0.0 for band in range(NUM_BANDS)), "bands")
        yield AblationRow("layers", Schedule.by_depth(profile, other=0.0))


def _layers(profile: Profile, num_layers: int | None) -> str:
    if num_layers is None:
        bands = [f"{band + 1}" for band, value in enumerate(profile.values) if value]
        return f"thirds {' and '.join(bands)} of the layers" if len(bands) > 1 else f"third {bands[0]} of the layers"
    chosen = [layer for layer, lam in enumerate(_at(profile, num_layers)) if lam]
    return f"layers {chosen[0]} to {chosen[-1]}" if len(chosen) > 1 else f"layer {chosen[0]}"


def _at(profile: Profile, num_layers: int) -> list[float]:
    return [profile.at(layer, num_layers) for layer in range(num_layers)]
