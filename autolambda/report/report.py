"""A study's report: fronts, stages, parents and verdict, all computed from the database.

README.md explains the raw, the smoothed and the confirmed front.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autolambda.config import Config, parse_config
from autolambda.errors import StudyError
from autolambda.merging.difference.values import ParentDifference
from autolambda.optimizer.aims import Aims
from autolambda.optimizer.finalists import plan
from autolambda.optimizer.surrogate import fit
from autolambda.report.insights import Insights, insights_of
from autolambda.report.results import (
    ScheduleResult,
    baseline_results,
    confirmed_responses,
    confirmed_result,
    measured_results,
    parent_responses,
    parent_results,
    smoothed_results,
)
from autolambda.responses import Graded
from autolambda.schedule import Schedule
from autolambda.statistics.curve import CurvePoint
from autolambda.statistics.estimates import Difference
from autolambda.statistics.pareto import front
from autolambda.statistics.stages import Stages, detect_stages
from autolambda.statistics.verdict import Decision, Verdict, difference, verdict
from autolambda.study.measured import load_measured
from autolambda.study.store import Store
from autolambda.study.trials import Counts, Study

UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Alike:
    """A confirmed result with its difference in accuracy to the pick. The interval of the difference holds 0."""

    result: ScheduleResult
    difference: Difference


@dataclass(frozen=True)
class Report:
    """The result of ``search`` and the content of ``report``.

    ``best`` is the pick for the budget, and ``nearest`` the nearest result if there is no pick. ``cheaper_than`` is
    more accurate than ``best``, but costs more tokens. ``alike`` has the finalists within the budget that are as
    accurate as ``best`` within the error.

    ``trials`` has one result per measured schedule, ``smoothed`` the surrogate's estimates of these schedules.
    ``confirmed`` has every confirmed schedule, whatever the budget. ``baselines`` were measured on the prompts of the
    confirmation. ``identity`` holds everything that the results depend on. ``digests`` holds the SHA-256 of confirmed
    weights, and ``parents_differ`` how far the parents are apart, if known.
    """

    study: str
    budget: float | None
    verdict: Verdict | None
    best: ScheduleResult | None
    nearest: ScheduleResult | None
    cheaper_than: ScheduleResult | None
    alike: tuple[Alike, ...]
    trials: tuple[ScheduleResult, ...]
    smoothed: tuple[ScheduleResult, ...]
    confirmed: tuple[ScheduleResult, ...]
    parents: Mapping[str, ScheduleResult | None]
    baselines: Mapping[str, ScheduleResult]
    stages: Stages
    insights: Insights
    counts: Counts
    tokens_generated: int
    stop_reason: str
    config: Config
    identity: Mapping[str, Any]
    digests: Mapping[Schedule, str]
    parents_differ: ParentDifference | None

    @property
    def raw_front(self) -> tuple[ScheduleResult, ...]:
        return tuple(front(self.trials, key=lambda e: e.score))

    @property
    def smoothed_front(self) -> tuple[ScheduleResult, ...]:
        return tuple(front(self.smoothed, key=lambda e: e.score))

    @property
    def confirmed_front(self) -> tuple[ScheduleResult, ...]:
        return tuple(front(self.confirmed, key=lambda e: e.score))

    @property
    def front(self) -> tuple[ScheduleResult, ...]:
        """The confirmed front; before the confirmation, the smoothed one."""
        return self.confirmed_front or self.smoothed_front

    @property
    def has_curve(self) -> bool:
        """Whether at least two uniform lambdas are measured, which the stages need."""
        return len({result.schedule.lam for result in self.trials} - {None}) > 1

    @property
    def is_done(self) -> bool:
        """Whether the search is over, both parents are confirmed, and the budget (if any) is decided."""
        measured = all(result is not None and result.confirmed for result in self.parents.values())
        decided = self.verdict is not None if self.budget else bool(self.confirmed)
        return self.stop_reason != UNFINISHED and measured and decided

    def result(self, trial: int | None) -> ScheduleResult:
        """Returns a trial's result, confirmed if possible, or the pick for ``None``. Raises ``StudyError``."""
        if trial is not None:
            found = next((e for e in (*self.confirmed, *self.trials) if e.trial == trial), None)
            if found is None:
                last = self.trials[-1].trial
                raise StudyError(f"study '{self.study}' has no complete trial {trial}; its last is {last}")
            return found
        if self.best is None:
            raise StudyError(
                f"study '{self.study}' has no pick within {self.budget:g} tokens; name a trial with --trial N"
                if self.budget
                else f"study '{self.study}' has no budget; give --budget TOKENS or --trial N"
            )
        return self.best


@dataclass(frozen=True)
class _Answer:
    """The report's answer to the budget, with the fields of ``Report``."""

    verdict: Verdict | None = None
    best: ScheduleResult | None = None
    nearest: ScheduleResult | None = None
    cheaper_than: ScheduleResult | None = None
    alike: tuple[Alike, ...] = ()


def build_report(store: Store, study: Study, *, budget: float | None) -> Report:
    """Returns the report of a running or finished study for ``budget`` (mean tokens per response).

    Raises ``StudyError`` before the first trial is complete.
    """
    stored = store.study(study.name)
    assert stored is not None
    config = parse_config(stored.settings)
    measured = load_measured(store, study, weights=config.weights)
    if not measured.all:
        raise StudyError(f"study '{study.name}' has no complete trial yet; go on with 'autolambda resume {study.name}'")
    sizes = stored.identity["confirm.responses"], stored.identity["confirm.prompts"]
    aims = Aims(budget, tuple(stored.identity["search.rungs"]), *sizes, tuple(config.guards.items()))
    model = fit(measured.observations, config.search.knots, guards=aims.guards)
    trials = measured_results(measured.all, model, config)
    smoothed = smoothed_results(trials, model)
    finalists = plan(measured.observations, config.search_settings, aims, model=model).finalists
    responses, own = confirmed_responses(store, study, trials), parent_responses(store, study)
    confirmed = {
        e.trial: confirmed_result(e.trial, e.schedule, responses[e.trial], config, parents=own)
        for e in trials
        if e.trial in responses
    }
    shown = [(result, responses[trial]) for trial, result in confirmed.items()]
    chosen = [confirmed.get(trials[index].trial) for index in finalists]
    answer = _answer(chosen, responses, budget, config) or _Answer(best=_unconfirmed(smoothed, budget))
    return Report(
        study=study.name,
        budget=budget,
        verdict=answer.verdict,
        best=answer.best,
        nearest=answer.nearest,
        cheaper_than=answer.cheaper_than,
        alike=answer.alike,
        trials=trials,
        smoothed=smoothed,
        confirmed=tuple(confirmed.values()),
        parents=parent_results(own, trials, config),
        baselines=baseline_results(store, study, own, config),
        stages=_stages(trials),
        insights=insights_of(measured.all, smoothed, shown, own, weights=config.weights),
        counts=study.counts(),
        tokens_generated=store.num_tokens(study.name),
        stop_reason=study.stopped_for or UNFINISHED,
        config=config,
        identity=stored.identity,
        parents_differ=study.difference,
        digests={e.schedule: found for e in confirmed.values() if (found := study.weights_of(e.schedule))},
    )


def _answer(
    finalists: Sequence[ScheduleResult | None],
    responses: Mapping[int | None, Sequence[Graded]],
    budget: float | None,
    config: Config,
) -> _Answer | None:
    """Returns the answer from the finalists in testing order; ``None`` until all are confirmed with their guards."""
    chosen = [result for result in finalists if result is not None and result.drops.keys() == config.guards.keys()]
    if budget is None or len(chosen) < len(finalists):
        return None
    graded = [responses[result.trial] for result in chosen]
    drops = [result.drops for result in chosen]
    decision = verdict(graded, budget=budget, margin=config.confirm.margin, weights=config.weights, drops=drops)
    if decision.pick is None or decision.best is None:
        return _Answer(decision.verdict, nearest=chosen[decision.nearest])
    best = chosen[decision.pick]
    more_accurate = chosen[decision.best] if decision.best != decision.pick else None
    alike = _alike(decision, graded, chosen, config.weights)
    return _Answer(decision.verdict, best, cheaper_than=more_accurate, alike=alike)


def _alike(
    decision: Decision,
    graded: Sequence[Sequence[Graded]],
    results: Sequence[ScheduleResult],
    weights: Mapping[str, float],
) -> tuple[Alike, ...]:
    """Returns the other finalists within the budget whose accuracy may equal the pick's: the interval holds 0."""
    if decision.pick is None:
        return ()
    changes = {
        index: difference(graded[index], graded[decision.pick], weights=weights)
        for index in decision.passed
        if index != decision.pick
    }
    return tuple(Alike(results[index], change) for index, change in changes.items() if change.low <= 0 <= change.high)


def _stages(trials: Sequence[ScheduleResult]) -> Stages:
    """Returns the stages by Think ratios of uniform schedules. The independent unit is a prompt, not a response."""
    points = [
        CurvePoint(e.schedule.lam, e.measured.think_ratio.value, e.measured.think_ratio.num_prompts)
        for e in trials
        if e.schedule.lam is not None
    ]
    if len({point.lam for point in points}) < 2:
        return Stages(None, None, ("fewer than two uniform lambdas are measured",))
    return detect_stages(points)


def _unconfirmed(smoothed: Sequence[ScheduleResult], budget: float | None) -> ScheduleResult | None:
    """Returns the most accurate smoothed result that keeps its guards and whose upper bound is within the budget."""
    within = [e for e in smoothed if budget is not None and e.measured.mean_tokens.high <= budget]
    kept = [e for e in within if e.guards in (None, "kept")]
    return max(kept, key=lambda e: (e.score.accuracy, -e.score.mean_tokens), default=None)
