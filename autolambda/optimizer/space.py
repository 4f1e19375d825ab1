"""The search space: every schedule as a point with named parameters.

``lam`` is the mean lambda. ``split`` is lambda of attention minus lambda of ffn; each is moved by half of it.
``tilt_i`` is added to both at depth knot i, and ``twist_i`` to the split there. ``stretch`` is the scale minus 1, and
``third`` the weight of the third parent, which leaves 1 - third for the other two. A space frees some of these
parameters and holds the others at 0. So each space can use the measurements of all spaces.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeGuard

import numpy as np

from autolambda.schedule import Profile, Schedule
from autolambda.statistics.estimates import Floats

Space = Literal["uniform", "module", "depth", "both", "scale", "third"]
Params = Mapping[str, float]
Range = tuple[float, float]

MAX_TILT = 0.4
LINE = (0.0, 1.0)  # the lambdas between the parents


@dataclass(frozen=True)
class Beyond:
    """A space that reads a further model: its parameter, the range, and the values that are looked at first."""

    param: str
    range: Range
    far: tuple[float, ...]


BEYOND: Mapping[str, Beyond] = {
    # the paper's task arithmetic has a scale of 1.4, which at lambda 0.5 gives two orthogonal changes their length back
    "scale": Beyond("stretch", (-0.5, 0.6), (0.4, -0.3)),
    "third": Beyond("third", (0.0, 1.0), (0.3, 0.6)),
}

FAR_SPLITS: tuple[float, ...] = (0.5, -0.5)  # the differences of attention and ffn that are looked at first

UNIFORM = ("uniform", *BEYOND)  # the spaces whose schedules have the same numbers for all modules and layers
MIN_DISTANCE = 0.01  # two points that are closer in every parameter do not differ in a measurement
DECIMALS = 4
ENDS = (Schedule.uniform(0.0), Schedule.uniform(1.0))  # the parents, in a search
PARENTS = dict(zip(("instruct", "thinking"), ENDS, strict=True))


def parent_of(schedule: Schedule) -> str | None:
    """Returns the parent that a schedule is, ``instruct`` or ``thinking``; ``None`` for a merge."""
    return next((name for name, end in PARENTS.items() if end == schedule), None)


def ranges(num_knots: int, *, lam: Range = LINE, spaces: Collection[str] = ()) -> dict[str, Range]:
    """Returns the range of each parameter of the whole space. ``spaces`` are those that may read a further model."""
    bends = dict.fromkeys((*_tilts(num_knots), *_twists(num_knots)), (-MAX_TILT, MAX_TILT))
    beyond = {each.param: each.range for space, each in BEYOND.items() if space in spaces}
    return {"lam": lam, "split": (-1.0, 1.0), **bends, **beyond}


def uniform_params(lam: float, *, num_knots: int) -> dict[str, float]:
    """Returns the params of the uniform schedule ``lam``."""
    return {**dict.fromkeys(ranges(num_knots), 0.0), "lam": lam}


def to_schedule(params: Params) -> Schedule:
    """Returns the schedule at a point. Lambdas outside [0, 1] are cut off, unless the mean lambda is outside."""
    stretch, third = params.get("stretch", 0.0), params.get("third", 0.0)
    low, high = min(LINE[0], params["lam"]), max(LINE[1], params["lam"])
    tilts, twists = ([params[name] for name in sorted(params) if name.startswith(kind)] for kind in ("tilt_", "twist_"))
    knots = list(zip(tilts, twists, strict=True)) if any([*tilts, *twists]) else [(0.0, 0.0)]
    attention, ffn = (
        Profile(
            tuple(
                round(
                    (1 - third) * min(high, max(low, params["lam"] + side * (params["split"] + twist) / 2 + tilt)),
                    DECIMALS,
                )
                for tilt, twist in knots
            )
        )
        for side in (1, -1)
    )
    return Schedule.by_depth_and_module(attention, ffn).beyond(scale=round(1 + stretch, DECIMALS), third=third)


def free_params(space: Space, num_knots: int) -> list[str]:
    """Returns the names of the parameters that a space frees."""
    return [
        "lam",
        *(["split"] if space in ("module", "both") else []),
        *(_tilts(num_knots) if space in ("depth", "both") else []),
        *(_twists(num_knots) if space == "both" else []),
        *([BEYOND[space].param] if space in BEYOND else []),
    ]


def uniform_lam(params: Params) -> float | None:
    """Returns lambda if the schedule at the point is uniform and on the line, else ``None``."""
    return None if any(value for name, value in params.items() if name != "lam") else params["lam"]


def is_between(lam: float | None) -> TypeGuard[float]:
    """Returns whether a uniform lambda lies from one parent to the other, where stages and costs are read."""
    return lam is not None and LINE[0] <= lam <= LINE[1]


def is_near(one: Params, other: Params) -> bool:
    """Returns whether two points are too close to differ in a measurement."""
    return all(abs(one.get(name, 0.0) - other.get(name, 0.0)) < MIN_DISTANCE for name in {*one, *other})


def beyond_params(schedule: Schedule) -> dict[str, float]:
    """Returns the parameters of the spaces beyond the line: means over the modules, 0 on the line."""
    scale, third = ((each.attention + each.ffn) / 2 for each in (schedule.scale, schedule.third))
    return {"stretch": scale - 1, "third": third}


def next_far(tried: Sequence[Schedule], spaces: Collection[str]) -> dict[str, float] | None:
    """Returns the parameter and value of the next far look, those of attention and ffn first; ``None`` after the last.

    Every schedule that was ``tried`` away from 0 counts as a look of its parameters.
    """
    looks = {"split": FAR_SPLITS} if {"module", "both"} & set(spaces) else {}
    looks |= {each.param: each.far for each in (BEYOND[space] for space in spaces if space in BEYOND)}
    known = [{"split": each.attention.mean() - each.ffn.mean(), **beyond_params(each)} for each in tried]
    for param, values in looks.items():
        num_looks = sum(bool(each[param]) for each in known)
        if num_looks < len(values):
            return {param: values[num_looks]}
    return None


@functools.lru_cache(maxsize=1 << 16)  # more than a study's schedules, all of which each proposal needs again
def features(schedule: Schedule, *, num_knots: int, beyond: bool = False) -> Floats:
    """Returns the features of a schedule for the surrogate, float64 [2 + 2 num_knots (+ 2)].

    The first two are the mean lambda, and the mean difference of attention and ffn. Then come the deviations of lambda
    from its mean at each knot, and the deviations of the difference from its mean at each knot. ``beyond`` adds the
    means over the modules of the scale, less 1, and of the weight of the third parent.
    """
    attention, ffn = (
        np.array([profile.at(knot, num_knots) for knot in range(num_knots)])
        for profile in (schedule.attention, schedule.ffn)
    )
    middle, split = (attention + ffn) / 2, attention - ffn
    own = beyond_params(schedule).values() if beyond else []
    values: Floats = np.array([middle.mean(), split.mean(), *(middle - middle.mean()), *(split - split.mean()), *own])
    return np.where(np.abs(values) < 1e-12, 0.0, values)


def _tilts(num_knots: int) -> list[str]:
    return [f"tilt_{i}" for i in range(num_knots)]


def _twists(num_knots: int) -> list[str]:
    return [f"twist_{i}" for i in range(num_knots)]
