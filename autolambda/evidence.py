"""What a search goes by: the points that it has measured, and what else became of its trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autolambda.box import Params, is_near, to_schedule, uniform_lam
from autolambda.surrogate import Excess, Observation


@dataclass(frozen=True)
class Point:
    """A schedule with its parameters in the box and all that was measured of it, on its first ``num_responses``."""

    params: Params
    observation: Observation
    num_responses: int

    @property
    def lam(self) -> float | None:
        """The lam of a uniform point, ``None`` for any other."""
        return uniform_lam(self.params)


@dataclass(frozen=True)
class Evidence:
    """All that a study knows: its points, in the order of their first trials, and what else became of trials.

    ``excesses`` were stopped in mid-response; ``failed`` are the params of trials that could not be measured;
    ``costs`` are the tokens that each trial with a measurement took, in their order.
    """

    points: Sequence[Point] = ()
    excesses: Sequence[Excess] = ()
    failed: Sequence[Params] = ()
    costs: Sequence[int] = ()

    @property
    def num_trials(self) -> int:
        return len(self.costs)

    @property
    def num_tokens(self) -> int:
        return sum(self.costs)


def is_tried(params: Params, evidence: Evidence) -> bool:
    """Whether a place is, for all that can be measured, one that was measured, stopped or failed.

    Two places may be one schedule: what leaves [0, 1] is cut off.
    """
    places = [*(point.params for point in evidence.points), *evidence.failed]
    if any(is_near(params, other) for other in places):
        return True
    schedules = {excess.schedule for excess in evidence.excesses}
    schedules |= {point.observation.schedule for point in evidence.points}
    return to_schedule(params) in schedules | {to_schedule(other) for other in evidence.failed}
