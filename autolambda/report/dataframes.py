"""A study as pandas frames: its history trial by trial, and its responses.

A row of the history has its schedule's numbers from all responses up to that trial; an aborted trial has none. The
hypervolume is the area under the raw front so far: the accuracy averaged over all budgets up to a reference.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas

from autolambda.optimizer.space import BEYOND
from autolambda.report.results import ScheduleResult
from autolambda.schedule import Schedule
from autolambda.statistics.estimates import Floats
from autolambda.statistics.pareto import Objectives, hypervolume
from autolambda.statistics.stages import stage_of
from autolambda.study.reader import open_for_reading
from autolambda.study.store import Kind
from autolambda.study.trials import EndedTrial

OUTCOMES: dict[str, Any] = {
    "kind": "str",
    "key": "str",
    "task": "str",
    "sample_id": "str",
    "repeat": "int64",
    "grade": "str",
    "thought": "bool",
    "num_tokens": "int64",
    "finish_reason": "str",
}
"""The columns of ``outcomes_frame`` and their types: the responses of a study without their texts."""

HISTORY: dict[str, Any] = {
    "trial": "int64",
    "outcome": "str",
    "reason": "str",
    "schedule": "str",
    "lambda": "float64",
    "num_planned": "int64",
    "num_responses": "int64",
    "tokens": "int64",
    "tokens_so_far": "int64",
    "accuracy": "float64",
    "mean_tokens": "float64",
    "think_ratio": "float64",
    "stage": "Int64",
    "hypervolume": "float64",
}
"""The columns of ``history`` and their types; further ones are ``scale`` and ``third``, if they were searched."""


def outcomes_frame(rows: Sequence[tuple[Any, ...]]) -> pandas.DataFrame:
    """Returns the rows of ``Store.outcomes`` as a frame, one row per response."""
    return pandas.DataFrame(rows, columns=[*OUTCOMES]).astype(OUTCOMES)


def history(
    ended: Sequence[EndedTrial],
    outcomes: pandas.DataFrame,
    *,
    weights: Mapping[str, float],
    reference_tokens: float,
    spaces: Collection[str] = (),
) -> pandas.DataFrame:
    """Returns one row per ended trial, in order; ``outcome`` is ``complete``, ``pruned`` or ``failed``.

    ``reference_tokens`` is the largest budget of the hypervolume, in mean tokens. ``lambda`` is missing if a schedule
    is not uniform, and ``reason`` if a trial is complete. ``spaces`` are those of the search: ``scale`` and ``third``
    are columns too, missing if they differ between modules.
    """
    tally = _Tally(outcomes[outcomes.kind == "trial"], weights)
    scores: dict[Schedule, Objectives] = {}
    rows, spent = [], 0
    for each in ended:
        own, schedule = tally.of(each), each.trial.schedule
        spent += own.tokens
        if own.numbers:
            scores[schedule] = Objectives(own.numbers["accuracy"], own.numbers["mean_tokens"])
        rows.append(
            {
                "trial": each.trial.number,
                "outcome": "failed" if each.is_failed else "pruned" if each.stopped else "complete",
                "reason": each.failure or each.stopped,
                "schedule": schedule.key,
                "lambda": schedule.lam,
                "num_planned": each.trial.stop - each.trial.start,
                "num_responses": own.num_responses,
                "tokens": own.tokens,
                "tokens_so_far": spent,
                "hypervolume": hypervolume(scores.values(), reference_tokens=reference_tokens) / reference_tokens,
                **own.numbers,
                **_beyond(schedule, spaces),
            }
        )
    columns = HISTORY | _beyond_types(spaces)
    return pandas.DataFrame(rows, columns=[*columns]).astype(columns)


def _beyond(schedule: Schedule, spaces: Collection[str]) -> dict[str, float | None]:
    """Returns the scale and the weight of the third parent, as far as they were searched; ``None`` if by module."""
    numbers = {"scale": schedule.scale.value, "third": schedule.third.value}
    return {name: numbers[name] for name in _beyond_types(spaces)}


def _beyond_types(spaces: Collection[str]) -> dict[str, Any]:
    return {space: "float64" for space in BEYOND if space in spaces}


@dataclass(frozen=True)
class _Own:
    """One trial's generated tokens, and its schedule's numbers after it; none for an aborted trial."""

    num_responses: int
    tokens: int
    numbers: Mapping[str, Any]


class _Tally:
    """The numbers of every schedule so far. Averages over repeats, then over prompts, then over tasks by weight."""

    def __init__(self, responses: pandas.DataFrame, weights: Mapping[str, float]) -> None:
        prompts = responses.groupby(["task", "sample_id"], sort=False)
        self._prompts, self._num_prompts = prompts.ngroup().to_numpy(), prompts.ngroups
        tasks = np.empty(self._num_prompts, dtype=object)
        tasks[self._prompts] = responses.task.to_numpy()
        self._tasks = {name: tasks == name for name in responses.task.unique().tolist()}
        self._weights = weights
        self._values = np.column_stack([responses.grade == "correct", responses.num_tokens, responses.thought]).astype(
            np.float64
        )
        self._aborted = (responses.finish_reason == "aborted").to_numpy()
        self._places = responses.groupby("key").indices
        self._known: dict[Schedule, tuple[Floats, Floats]] = {}

    def of(self, ended: EndedTrial) -> _Own:
        """Adds an ended trial and returns what it measured."""
        at = self._places.get(str(ended.trial.number), np.zeros(0, dtype=np.intp))
        tokens, numbers = int(self._values[at, 1].sum()), dict[str, Any]()
        if len(at) and not self._aborted[at].any():
            empty = np.zeros((self._num_prompts, 3)), np.zeros(self._num_prompts)
            sums, counts = self._known.setdefault(ended.trial.schedule, empty)
            np.add.at(sums, self._prompts[at], self._values[at])
            np.add.at(counts, self._prompts[at], 1)
            numbers = self._numbers(sums, counts)
        return _Own(len(at), tokens, numbers)

    def _numbers(self, sums: Floats, counts: Floats) -> dict[str, Any]:
        total, mean = 0.0, np.zeros(3)
        for task, members in self._tasks.items():
            seen = members & (counts > 0)
            if share := self._weights.get(task, 0.0) if seen.any() else 0.0:
                total += share
                mean += share * (sums[seen] / counts[seen, None]).mean(axis=0)
        accuracy, tokens, ratio = (mean / total).tolist()
        ratio = min(ratio, 1.0)  # a mean of ones may round to more than 1
        return {"accuracy": accuracy, "mean_tokens": tokens, "think_ratio": ratio, "stage": stage_of(ratio)}


def results_frame(results: Sequence[ScheduleResult], *, spaces: Collection[str] = ()) -> pandas.DataFrame:
    """Returns one row per result: the keys of its JSON without ``tasks``, and ``lambda``, missing if not uniform.

    ``schedule`` is in words. ``spaces`` are those of the search: ``scale`` and ``third`` are columns too, as in
    ``history``.
    """
    rows = [
        {**each.to_dict(), "schedule": str(at), "lambda": at.lam, **_beyond(at, spaces)}
        for each in results
        for at in [each.schedule]
    ]
    types = {"trial": "Int64", "lambda": "float64"} | _beyond_types(spaces)
    columns = [*RESULTS, *_beyond_types(spaces)] if not rows else [key for key in rows[0] if key != "tasks"]
    return pandas.DataFrame(rows, columns=columns).astype(types)


RESULTS = ("trial", "parent", "schedule", "accuracy", "mean_tokens", "think_ratio", "stage", "confirmed", "lambda")
"""The columns of an empty ``results_frame``; one with rows has more."""

KINDS: tuple[Kind, ...] = ("trial", "confirm", "parent", "baseline")


def responses(name: str, *, storage: str | None = None) -> pandas.DataFrame:
    """Returns all stored responses of a study, one row each, in the order of storing within each evaluation.

    ``kind`` and ``key`` name the evaluation. The kind ``trial`` (its key is the number) answers the search's prompts;
    ``confirm``, ``parent`` and ``baseline`` answer prompts that the search never saw. ``lambda`` is missing if the
    schedule is not uniform.

    ``num_tokens`` counts the end token; it is a lower bound unless ``finish_reason`` is ``stop``. ``storage`` is a
    database URL, by default the study's own. Raises ``StudyError`` if the study is missing.
    """
    with open_for_reading(name, storage) as reader:
        store = reader.store
        evaluations = [each for kind in KINDS for each in store.evaluations(name, kind=kind)]
        rows = [
            {
                "kind": evaluation.kind,
                "key": evaluation.key,
                "schedule": evaluation.schedule.key,
                "lambda": evaluation.schedule.lam,
                "task": graded.task,
                "sample_id": graded.sample_id,
                "repeat": graded.repeat,
                "grade": graded.grade.value,
                "answer": graded.answer,
                "thought": graded.thought,
                "num_tokens": graded.response.num_tokens,
                "finish_reason": graded.response.finish_reason,
                "text": graded.response.text,
            }
            for evaluation in evaluations
            for graded in store.graded(evaluation)
        ]
    return pandas.DataFrame(rows, columns=[*COLUMNS]).astype(COLUMNS)


COLUMNS: dict[str, Any] = {
    "kind": "str",
    "key": "str",
    "schedule": "str",
    "lambda": "float64",
    "task": "str",
    "sample_id": "str",
    "repeat": "int64",
    "grade": "str",
    "answer": "str",
    "thought": "bool",
    "num_tokens": "int64",
    "finish_reason": "str",
    "text": "str",
}
"""The columns of ``responses`` and their types."""
