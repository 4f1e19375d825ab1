"""The rows of the paper's studies (arXiv 2510.10977): uniform lambdas, layers, modules, decoding, backbones, methods.

A row is a schedule with what else is changed for it, and its key in the database says all of that: equal rows are
measured once, whatever the config that asked for them. Every row is compared with a uniform merge on the same prompts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
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
    """A row of a study. ``parent`` is one as it is, under its own template; ``temperature`` and ``top_p`` are its own
    sampling; ``backbone`` is the model in Instruct's place with the digest of its ``weights``.
    """

    study: AblationName
    schedule: Schedule
    parent: Literal["instruct", "thinking"] | None = None
    temperature: float | None = None
    top_p: float | None = None
    backbone: str | None = None
    weights: str | None = None
    method: BaselineMethod | None = None

    @property
    def key(self) -> str:
        """What the row's numbers depend on beside the study's identity."""
        changes = {key: value for key, value in asdict(replace(self, weights=None)).items() if value is not None}
        changes |= {"schedule": self.schedule.to_dict()}
        if self.backbone:  # known by its contents, and by a name for people
            changes |= {"backbone": name_of(self.backbone), "weights": (self.weights or "")[:16]}
        return json.dumps(changes, sort_keys=True)

    @property
    def reference(self) -> Schedule:
        """The uniform merge that the row is compared with: in the uniform study all of the Thinking model."""
        if self.study == "uniform":
            return Schedule.uniform(1.0)
        return Schedule.uniform(max(*self.schedule.attention.values, *self.schedule.ffn.values))

    def sampling(self, own: Sampling) -> Sampling:
        """The study's ``own`` sampling with the row's changes."""
        temperature = own.temperature if self.temperature is None else self.temperature
        return replace(own, temperature=temperature, top_p=own.top_p if self.top_p is None else self.top_p)

    def label(self, num_layers: int | None = None) -> str:
        """The row in words; layers by their numbers where it is known how many there are."""
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
    """A uniform merge, which is a row of its own study and what others are compared with."""
    return AblationRow("uniform", Schedule.uniform(lam))


def row_of(key: str, schedule: Schedule) -> AblationRow:
    """The row of a key that ``AblationRow.key`` made."""
    changes: dict[str, Any] = json.loads(key)
    return AblationRow(**changes | {"schedule": schedule})


def rows_of(
    study: AblationName, config: AblationConfig, *, num_layers: int, backbones: Sequence[str]
) -> list[AblationRow]:
    """The rows of a study, without the uniform ones that they are compared with; ``backbones`` by their sources."""
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
    """The uniform rows that ``rows`` are compared with; for layers and modules Instruct is one of them."""
    lams = {row.reference.other for row in rows} | {0.0 for row in rows if row.study in ("layers", "modules")}
    return [uniform_row(lam) for lam in sorted(lams)]


def name_of(source: str) -> str:
    """A model's own name: the last part of its path or hub id."""
    return PurePath(source).name[:64]


def _layer_rows(lam: float) -> Iterator[AblationRow]:
    """Thirds and two neighbouring thirds of the layers at ``lam``; everything else is Instruct."""
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
