"""The observations of a search: measured schedules with their numbers, aborted and failed trials; and proposed ones.

An aborted trial is right-censored: it was stopped because it took too many tokens. Only a lower bound on its mean
tokens is kept. The mean of its finished responses would mislead, because short responses end first and are often right.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autolambda.optimizer.space import Params, features, is_near, to_schedule, uniform_lam
from autolambda.schedule import Schedule
from autolambda.statistics.estimates import Z_95, Floats, wilson
from autolambda.statistics.pareto import Objectives, front

ACCURACY, TOKENS, THINK = range(3)
MODES = ("direct", "thinking")  # responses without thinking, and with it
NUM_NEAR = 5  # observations nearest in mean tokens; their median cost ratio predicts a schedule's cost
MOST_POINTS = 200  # observations in a surrogate: its time grows with their cube, its memory with their square
_USUAL_VARIATION = 0.7  # standard deviation of lengths over their mean, assumed with the weight of ``_USUAL_SIZE``
_USUAL_SIZE = 4.0


@dataclass(frozen=True)
class PartObservation:
    """A part of the responses: those of one mode, or to a guard task. Their accuracy and mean tokens, with errors.

    ``prompts`` int64 [n] are theirs. ``prompt_effects`` float64 [n, 2] are the deviations of their means.
    """

    values: tuple[float, float]
    errors: tuple[float, float]
    prompts: NDArray[np.int64]
    prompt_effects: Floats


@dataclass(frozen=True)
class Observation:
    """The measurement of one schedule, on the first ``num_responses`` responses of the search slice.

    ``params`` are its parameters in the search space. ``values`` and ``errors`` are accuracy, mean tokens and Think
    ratio, and their standard errors. ``prompts`` int64 [n] are the numbers of the prompts. ``prompt_effects`` float64
    [n, 3] are the deviations of each prompt's means from its task's means, weighted as the task counts. Guard tasks are
    in ``guards`` instead, with ``num_guarding`` responses. ``tokens_per_response`` is the unweighted mean over all
    tasks; ``None`` if it equals the observed mean tokens, as with one task. ``direct`` are the responses without
    thinking and ``thinking`` those with it; ``None`` if there are none.
    """

    schedule: Schedule
    values: tuple[float, float, float]
    errors: tuple[float, float, float]
    prompts: NDArray[np.int64]
    prompt_effects: Floats
    params: Params
    num_responses: int
    guards: Mapping[str, PartObservation] = field(default_factory=dict)
    num_guarding: int = 0
    tokens_per_response: float | None = None
    direct: PartObservation | None = None
    thinking: PartObservation | None = None

    @property
    def cost(self) -> float:
        """The mean tokens of a response, not weighted by task."""
        return self.values[TOKENS] if self.tokens_per_response is None else self.tokens_per_response

    @property
    def cost_ratio(self) -> float:
        """The cost of a response divided by the observed mean tokens: 1 with one task."""
        return self.cost / self.values[TOKENS]

    @property
    def counted(self) -> float:
        """The share of the responses that are not of guard tasks."""
        return 1 - self.num_guarding / self.num_responses

    @cached_property
    def lam(self) -> float | None:
        """The lambda of a uniform schedule, ``None`` for any other."""
        return uniform_lam(self.params)


@dataclass(frozen=True)
class CensoredTrial:
    """An aborted trial: the mean tokens of its schedule exceed ``tokens``."""

    schedule: Schedule
    tokens: float


StopReason = Literal["trials", "tokens", "gain", "spaces"]


@dataclass(frozen=True)
class Proposal:
    """The params of a schedule, and which of its responses to measure: ``start`` to ``stop`` (exclusive)."""

    params: dict[str, float]
    start: int
    stop: int


@dataclass(frozen=True)
class Observations:
    """All observations of a search.

    ``measured`` are the measured schedules, in the order of their first trials. ``censored`` are the aborted trials.
    ``failed`` are the params of trials that could not be measured. ``costs`` are the tokens of each trial that was
    measured or aborted, in order.
    """

    measured: Sequence[Observation] = ()
    censored: Sequence[CensoredTrial] = ()
    failed: Sequence[Params] = ()
    costs: Sequence[int] = ()

    @property
    def num_trials(self) -> int:
        return len(self.costs)

    @property
    def num_tokens(self) -> int:
        return sum(self.costs)

    def with_measured(self, observation: Observation, *, cost: int) -> Observations:
        """Returns the observations after a trial of ``cost`` tokens. Replaces the schedule's earlier observation."""
        schedules = [each.schedule for each in self.measured]
        measured = list(self.measured)
        if observation.schedule in schedules:
            measured[schedules.index(observation.schedule)] = observation
        else:
            measured.append(observation)
        return replace(self, measured=tuple(measured), costs=(*self.costs, cost))

    def with_censored(self, trial: CensoredTrial, *, cost: int) -> Observations:
        """Returns the observations after an aborted trial of ``cost`` tokens."""
        return replace(self, censored=(*self.censored, trial), costs=(*self.costs, cost))

    def with_failed(self, params: Params) -> Observations:
        """Returns the observations after a trial that could not be measured."""
        return replace(self, failed=(*self.failed, params))


def leading(
    measured: Sequence[Observation],
    *,
    num_knots: int,
    beyond: bool = False,
    about: Schedule | None = None,
    most: int = MOST_POINTS,
) -> list[Observation]:
    """Returns the observations that the surrogate is fitted to, in their order: all, if there are at most ``most``.

    Otherwise it keeps the uniform schedules and the schedule ``about``. Half of the remaining places go to schedules
    near the measured front. They are chosen by distance and not by result, to avoid selection bias. The other half is
    spread evenly over all trials, so that early observations stay known. ``beyond`` is as in ``features``.
    """
    if len(measured) <= most:
        return list(measured)
    kept = {index for index, each in enumerate(measured) if each.lam is not None or each.schedule == about}
    others = [index for index in range(len(measured)) if index not in kept]
    num_near = max(most - len(kept), 0) // 2
    places = [features(each.schedule, num_knots=num_knots, beyond=beyond) for each in measured]
    distances = dict(zip(others, _distances_to_front(measured, others, places), strict=True))
    by_distance = sorted(others, key=distances.__getitem__)
    rest = sorted(by_distance[num_near:])
    num_rest = max(most - len(kept) - num_near, 0)
    kept |= {*by_distance[:num_near], *(rest[index * len(rest) // num_rest] for index in range(num_rest))}
    return [measured[index] for index in sorted(kept)]


def _distances_to_front(
    measured: Sequence[Observation], others: Sequence[int], places: Sequence[Floats]
) -> list[float]:
    """Returns the squared distance from each of the ``others`` to the nearest schedule of the measured front."""
    scores = [Objectives(each.values[ACCURACY], each.values[TOKENS]) for each in measured]
    targets = np.array([places[index] for index in front(range(len(measured)), key=scores.__getitem__)])
    return [float(np.square(targets - places[index]).sum(axis=1).min()) for index in others]


def near(measured: Sequence[Observation], tokens: float) -> list[Observation]:
    """Returns the observations whose mean tokens are nearest to ``tokens``."""
    return sorted(measured, key=lambda each: abs(each.values[TOKENS] - tokens))[:NUM_NEAR]


def cost_at(measured: Sequence[Observation], tokens: float) -> float:
    """Returns the predicted cost of a response if the mean tokens, weighted over tasks, are ``tokens``."""
    return tokens * statistics.median(each.cost_ratio for each in near(measured, tokens))


def is_tried(params: Params, observations: Observations) -> bool:
    """Returns whether a point is near a measured or failed one, or has the schedule of any earlier trial."""
    return any(is_near(params, each.params) for each in observations.measured) or not is_new(params, observations)


def is_new(params: Params, observations: Observations) -> bool:
    """Returns whether no earlier trial has the schedule of a point, and it is near no failed one.

    Different params can be one schedule, because lambdas outside [0, 1] are cut off.
    """
    if any(is_near(params, other) for other in observations.failed):
        return False
    schedule = to_schedule(params)
    return not (
        any(schedule == each.schedule for each in observations.measured)
        or any(schedule == each.schedule for each in observations.censored)
        or any(schedule == to_schedule(other) for other in observations.failed)
    )


def part_of(
    prompts: NDArray[np.int64], outcomes: Floats, weights: Floats, groups: NDArray[np.int64] | None = None
) -> PartObservation | None:
    """Returns the observation of a part of the responses, such as those with thinking; ``None`` without any.

    ``prompts`` [n] and ``outcomes`` [n, 2] (correct, tokens) belong to them; ``weights`` [n] add up over tasks as the
    tasks count, and ``groups`` [n] number the tasks. Standard errors cluster by prompt.
    """
    if not len(prompts) or not weights.sum():
        return None
    asked, place = np.unique(prompts, return_inverse=True)
    total, size = float(weights.sum()), len(asked)
    mean = weights @ outcomes / total
    centres = np.zeros_like(outcomes) + mean
    for group in () if groups is None else np.unique(groups):
        mine = groups == group
        centres[mine] = weights[mine] @ outcomes[mine] / weights[mine].sum()
    residuals = np.zeros((size, 2))
    np.add.at(residuals, place, weights[:, None] * (outcomes - centres))
    variance = (residuals**2).sum(axis=0) / total**2 * size / max(size - 1, 1)
    right = max(math.sqrt(variance[0]), wilson(float(mean[0]), len(prompts))[1] / Z_95)
    usual = (_USUAL_VARIATION * mean[1]) ** 2 / size
    spread = ((size - 1) * variance[1] + _USUAL_SIZE * usual) / (size - 1 + _USUAL_SIZE)
    errors = (right, max(math.sqrt(spread), 0.01 * float(mean[1])))
    effects = residuals / np.bincount(place, weights=weights)[:, None]
    return PartObservation((float(mean[0]), float(mean[1])), errors, asked, effects)
