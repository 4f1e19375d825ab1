"""The record of a study: what its trials measured, put together from their stored responses.

A schedule may have several trials, each on the responses that follow those of the one before: they are one point.
A task that weighs nothing is a guard: it is observed apart, and only its tokens count with those of the others.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autolambda.optimizer.gaussian_process import Floats
from autolambda.optimizer.observations import Observations, Point
from autolambda.optimizer.racing import exceeded
from autolambda.optimizer.space import Params
from autolambda.optimizer.surrogate import CensoredTrial, Guarded, Observation
from autolambda.responses import Grade, Graded, is_aborted
from autolambda.schedule import Schedule
from autolambda.statistics.metrics import Measured, measure
from autolambda.study.store import Store
from autolambda.study.trials import Study, Trial


@dataclass(frozen=True)
class MeasuredSchedule:
    """A schedule and all its responses on the search slice, without their texts.

    ``trial`` is its first one; ``point`` is how the sampler sees it; ``stopped`` says why the last lost the race, if it
    did.
    """

    trial: int
    params: Mapping[str, float]
    schedule: Schedule
    graded: Sequence[Graded]
    measured: Measured
    point: Point
    stopped: str | None


class MeasuredSchedules:
    """The schedules of a study as far as they are measured, kept up to date trial by trial."""

    def __init__(self, *, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._numbers: dict[tuple[str, str], int] = {}  # of prompts, as they were first asked
        self._seen: dict[Schedule, MeasuredSchedule] = {}
        self._excesses: list[CensoredTrial] = []
        self._failed: list[Mapping[str, float]] = []
        self._costs: list[int] = []

    @property
    def seen(self) -> tuple[MeasuredSchedule, ...]:
        """Every measured schedule, in the order of first trials."""
        return tuple(self._seen.values())

    def of(self, schedule: Schedule) -> MeasuredSchedule | None:
        """What is known of a schedule."""
        return self._seen.get(schedule)

    def add(self, trial: Trial, graded: Sequence[Graded], *, stopped: str | None = None) -> None:
        """Takes in a trial that ended: one whose responses were aborted says no more than that its mean is above some.

        Its first responses to end are the short ones, and mostly right: as values they would mislead.
        """
        self._costs.append(sum(each.response.num_tokens for each in graded))
        if is_aborted(graded):
            floor = exceeded(_weighed(graded, self._weights), trial.stop - trial.start)
            self._excesses.append(CensoredTrial(trial.schedule, floor))
            return
        before = self._seen.get(trial.schedule)
        graded = [*(before.graded if before else ()), *map(_without_text, graded)]
        measured = measure(graded, weights=self._weights)
        number, params = (before.trial, before.params) if before else (trial.number, trial.params)
        point = self._point(params, self._observation(trial.schedule, graded, measured), measured, len(graded))
        self._seen[trial.schedule] = MeasuredSchedule(number, params, trial.schedule, graded, measured, point, stopped)

    def with_trial(self, trial: Trial, graded: Sequence[Graded]) -> Observations:
        """The evidence if the trial ended now."""
        ahead = copy.copy(self)
        ahead._seen, ahead._excesses, ahead._costs = dict(self._seen), [*self._excesses], [*self._costs]
        ahead.add(trial, graded)
        return ahead.evidence

    def fail(self, trial: Trial) -> None:
        """Takes in that a trial could not be measured."""
        self._failed.append(trial.params)

    @property
    def evidence(self) -> Observations:
        """As the sampler sees it."""
        points = [seen.point for seen in self._seen.values()]
        return Observations(points, tuple(self._excesses), tuple(self._failed), tuple(self._costs))

    def _point(self, params: Params, observation: Observation, measured: Measured, size: int) -> Point:
        tasks = measured.tasks
        num_guarding = sum(task.num_responses for name, task in tasks.items() if not self._weights[name])
        cost = math.fsum(task.num_responses / size * task.mean_tokens.value for task in tasks.values())
        return Point(params, observation, size, num_guarding, cost)

    def _observation(self, schedule: Schedule, graded: Sequence[Graded], measured: Measured) -> Observation:
        estimates = (measured.accuracy, measured.mean_tokens, measured.think_ratio)
        values, errors = ([getattr(each, name) for each in estimates] for name in ("value", "standard_error"))
        prompts, luck = self._luck([each for each in graded if self._weights[each.task]])
        return Observation(
            schedule,
            (values[0], values[1], values[2]),
            (errors[0], errors[1], errors[2]),
            prompts,
            luck,
            {
                name: self._guarded(graded, name, task)
                for name, task in measured.tasks.items()
                if not self._weights[name]
            },
        )

    def _guarded(self, graded: Sequence[Graded], name: str, measured: Measured) -> Guarded:
        prompts, luck = self._luck([each for each in graded if each.task == name])
        return Guarded(measured.accuracy.value, measured.accuracy.standard_error, prompts, luck[:, 0])

    def _luck(self, graded: Sequence[Graded]) -> tuple[np.ndarray, Floats]:
        """The numbers of the prompts, and each one's means less its task's: correct, tokens, thought.

        With several tasks a prompt's luck counts as it does in their average, by its task's weight over its number of
        prompts: what two schedules share is the luck of their averages.
        """
        keys = [(each.task, each.sample_id) for each in graded]
        numbers = np.array([self._numbers.setdefault(key, len(self._numbers)) for key in keys])
        outcomes = np.array(
            [(each.grade is Grade.CORRECT, each.response.num_tokens, each.thought) for each in graded], dtype=np.float64
        )
        prompts, place = np.unique(numbers, return_inverse=True)
        means = np.zeros((len(prompts), 3))
        np.add.at(means, place, outcomes)
        means /= np.bincount(place)[:, None]
        names = dict(zip(numbers.tolist(), (task for task, _ in keys), strict=True))
        tasks = np.array([names[number] for number in prompts.tolist()])
        met = dict.fromkeys(task for task, _ in keys)
        for task in met:
            means[tasks == task] -= means[tasks == task].mean(axis=0)
        if len(met) > 1:
            total = math.fsum(self._weights[task] for task in met)
            for task in met:
                means[tasks == task] *= self._weights[task] / total * len(prompts) / np.count_nonzero(tasks == task)
        return prompts, means


def _without_text(graded: Graded) -> Graded:
    """Texts stay in the database: those of a long search are gigabytes."""
    return replace(graded, response=replace(graded.response, text=""))


def _weighed(graded: Sequence[Graded], weights: Mapping[str, float]) -> float:
    """The tokens of responses, each weighed as its task counts: n times the mean over tasks."""
    counts, sums = Counter[str](), Counter[str]()
    for each in graded:
        counts[each.task] += 1
        sums[each.task] += each.response.num_tokens
    return sum(weights[task] * len(graded) / count * sums[task] for task, count in counts.items())


def load_measured(store: Store, study: Study, *, weights: Mapping[str, float]) -> MeasuredSchedules:
    """The record of a study from its database: every trial that has ended."""
    stored = {evaluation.key: evaluation for evaluation in store.evaluations(study.name, kind="trial")}
    record = MeasuredSchedules(weights=weights)
    for ended in study.ended():
        if ended.is_failed:
            record.fail(ended.trial)
        else:
            graded = store.graded(stored[str(ended.trial.number)])
            record.add(ended.trial, graded, stopped=ended.stopped)
    return record
