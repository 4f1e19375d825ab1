"""What a search goes by: the points that it has measured, and what else became of its trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autolambda.box import Params, uniform_lam
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
