"""The measured schedules of a study, from the stored responses of its trials.

A schedule may have several trials. Each one continues after the responses of the trial before, and all are pooled. A
task with weight 0 is a guard: it is observed separately, and only its tokens count with the others. The other responses
are also observed by mode: without thinking and with it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autolambda.optimizer.observations import THINK, CensoredTrial, Observation, Observations, PartObservation, part_of
from autolambda.optimizer.racing import exceeded
from autolambda.responses import Grade, Graded, is_aborted
from autolambda.schedule import Schedule
from autolambda.statistics.estimates import Floats
from autolambda.statistics.metrics import Measured, measure
from autolambda.study.store import Store
from autolambda.study.trials import Study, Trial


@dataclass(frozen=True)
class MeasuredSchedule:
    """A schedule with all its responses on the search slice, without their texts.

    ``trial`` is its first trial. ``stopped`` says why the race (early stopping of a trial) ended its last trial, if it
    did.
    """

    trial: int
    params: Mapping[str, float]
    schedule: Schedule
    graded: Sequence[Graded]
    measured: Measured
    observation: Observation
    stopped: str | None = None


class MeasuredSchedules:
    """The measured schedules of a study, updated trial by trial, and the ``observations`` of the search."""

    def __init__(self, *, weights: Mapping[str, float]) -> None:
        """``weights`` is the share of each task in the macro average."""
        self.observations = Observations()
        self._weights = weights
        self._prompt_numbers: dict[tuple[str, str], int] = {}  # in the order in which the prompts were first asked
        self._by_schedule: dict[Schedule, MeasuredSchedule] = {}

    @property
    def all(self) -> tuple[MeasuredSchedule, ...]:
        """Every measured schedule, in the order of first trials, like ``observations.measured``."""
        return tuple(self._by_schedule.values())

    def of(self, schedule: Schedule) -> MeasuredSchedule | None:
        """Returns the measurements of a schedule, or ``None``."""
        return self._by_schedule.get(schedule)

    def pooled(self, trial: Trial, graded: Sequence[Graded], *, stopped: str | None = None) -> MeasuredSchedule:
        """Returns the measurements of the trial's schedule as if the trial ended with these responses."""
        before = self._by_schedule.get(trial.schedule)
        graded = [*(before.graded if before else ()), *map(_without_text, graded)]
        measured = measure(graded, weights=self._weights)
        number, params = (before.trial, before.params) if before else (trial.number, trial.params)
        observation = self._observation(params, trial.schedule, graded, measured)
        return MeasuredSchedule(number, params, trial.schedule, graded, measured, observation, stopped)

    def add(self, trial: Trial, graded: Sequence[Graded], *, stopped: str | None = None) -> None:
        """Adds a finished trial. An aborted trial is right-censored: only a lower bound on its mean tokens is kept."""
        cost = sum(each.response.num_tokens for each in graded)
        if is_aborted(graded):
            censored = CensoredTrial(trial.schedule, self.floor(graded))
            self.keep(None, self.observations.with_censored(censored, cost=cost))
            return
        pooled = self.pooled(trial, graded, stopped=stopped)
        self.keep(pooled, self.observations.with_measured(pooled.observation, cost=cost))

    def keep(self, pooled: MeasuredSchedule | None, observations: Observations) -> None:
        """Keeps the end of a trial: all observations, and its schedule's measurement unless the trial was aborted."""
        self.observations = observations
        if pooled is not None:
            self._by_schedule[pooled.schedule] = pooled

    def fail(self, trial: Trial) -> None:
        """Adds a trial that could not be measured."""
        self.observations = self.observations.with_failed(trial.params)

    def floor(self, graded: Sequence[Graded]) -> float:
        """Returns a lower bound on the mean tokens, weighted by task, by the responses that an aborted trial began."""
        counts, sums = Counter[str](), Counter[str]()
        for each in graded:
            counts[each.task] += 1
            sums[each.task] += each.response.num_tokens
        tokens = sum(self._weights[task] * len(graded) / count * sums[task] for task, count in counts.items())
        return exceeded(tokens, len(graded))

    def _observation(
        self, params: Mapping[str, float], schedule: Schedule, graded: Sequence[Graded], measured: Measured
    ) -> Observation:
        estimates = (measured.accuracy, measured.mean_tokens, measured.think_ratio)
        values, errors = ([getattr(estimate, name) for estimate in estimates] for name in ("value", "standard_error"))
        self._numbers(graded)  # in the order of the requests, however many of them come at once
        prompts, effects = self._prompt_effects([each for each in graded if self._weights[each.task]])
        guards = {name: task for name, task in measured.tasks.items() if not self._weights[name]}
        tasks = measured.tasks.values()
        direct, thinking = self._modes([each for each in graded if self._weights[each.task]])
        return Observation(
            schedule,
            (values[0], values[1], values[2]),
            (errors[0], errors[1], errors[2]),
            prompts,
            effects,
            params,
            len(graded),
            {name: self._guard_observation(graded, name, task) for name, task in guards.items()},
            num_guarding=sum(task.num_responses for task in guards.values()),
            tokens_per_response=math.fsum(t.num_responses / len(graded) * t.mean_tokens.value for t in tasks),
            direct=direct,
            thinking=thinking,
        )

    def _modes(self, graded: Sequence[Graded]) -> tuple[PartObservation | None, PartObservation | None]:
        """Returns the observations of the responses without thinking and with it. Every task keeps its weight."""
        sizes = Counter(each.task for each in graded)
        weights = np.array([self._weights[each.task] / sizes[each.task] for each in graded])
        prompts, outcomes = self._numbers(graded), _outcomes(graded)
        tasks = np.unique([each.task for each in graded], return_inverse=True)[1]
        thought = outcomes[:, THINK] > 0
        direct, thinking = (
            part_of(prompts[mine], outcomes[mine, :THINK], weights[mine], tasks[mine]) for mine in (~thought, thought)
        )
        return direct, thinking

    def _guard_observation(self, graded: Sequence[Graded], name: str, measured: Measured) -> PartObservation:
        prompts, effects = self._prompt_effects([each for each in graded if each.task == name])
        right, tokens = measured.accuracy, measured.mean_tokens
        errors = right.standard_error, tokens.standard_error
        return PartObservation((right.value, tokens.value), errors, prompts, effects[:, :THINK])

    def _prompt_effects(self, graded: Sequence[Graded]) -> tuple[np.ndarray, Floats]:
        """Returns the prompt numbers, and the prompt effects float64 [prompts, 3]: correct, tokens, thought.

        The effect of a prompt is its mean minus the mean of its task. With several tasks, it is scaled by the weight of
        its task divided by the task's number of prompts. The scale matches the macro averages that compare schedules.
        """
        numbers, outcomes = self._numbers(graded), _outcomes(graded)
        prompts, place = np.unique(numbers, return_inverse=True)
        means = np.zeros((len(prompts), 3))
        np.add.at(means, place, outcomes)
        means /= np.bincount(place)[:, None]
        names = dict(zip(numbers.tolist(), (each.task for each in graded), strict=True))
        tasks = np.array([names[number] for number in prompts.tolist()])
        met = dict.fromkeys(each.task for each in graded)
        for task in met:
            means[tasks == task] -= means[tasks == task].mean(axis=0)
        if len(met) > 1:
            total = math.fsum(self._weights[task] for task in met)
            for task in met:
                means[tasks == task] *= self._weights[task] / total * len(prompts) / np.count_nonzero(tasks == task)
        return prompts, means

    def _numbers(self, graded: Sequence[Graded]) -> NDArray[np.int64]:
        """Returns the number of each response's prompt, int64 [n]. A new prompt gets the next number."""
        keys = [(each.task, each.sample_id) for each in graded]
        return np.array([self._prompt_numbers.setdefault(key, len(self._prompt_numbers)) for key in keys], np.int64)


def _outcomes(graded: Sequence[Graded]) -> Floats:
    """Returns correct, tokens and thought of each response, float64 [n, 3]."""
    rows = [(each.grade is Grade.CORRECT, each.response.num_tokens, each.thought) for each in graded]
    return np.array(rows, dtype=np.float64)


def _without_text(graded: Graded) -> Graded:
    """Drops the text, because the texts of a long search take gigabytes. The database keeps them."""
    return replace(graded, response=replace(graded.response, text=""))


def load_measured(store: Store, study: Study, *, weights: Mapping[str, float]) -> MeasuredSchedules:
    """Reads the measured schedules of a study from all ended trials in its database."""
    stored = {evaluation.key: evaluation for evaluation in store.evaluations(study.name, kind="trial")}
    schedules = MeasuredSchedules(weights=weights)
    for ended in study.ended():
        if ended.is_failed:
            schedules.fail(ended.trial)
        else:
            graded = store.graded(stored[str(ended.trial.number)], with_texts=False)
            schedules.add(ended.trial, graded, stopped=ended.stopped)
    return schedules
