"""What a search goes by: the points that it has measured, and what else became of its trials."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from autolambda.box import Params, is_near, to_schedule, uniform_lam
from autolambda.surrogate import TOKENS, Excess, Observation

NUM_NEAR = 5  # points of about the same mean tokens, by which a place that was not measured is judged


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


def near(points: Sequence[Point], tokens: float) -> list[Point]:
    """The points whose mean tokens are nearest to so many."""
    return sorted(points, key=lambda point: abs(point.observation.values[TOKENS] - tokens))[:NUM_NEAR]


def cost_at(points: Sequence[Point], tokens: float) -> float:
    """The tokens that a response takes where the mean over tasks is so many: as near points have it."""
    return tokens * statistics.median(point.cost_ratio for point in near(points, tokens))


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
