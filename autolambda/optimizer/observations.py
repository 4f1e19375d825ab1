"""What a search goes by: the points that it has measured, and what else became of its trials."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autolambda.optimizer.space import Params, is_near, to_schedule, uniform_lam
from autolambda.optimizer.surrogate import ACCURACY, TOKENS, CensoredTrial, Observation, place
from autolambda.schedule import Schedule
from autolambda.statistics.pareto import Objectives, front

NUM_NEAR = 5  # points of about the same mean tokens, by which a place that was not measured is judged
MOST_POINTS = 200  # that the surrogate goes by: its time grows with their cube, its memory with their square


@dataclass(frozen=True)
class Point:
    """A schedule with its parameters in the box and all that was measured of it, on its first ``num_responses``.

    ``num_guarding`` of them are of guard tasks. ``tokens_a_response`` were generated, over all tasks alike; ``None``
    where that is the mean that was observed, as with one task.
    """

    params: Params
    observation: Observation
    num_responses: int
    num_guarding: int = 0
    tokens_a_response: float | None = None

    @property
    def cost(self) -> float:
        """The tokens that a response takes, whatever its task weighs."""
        return self.observation.values[TOKENS] if self.tokens_a_response is None else self.tokens_a_response

    @property
    def cost_ratio(self) -> float:
        """What a response costs by the mean tokens that were observed: 1 with one task."""
        return self.cost / self.observation.values[TOKENS]

    @property
    def counted(self) -> float:
        """The share of the responses that count in what was observed."""
        return 1 - self.num_guarding / self.num_responses

    @cached_property
    def lam(self) -> float | None:
        """The lam of a uniform point, ``None`` for any other."""
        return uniform_lam(self.params)


@dataclass(frozen=True)
class Observations:
    """All that a study knows: its points, in the order of their first trials, and what else became of trials.

    ``censored`` were stopped in mid-response; ``failed`` are the params of trials that could not be measured;
    ``costs`` are the tokens that each trial with a measurement took, in their order.
    """

    points: Sequence[Point] = ()
    censored: Sequence[CensoredTrial] = ()
    failed: Sequence[Params] = ()
    costs: Sequence[int] = ()

    @property
    def num_trials(self) -> int:
        return len(self.costs)

    @property
    def num_tokens(self) -> int:
        return sum(self.costs)


def leading(
    points: Sequence[Point], *, num_knots: int, about: Schedule | None = None, most: int = MOST_POINTS
) -> list[Point]:
    """The points that the surrogate goes by, in their order: all, up to ``most``.

    Beyond, the uniform ones, the one that it is asked ``about``, and of the others one half by how near their schedule
    is to one of the measured front, whatever came of it: to keep the best alone would believe their luck. The other
    half is spread evenly over all trials, so that what was explored once stays known.
    """
    if len(points) <= most:
        return list(points)
    kept = {index for index, point in enumerate(points) if point.lam is not None or point.observation.schedule == about}
    others = [index for index in range(len(points)) if index not in kept]
    num_near = max(most - len(kept), 0) // 2
    by_distance = sorted(others, key=dict(zip(others, _to_front(points, others, num_knots), strict=True)).__getitem__)
    rest = sorted(by_distance[num_near:])
    num_rest = max(most - len(kept) - num_near, 0)
    kept |= {*by_distance[:num_near], *(rest[index * len(rest) // num_rest] for index in range(num_rest))}
    return [points[index] for index in sorted(kept)]


def _to_front(points: Sequence[Point], others: Sequence[int], num_knots: int) -> list[float]:
    """How far the schedules of some points are from the nearest one of the measured front."""
    best = front(points, key=lambda point: Objectives(*(point.observation.values[i] for i in (ACCURACY, TOKENS))))
    targets = np.array([place(point.observation.schedule, num_knots=num_knots) for point in best])
    return [
        float(np.square(targets - place(points[index].observation.schedule, num_knots=num_knots)).sum(axis=1).min())
        for index in others
    ]


def near(points: Sequence[Point], tokens: float) -> list[Point]:
    """The points whose mean tokens are nearest to so many."""
    return sorted(points, key=lambda point: abs(point.observation.values[TOKENS] - tokens))[:NUM_NEAR]


def cost_at(points: Sequence[Point], tokens: float) -> float:
    """The tokens that a response takes where the mean over tasks is so many: as near points have it."""
    return tokens * statistics.median(point.cost_ratio for point in near(points, tokens))


def is_tried(params: Params, evidence: Observations) -> bool:
    """Whether a place is, for all that can be measured, one that was measured, stopped or failed.

    Two places may be one schedule: what leaves [0, 1] is cut off.
    """
    places = [*(point.params for point in evidence.points), *evidence.failed]
    if any(is_near(params, other) for other in places):
        return True
    schedule = to_schedule(params)
    return (
        any(schedule == point.observation.schedule for point in evidence.points)
        or any(schedule == excess.schedule for excess in evidence.censored)
        or any(schedule == to_schedule(other) for other in evidence.failed)
    )
