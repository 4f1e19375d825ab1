"""The box: every schedule of a study as a point with named parameters.

``lam``; ``split``, by which attention lies above ffn, half of it each way; ``tilt_i``, what the i-th depth knot adds to
both; and ``twist_i``, what it adds to the split. A space frees some of these and holds the others at 0, so that each
space starts from all that the ones before it have measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from autolambda.schedule import Profile, Schedule

Space = Literal["uniform", "module", "depth", "both"]
Params = Mapping[str, float]
Span = tuple[float, float]

MAX_TILT = 0.4
MIN_DISTANCE = 0.01  # in every parameter: less than that is the same schedule for all that can be measured
DECIMALS = 4


def box(num_knots: int) -> dict[str, Span]:
    """The parameters of every schedule, with their ranges."""
    bends = dict.fromkeys((*_tilts(num_knots), *_twists(num_knots)), (-MAX_TILT, MAX_TILT))
    return {"lam": (0.0, 1.0), "split": (-1.0, 1.0), **bends}


def uniform_params(lam: float, *, num_knots: int) -> dict[str, float]:
    """The point of the box that is the uniform ``lam``."""
    return {**dict.fromkeys(box(num_knots), 0.0), "lam": lam}


def to_schedule(params: Params) -> Schedule:
    """The schedule at a point of the box; values leaving [0, 1] are cut off."""
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


def free_of(space: Space, num_knots: int) -> list[str]:
    """The parameters that a space frees."""
    return [
        "lam",
        *(["split"] if space in ("module", "both") else []),
        *(_tilts(num_knots) if space in ("depth", "both") else []),
        *(_twists(num_knots) if space == "both" else []),
    ]


def uniform_lam(params: Params) -> float | None:
    """The lam of a uniform point; a ladder that is lengthened later finds others among the points."""
    return None if any(value for name, value in params.items() if name != "lam") else params["lam"]


def is_near(one: Params, other: Params) -> bool:
    """Whether two points are the same schedule for all that can be measured."""
    return all(abs(one[name] - other[name]) < MIN_DISTANCE for name in other)


def _tilts(num_knots: int) -> list[str]:
    return [f"tilt_{i}" for i in range(num_knots)]


def _twists(num_knots: int) -> list[str]:
    return [f"twist_{i}" for i in range(num_knots)]
