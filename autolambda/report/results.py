"""The results of a study's schedules: measured in the search, smoothed by the surrogate, confirmed; parents, baselines.

A confirmed result, a parent or a baseline appears when all its responses are stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from autolambda.config import Config
from autolambda.graders import ifeval
from autolambda.optimizer.finalists import NUM_DRAWS
from autolambda.optimizer.observations import ACCURACY, TOKENS
from autolambda.optimizer.space import PARENTS, parent_of
from autolambda.optimizer.surrogate import Surrogate
from autolambda.responses import Graded
from autolambda.schedule import Schedule
from autolambda.statistics.estimates import SURE, Z_95, Estimate
from autolambda.statistics.guards import Drop, keeps_guards
from autolambda.statistics.metrics import Measured, measure
from autolambda.statistics.pareto import Objectives
from autolambda.statistics.stages import stage_of
from autolambda.statistics.verdict import drops_of
from autolambda.study.measured import MeasuredSchedule
from autolambda.study.store import Store, StoredEvaluation
from autolambda.study.trials import Study
from autolambda.tasks.base import Phase


@dataclass(frozen=True)
class ScheduleResult:
    """A schedule with its measured numbers. A parent or a baseline has no trial.

    ``parent`` is ``instruct`` or ``thinking`` if the schedule is one of the models themselves. ``confirmed`` means that
    the numbers are from the confirmation's prompts. ``stopped`` says why the race (early stopping) ended the
    measurement, if it did. ``drops`` holds the accuracy lost on each guard task. Before the confirmation, ``allowed``
    is the surrogate's chance (0 to 1) that no guard is broken. ``scores`` holds further scores of a task's grader, by
    task.
    """

    trial: int | None
    schedule: Schedule
    measured: Measured
    confirmed: bool
    stopped: str | None = None
    drops: Mapping[str, Drop] = field(default_factory=dict)
    allowed: float | None = None
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    parent: str | None = None
    known_stage: Literal[1, 2, 3] | None = None  # by better numbers than these, so that every table shows the same

    @property
    def name(self) -> str:
        """The name for people: ``trial 5``, or ``Instruct`` for a parent under its own template."""
        return f"trial {self.trial}" if self.trial is not None or self.parent is None else self.parent.capitalize()

    @property
    def stage(self) -> Literal[1, 2, 3]:
        return self.known_stage or stage(self.measured)

    @property
    def score(self) -> Objectives:
        return Objectives(self.measured.accuracy.value, self.measured.mean_tokens.value)

    @property
    def guards(self) -> str | None:
        """The state of all guards: ``kept``, ``broken``, ``unsure``, or ``None`` without guards or any knowledge."""
        if self.drops:
            return guard_word(keeps_guards(self.drops))
        if self.allowed is None:
            return None
        return guard_word(True if self.allowed >= SURE else False if self.allowed <= 1 - SURE else None)

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of the report. Shares are 0 to 1, intervals 95 %."""
        return {
            "trial": self.trial,
            "parent": self.parent,
            "schedule": self.schedule.to_dict(),
            **_numbers(self.measured),
            "stage": self.stage,
            "confirmed": self.confirmed,
            "num_responses": self.measured.num_responses,
            "stopped": self.stopped,
            "guards": self.guards,
            "tasks": {name: self._task(name, measured) for name, measured in self.measured.tasks.items()},
        }

    def _task(self, name: str, measured: Measured) -> dict[str, Any]:
        quantiles = {level: getattr(measured.token_quantiles, level) for level in ("p50", "p90")}
        found: dict[str, Any] = {
            **_numbers(measured),
            **{f"tokens_{level}": quantile.tokens for level, quantile in quantiles.items()},
            **{f"tokens_{level}_is_bound": quantile.is_bound for level, quantile in quantiles.items()},
        }
        if drop := self.drops.get(name):
            found["guard"] = {
                "max_drop": drop.max_drop,
                "drop": drop.value,
                "drop_low": drop.low,
                "drop_high": drop.high,
                "kept": drop.kept,
            }
        if name in self.scores:
            found["scores"] = dict(self.scores[name])
        return found


def stage(measured: Measured) -> Literal[1, 2, 3]:
    """Returns the stage of a measured schedule."""
    return stage_of(min(max(measured.think_ratio.value, 0.0), 1.0))  # a mean of ones may round to more than 1


def guard_word(kept: bool | None) -> str:
    """Returns the state of a guard: ``kept``, ``broken`` or ``unsure`` (for ``None``)."""
    return "unsure" if kept is None else "kept" if kept else "broken"


def _numbers(measured: Measured) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name in ("accuracy", "mean_tokens", "think_ratio"):
        estimate = getattr(measured, name)
        numbers |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return numbers | {
        "truncated_ratio": measured.truncated_ratio.value,
        "unparsed_ratio": measured.unparsed_ratio.value,
    }


def measured_results(seen: Sequence[MeasuredSchedule], model: Surrogate, config: Config) -> tuple[ScheduleResult, ...]:
    """Returns a result for each measured schedule; with guards, also the chance that it breaks none."""
    allowed: list[float | None] = [None] * len(seen)
    if config.guards:
        draw = model.draw([each.schedule for each in seen], num_draws=NUM_DRAWS, seed=config.search.seed)
        allowed = draw.allowed.mean(axis=0).tolist()
    return tuple(
        ScheduleResult(
            each.trial,
            each.schedule,
            each.measured,
            confirmed=False,
            stopped=each.stopped,
            allowed=chance,
            scores=_scores(each.graded, config, phase="search"),
            parent=parent_of(each.schedule),
        )
        for each, chance in zip(seen, allowed, strict=True)
    )


def confirmed_result(
    trial: int | None,
    schedule: Schedule,
    graded: Sequence[Graded],
    config: Config,
    *,
    parents: Mapping[str, Sequence[Graded]],
    parent: str | None = None,
) -> ScheduleResult:
    """Returns the confirmed result of a schedule. Losses on guards need the responses of both ``parents``."""
    drops = drops_of(graded, parents.values(), guards=config.guards) if len(parents) == 2 else {}
    measured, scores = measure(graded, weights=config.weights), _scores(graded, config, phase="confirm")
    return ScheduleResult(trial, schedule, measured, confirmed=True, drops=drops, scores=scores, parent=parent)


def smoothed_results(trials: Sequence[ScheduleResult], model: Surrogate) -> tuple[ScheduleResult, ...]:
    """Returns the trials with the surrogate's estimates of accuracy and mean tokens; other numbers stay measured."""
    bands = [model.predict([result.schedule for result in trials], output) for output in (ACCURACY, TOKENS)]
    results = []
    for index, result in enumerate(trials):
        estimates = [
            Estimate(
                float(band.value[index]),
                float(band.high[index] - band.low[index]) / (2 * Z_95),
                float(band.low[index]),
                float(band.high[index]),
                result.measured.accuracy.num_prompts,
                result.measured.num_responses,
            )
            for band in bands
        ]
        measured = replace(result.measured, accuracy=estimates[ACCURACY], mean_tokens=estimates[TOKENS], tasks={})
        results.append(replace(result, measured=measured, scores={}))
    return tuple(results)


def confirmed_responses(store: Store, study: Study, trials: Sequence[ScheduleResult]) -> dict[int | None, list[Graded]]:
    """Returns the responses of each trial with a complete confirmation. Trials with equal schedules share them."""
    evaluations = {evaluation.key: evaluation for evaluation in store.evaluations(study.name, kind="confirm")}
    found = {e.trial: _complete(store, evaluations.get(e.schedule.key)) for e in trials}
    return {trial: graded for trial, graded in found.items() if graded}


def _complete(store: Store, evaluation: StoredEvaluation | None) -> list[Graded]:
    """Returns the responses of an evaluation, or none until all are stored."""
    graded = store.graded(evaluation) if evaluation else []
    return graded if evaluation and len(graded) == evaluation.num_responses else []


def parent_responses(store: Store, study: Study) -> dict[str, list[Graded]]:
    """Returns the complete responses of each parent under its own chat template."""
    found = {each.key: _complete(store, each) for each in store.evaluations(study.name, kind="parent")}
    return {name: graded for name, graded in found.items() if graded}


def parent_results(
    responses: Mapping[str, Sequence[Graded]], trials: tuple[ScheduleResult, ...], config: Config
) -> dict[str, ScheduleResult | None]:
    """Returns each parent on the confirmation's prompts; until it is measured, the trial at lambda 0 or 1."""
    parents: dict[str, ScheduleResult | None] = {}
    for name, schedule in PARENTS.items():
        if graded := responses.get(name):
            parents[name] = confirmed_result(None, schedule, graded, config, parents={}, parent=name)
        else:
            parents[name] = next((result for result in trials if result.parent == name), None)
    return parents


def baseline_results(
    store: Store, study: Study, parents: Mapping[str, Sequence[Graded]], config: Config
) -> dict[str, ScheduleResult]:
    """Returns the other merge methods that were measured on the confirmation's prompts, by name."""
    stored = {each.key: each for each in store.evaluations(study.name, kind="baseline")}
    complete = {name: graded for name, each in stored.items() if (graded := _complete(store, each))}
    return {
        name: confirmed_result(None, stored[name].schedule, graded, config, parents=parents)
        for name, graded in complete.items()
    }


def _scores(graded: Sequence[Graded], config: Config, *, phase: Phase) -> dict[str, dict[str, float]]:
    """Returns IFEval's four scores of each task that it grades, over its ``num_read`` parsed responses."""
    found = {}
    for task in config.tasks:
        source = task.confirm_on if phase == "confirm" and task.confirm_on else task
        if source.grader_name == "ifeval":
            answers = [each.answer for each in graded if each.task == task.label and each.answer is not None]
            found[task.label] = {**ifeval.scores(answers), "num_read": len(answers)}
    return found
