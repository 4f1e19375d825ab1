"""The race: one trial, measured rung by rung until it is complete or has lost.

A rung is a number of responses after which a measurement may pause. All schedules answer the same prompts in the same
order, and the surrogate compares them with the prompt effects that they share. The real run and the replays of
``studies/search_cost`` run the same ``Race``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from autolambda.optimizer.acquisition import is_dominated
from autolambda.optimizer.aims import Aims
from autolambda.optimizer.ladder import on_the_ladder
from autolambda.optimizer.observations import CensoredTrial, Observation, Observations, leading
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.space import ENDS
from autolambda.optimizer.surrogate import fit
from autolambda.schedule import Schedule

OVER_BUDGET, OFF_FRONT, GUARD = "over the budget", "off the front", "breaks a guard"
CERTAIN = 0.975  # chance of exceeding the budget, or of breaking a guard, at which a schedule is stopped
NUM_DRAWS = 256
_DEVIATIONS = 3.0  # standard errors of a mean of lengths, if their deviation equals their mean


@dataclass(frozen=True)
class Rung:
    """A request of the race: measure the responses ``start`` to ``stop`` (exclusive) of the schedule.

    The caller must abort unfinished responses once the weighted tokens of these responses exceed ``max_tokens``.
    """

    start: int
    stop: int
    max_tokens: float


@dataclass(frozen=True)
class RungOutcome:
    """The answer to a ``Rung``, which generated ``num_tokens`` tokens.

    ``observation`` covers all responses of the schedule so far; ``None`` if the rung was aborted. ``floor`` is then a
    lower bound on the mean tokens, by ``exceeded`` from all responses that this race began.
    """

    observation: Observation | None
    num_tokens: int
    floor: float = 0.0


class Race:
    """The race of a schedule over its responses ``start`` to ``stop`` (exclusive): iterate over its rungs.

    Measure each rung and ``tell`` its outcome. ``observations`` then include the schedule, and ``stopped`` says why it
    lost (``None``: it did not). Trials of the ladder are measured whatever they show.
    """

    def __init__(
        self,
        schedule: Schedule,
        start: int,
        stop: int,
        observations: Observations,
        settings: SearchSettings,
        aims: Aims,
    ) -> None:
        self.observations = self._before = observations
        self.stopped: str | None = None
        self._schedule, self._settings, self._aims = schedule, settings, aims
        self._bounds = bounds_of(start, stop, aims.rungs)
        self._on_ladder = on_the_ladder(observations, settings, aims)
        self._cost = 0

    def __iter__(self) -> Iterator[Rung]:
        for low, high in itertools.pairwise(self._bounds):
            if self.stopped is None:
                yield Rung(low, high, math.inf if self._on_ladder else most_tokens(high - low, self._aims.budget))

    def tell(self, outcome: RungOutcome) -> None:
        """Adds the outcome of the rung that was yielded last."""
        self._cost += outcome.num_tokens
        if outcome.observation is None:
            censored = CensoredTrial(self._schedule, outcome.floor)
            self.observations = self._before.with_censored(censored, cost=self._cost)
            self.stopped = OVER_BUDGET
            return
        self.observations = self._before.with_measured(outcome.observation, cost=self._cost)
        if not self._on_ladder:
            self.stopped = stopped_for(self._schedule, self.observations, self._settings, self._aims)


def bounds_of(start: int, stop: int, rungs: Sequence[int]) -> list[int]:
    """Returns the responses at which a race from ``start`` to ``stop`` pauses, with both ends.

    It does not pause for fewer responses than between any two rungs: a call for a few takes nearly as long as one for
    many, because both wait for their longest. The last of the ``rungs`` is the whole slice.
    """
    least = min(rung - before for before, rung in itertools.pairwise([0, *(rungs[:-1] or rungs)]))
    bounds = [start]
    for rung in rungs:
        if min(rung - bounds[-1], stop - rung) >= least:
            bounds.append(rung)
    return [*bounds, stop]


def most_tokens(num_responses: int, budget: float | None) -> float:
    """Returns the tokens above which ``num_responses`` responses surely have a mean above the budget.

    Unfinished responses count with their tokens so far, because the sum only grows. Tokens are weighted by task.
    """
    if budget is None:
        return math.inf
    return num_responses * budget * (1 + _DEVIATIONS / math.sqrt(num_responses))


def exceeded(num_tokens: float, num_responses: int) -> float:
    """Returns a lower bound on the mean tokens of ``num_responses`` responses that were aborted at ``num_tokens``."""
    return num_tokens / num_responses / (1 + _DEVIATIONS / math.sqrt(num_responses))


def stopped_for(schedule: Schedule, observations: Observations, settings: SearchSettings, aims: Aims) -> str | None:
    """Returns why a measured schedule needs no further responses; ``None`` if it may still be the answer.

    Lambda 0 and 1 are never stopped for a guard, because all others are compared with the better of them.
    """
    measured = leading(observations.measured, num_knots=settings.knots, beyond=settings.beyond, about=schedule)
    schedules = [each.schedule for each in measured]
    draw = fit(replace(observations, measured=measured), settings, guards=aims.guards, cap=aims.max_tokens).draw(
        schedules, num_draws=NUM_DRAWS, seed=len(observations.costs)
    )
    index = schedules.index(schedule)
    if aims.budget is not None and float((draw.tokens[:, index] > aims.budget).mean()) >= CERTAIN:
        return OVER_BUDGET
    if schedule not in ENDS and float(draw.allowed[:, index].mean()) <= 1 - CERTAIN:
        return GUARD
    return OFF_FRONT if is_dominated(draw, index) else None
