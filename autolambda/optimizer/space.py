"""The search space: every schedule as a point with named parameters.

``lam`` is the mean lambda. ``split`` is lambda of attention minus lambda of ffn; each is moved by half of it.
``tilt_i`` is added to both at depth knot i, and ``twist_i`` to the split there. A space frees some of these parameters
and holds the others at 0. So each space can use the measurements of all spaces.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Literal

import numpy as np

from autolambda.schedule import Profile, Schedule
from autolambda.statistics.estimates import Floats

Space = Literal["uniform", "module", "depth", "both"]
Params = Mapping[str, float]
Range = tuple[float, float]

MAX_TILT = 0.4
MIN_DISTANCE = 0.01  # two points that are closer in every parameter do not differ in a measurement
DECIMALS = 4
ENDS = (Schedule.uniform(0.0), Schedule.uniform(1.0))  # the parents, in a search
PARENTS = dict(zip(("instruct", "thinking"), ENDS, strict=True))


def parent_of(schedule: Schedule) -> str | None:
    """Returns the parent that a schedule is, ``instruct`` or ``thinking``; ``None`` for a merge."""
    return next((name for name, end in PARENTS.items() if end == schedule), None)


def ranges(num_knots: int) -> dict[str, Range]:
    """Returns the range of each parameter of the whole space."""
    bends = dict.fromkeys((*_tilts(num_knots), *_twists(num_knots)), (-MAX_TILT, MAX_TILT))
    return {"lam": (0.0, 1.0), "split": (-1.0, 1.0), **bends}


def uniform_params(lam: float, *, num_knots: int) -> dict[str, float]:
    """Returns the params of the uniform schedule ``lam``."""
    return {**dict.fromkeys(ranges(num_knots), 0.0), "lam": lam}


def to_schedule(params: Params) -> Schedule:
    """Returns the schedule at a point. Lambdas outside [0, 1] are cut off."""
    tilts, twists = ([params[name] for name in sorted(params) if name.startswith(kind)] for kind in ("tilt_", "twist_"))
    knots = list(zip(tilts, twists, strict=True)) if any([*tilts, *twists]) else [(0.0, 0.0)]
    attention, ffn = (
        Profile(
            tuple(
                round(min(1.0, max(0.0, params["lam"] + side * (params["split"] + twist) / 2 + tilt)), DECIMALS)
                for tilt, twist in knots
            )
        )
        for side in (1, -1)
    )
    return Schedule.by_depth_and_module(attention, ffn)


def free_params(space: Space, num_knots: int) -> list[str]:
    """Returns the names of the parameters that a space frees."""
    return [
        "lam",
        *(["split"] if space in ("module", "both") else []),
        *(_tilts(num_knots) if space in ("depth", "both") else []),
        *(_twists(num_knots) if space == "both" else []),
    ]


def uniform_lam(params: Params) -> float | None:
    """Returns lambda if the schedule at the point is uniform, else ``None``."""
    return None if any(value for name, value in params.items() if name != "lam") else params["lam"]


def is_near(one: Params, other: Params) -> bool:
    """Returns whether two points are too close to differ in a measurement."""
    return all(abs(one[name] - other[name]) < MIN_DISTANCE for name in other)


@functools.lru_cache(maxsize=1 << 16)  # more than a study's schedules, all of which each proposal needs again
def features(schedule: Schedule, *, num_knots: int) -> Floats:
    """Returns the features of a schedule for the surrogate, float64 [2 + 2 num_knots].

    The first two are the mean lambda, and the mean difference of attention and ffn. Then come the deviations of lambda
    from its mean at each knot, and the deviations of the difference from its mean at each knot.
    """
    attention, ffn = (
        np.array([profile.at(knot, num_knots) for knot in range(num_knots)])
        for profile in (schedule.attention, schedule.ffn)
    )
    middle, split = (attention + ffn) / 2, attention - ffn
    values: Floats = np.array([middle.mean(), split.mean(), *(middle - middle.mean()), *(split - split.mean())])
    return np.where(np.abs(values) < 1e-12, 0.0, values)


def _tilts(num_knots: int) -> list[str]:
    return [f"tilt_{i}" for i in range(num_knots)]


def _twists(num_knots: int) -> list[str]:
    return [f"twist_{i}" for i in range(num_knots)]
