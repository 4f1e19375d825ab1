"""A study's pick on other tasks, beside its best uniform lambda and both parents, paired on the same prompts and seeds.

A study keeps a list of what was compared (``Compared``), and the responses as evaluations of the kind ``transfer``.
Each task also has its own curve over uniform lambdas, from which its own emergence follows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autolambda.optimizer.space import PARENTS
from autolambda.responses import Graded
from autolambda.schedule import Schedule
from autolambda.statistics.curve import CurvePoint
from autolambda.statistics.metrics import Measured, measure
from autolambda.statistics.paired import Change, compare
from autolambda.statistics.stages import EMERGENCE_AT, Boundary, detect_stages
from autolambda.statistics.words import percent_of, points_of, saving, tokens_of
from autolambda.study.store import Store
from autolambda.study.trials import Study

KEPT_AS = "transfers"  # the name of the list of comparisons among a study's attributes
NAMES = {"instruct": "Instruct", "thinking": "Thinking", "uniform": "the best uniform lambda"}


@dataclass(frozen=True)
class Compared:
    """A comparison on another task: the pick and its best uniform neighbour, which is ``None`` if the pick is uniform.

    ``prompts`` is the digest of the task's prompts. ``ends`` are the parents whose own template is the study's, so that
    they are the ends of the curve too. ``trial`` is the pick's.
    """

    task: str
    prompts: str
    trial: int | None
    pick: Schedule
    uniform: Schedule | None
    ends: tuple[str, ...] = ()

    def key(self, schedule: Schedule) -> str:
        """The key of the evaluation of a merge under the study's template."""
        for name in self.ends:
            if schedule == PARENTS[name]:
                return self.parent_key(name)
        return self._key(schedule=schedule.to_dict())

    def parent_key(self, name: str) -> str:
        """The key of the evaluation of a parent under its own template."""
        return self._key(parent=name)

    def _key(self, **what: object) -> str:
        return json.dumps({"task": self.task, "prompts": self.prompts, **what}, sort_keys=True)

    @property
    def sides(self) -> dict[str, str]:
        """The keys of what is compared, by name: ``pick``, ``uniform``, ``instruct`` and ``thinking``."""
        merges = {"pick": self.pick, **({"uniform": self.uniform} if self.uniform else {})}
        parents = {name: self.parent_key(name) for name in PARENTS}
        return {**{name: self.key(schedule) for name, schedule in merges.items()}, **parents}

    def to_dict(self) -> dict[str, Any]:
        """Returns the plain form that a study keeps."""
        uniform = self.uniform and self.uniform.to_dict()
        return {**asdict(self), "pick": self.pick.to_dict(), "uniform": uniform, "ends": list(self.ends)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Compared:
        """Returns what ``to_dict`` made plain."""
        pick, uniform = (plain[name] and Schedule.from_dict(plain[name]) for name in ("pick", "uniform"))
        return cls(plain["task"], plain["prompts"], plain["trial"], pick, uniform, tuple(plain["ends"]))


@dataclass(frozen=True)
class Transfer:
    """The pick on another task.

    ``sides`` are the numbers of the pick, of the best uniform lambda and of both parents under their own templates, on
    the prompts that all have answered. ``changes`` compare the pick with each other one. ``curve`` holds the uniform
    lambdas in ascending order. ``own`` is where reasoning emerges on the study's own prompts.
    """

    compared: Compared
    sides: Mapping[str, Measured]
    changes: Mapping[str, Change]
    curve: Mapping[float, Measured]
    own: Boundary | None = None

    @property
    def task(self) -> str:
        return self.compared.task

    @property
    def emergence(self) -> Boundary | None:
        """The lambda at which reasoning emerges on this task."""
        return emergence_of(self.curve)

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of the report. Shares are 0 to 1, intervals 95 %."""
        compared = self.compared
        return {
            "task": self.task,
            "trial": compared.trial,
            "schedule": compared.pick.to_dict(),
            "uniform_schedule": compared.uniform and compared.uniform.to_dict(),
            "num_prompts": self.sides["pick"].accuracy.num_prompts,
            "sides": {name: numbers(measured) for name, measured in self.sides.items()},
            "pick_against": {name: change_dict(change) for name, change in self.changes.items()},
            "emergence": _plain(self.emergence),
            "own_emergence": _plain(self.own),
            "curve": [{"lambda": lam, **numbers(measured)} for lam, measured in self.curve.items()],
        }

    def sentences(self) -> Iterator[str]:
        """Yields what is kept, what is lost, and where reasoning emerges."""
        pick = self.sides["pick"]
        yield (
            f"On {self.task} ({pick.accuracy.num_prompts} prompts) {self.compared.pick} is "
            f"{percent_of(pick.accuracy)} right with {tokens_of(pick.mean_tokens)}."
        )
        for name, change in self.changes.items():
            yield f"  Compared with {NAMES[name]}: {change_words(change)}."
        if emergence := self.emergence:
            beside = f"; on the study's own prompts at {_place(self.own)}" if self.own else ""
            yield f"  Reasoning emerges at lambda {_place(emergence)}{beside}."
        else:
            yield "  Reasoning emerges at no lambda measured: its Think ratio stays on one side of 5 %."


def emergence_of(curve: Mapping[float, Measured]) -> Boundary | None:
    """Returns where reasoning emerges over uniform lambdas; ``None`` unless both sides of it were measured."""
    ratios = {lam: measured.think_ratio for lam, measured in curve.items()}
    if len({ratio.value < EMERGENCE_AT for ratio in ratios.values()}) < 2:
        return None
    points = [CurvePoint(lam, min(ratio.value, 1.0), ratio.num_prompts) for lam, ratio in ratios.items()]
    return detect_stages(points).emergence


def compared_of(study: Study) -> list[Compared]:
    """Returns what a study has compared on other tasks, oldest first. Some of it may be incomplete."""
    return [Compared.from_dict(each) for each in json.loads(study.kept(KEPT_AS) or "[]")]


def keep_compared(study: Study, compared: Compared) -> None:
    """Adds a comparison to the study's list, in the place of an earlier one with the same pick and prompts."""
    others = [
        each
        for each in compared_of(study)
        if (each.task, each.prompts, each.pick) != (compared.task, compared.prompts, compared.pick)
    ]
    study.keep(KEPT_AS, json.dumps([each.to_dict() for each in (*others, compared)]))


def read_transfers(store: Store, study: Study, *, own: Boundary | None) -> tuple[Transfer, ...]:
    """Returns the comparisons on other tasks of which all sides are measured; ``own`` is the study's own emergence."""
    if not (listed := compared_of(study)):
        return ()
    stored = {each.key: each for each in store.evaluations(study.name, kind="transfer")}
    graded: dict[str, list[Graded]] = {}
    for key, each in stored.items():
        if len(responses := store.graded(each, with_texts=False)) >= each.num_responses:
            graded[key] = responses
    lambdas = {each.schedule.lam for each in stored.values()} - {None}
    return tuple(
        transfer_of(compared, graded, sorted(lam for lam in lambdas if lam is not None), own)
        for compared in listed
        if all(key in graded for key in compared.sides.values())
    )


def transfer_of(
    compared: Compared, graded: Mapping[str, Sequence[Graded]], lambdas: Sequence[float], own: Boundary | None
) -> Transfer:
    """Returns a comparison from complete responses by evaluation key, with a curve over those of the ``lambdas``."""
    sides = {name: graded[key] for name, key in compared.sides.items()}
    shared = set.intersection(*({each.key for each in side} for side in sides.values()))
    sides = {name: [each for each in side if each.key in shared] for name, side in sides.items()}
    return Transfer(
        compared,
        {name: measure(side) for name, side in sides.items()},
        {name: compare(sides["pick"], side) for name, side in sides.items() if name != "pick"},
        {lam: measure(graded[key]) for lam in lambdas if (key := compared.key(Schedule.uniform(lam))) in graded},
        own,
    )


def change_dict(change: Change) -> dict[str, float]:
    """Returns a paired comparison for JSON: the difference in accuracy and the ratio of the tokens."""
    accuracy, tokens = change.accuracy, change.tokens
    return {
        "accuracy_difference": accuracy.value,
        "accuracy_difference_low": accuracy.low,
        "accuracy_difference_high": accuracy.high,
        "token_share": tokens.value,
        "token_share_low": tokens.low,
        "token_share_high": tokens.high,
    }


def change_words(change: Change) -> str:
    """Returns a paired comparison in words: ``+2.1 points (-0.3 to +4.5), 41 % fewer tokens (0.52 to 0.66 times)``."""
    tokens = change.tokens
    return f"{points_of(change.accuracy)}, {saving(tokens.value)} ({tokens.low:.2f} to {tokens.high:.2f} times)"


def numbers(measured: Measured) -> dict[str, float]:
    """Returns the numbers of a schedule for JSON, each with its 95 % interval."""
    found: dict[str, float] = {"num_responses": measured.num_responses}
    for name in ("accuracy", "mean_tokens", "think_ratio"):
        estimate = getattr(measured, name)
        found |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return found


def _plain(boundary: Boundary | None) -> dict[str, float] | None:
    return None if boundary is None else {"lambda": boundary.lam, "low": boundary.low, "high": boundary.high}


def _place(boundary: Boundary) -> str:
    return f"{boundary.lam:.2f} ({boundary.low:.2f} to {boundary.high:.2f})"
