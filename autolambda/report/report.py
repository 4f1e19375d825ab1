"""A study's report: fronts, stages, parents and verdict, all recomputed from the database.

There are three fronts. The raw one is of the measured means, and overstates itself: the lucky ones win. The smoothed
one is of what the surrogate makes of all trials together. The confirmed one is of prompts that the search never saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autolambda.config import Config, parse_config
from autolambda.errors import StudyError
from autolambda.optimizer.aims import Aims
from autolambda.optimizer.finalists import plan
from autolambda.optimizer.surrogate import fit
from autolambda.report.insights import Insights, insights_of
from autolambda.report.results import (
    ScheduleResult,
    baseline_results,
    confirm_key,
    confirmed_responses,
    confirmed_result,
    measured_results,
    parent_responses,
    parent_results,
    smoothed_results,
)
from autolambda.responses import Graded
from autolambda.schedule import Schedule
from autolambda.statistics.estimates import Difference
from autolambda.statistics.pareto import front
from autolambda.statistics.stages import CurvePoint, Stages, detect_stages
from autolambda.statistics.verdict import Decision, Verdict, difference, verdict
from autolambda.study.measured import load_measured
from autolambda.study.store import Store
from autolambda.study.trials import Counts, Study

__all__ = ["UNFINISHED", "Alike", "Report", "build_report", "confirm_key", "slack_sentence"]

UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Alike:
    """A confirmed schedule and its accuracy less that of the pick, of which the interval holds 0."""

    result: ScheduleResult
    difference: Difference


@dataclass(frozen=True)
class Report:
    """What ``search`` returns and ``report`` shows.

    ``best`` answers the budget; ``nearest`` stands in where nothing does; ``cheaper_than`` is the more accurate one
    over which a cheaper ``best`` was picked. ``alike`` are finalists within the budget whose accuracy cannot be told
    apart from that of ``best``. ``trials`` are the measured schedules, one each, ``smoothed`` the same with the
    surrogate's numbers, ``confirmed`` those that were ever confirmed, for any budget. ``baselines`` were measured on
    the same prompts. ``insights`` says what tokens buy, ``identity`` what the results depend on, ``digests`` the
    SHA-256 of the weights with which schedules were confirmed, where it is known.
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
    def has_curve(self) -> bool:
        """Whether more than one uniform lambda is measured, so that there is something to say of stages."""
        return len({result.schedule.lam for result in self.trials} - {None}) > 1

    @property
    def slack(self) -> str | None:
        """Says that the budget cannot bind, where no parent and no trial needs more; ``None`` where it may."""
        parents = {name: result.score.mean_tokens for name, result in self.parents.items() if result}
        highest = max(result.score.mean_tokens for result in (*self.trials, *self.confirmed))
        if self.budget is None or self.budget < highest:
            return None
        return slack_sentence(self.budget, parents, bundled=self.config.models.bundled)

    @property
    def is_done(self) -> bool:
        """Whether all trials are told, both parents measured as they are, and the budget (if any) decided."""
        measured = all(result is not None and result.confirmed for result in self.parents.values())
        decided = self.verdict is not None if self.budget else bool(self.confirmed)
        return self.stop_reason != UNFINISHED and measured and decided

    @property
    def front(self) -> tuple[ScheduleResult, ...]:
        """The confirmed front as far as there is one."""
        return self.confirmed_front or self.smoothed_front

    def result(self, trial: int | None) -> ScheduleResult:
        """A trial's result, confirmed where it was, or the budget's pick. Raises ``StudyError`` where there is none."""
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


def build_report(store: Store, study: Study, *, budget: float | None) -> Report:
    """The report of a study, running or done, for ``budget``. Raises ``StudyError`` before its first trial is done."""
    stored = store.study(study.name)
    assert stored is not None
    config = parse_config(stored.config)
    weights = config.weights
    measured = load_measured(store, study, weights=weights)
    if not measured.all:
        raise StudyError(f"study '{study.name}' has no complete trial yet; go on with 'autolambda resume {study.name}'")
    sizes = stored.identity["confirm.responses"], stored.identity["confirm.prompts"]
    aims = Aims(budget, tuple(stored.identity["search.rungs"]), *sizes, tuple(config.guards.items()))
    model = fit(measured.observations, config.search.knots, guards=aims.guards)
    trials = measured_results(measured.all, model, config)
    smoothed = smoothed_results(trials, model)
    finalists = plan(measured.observations, config.search_settings, aims, model=model).finalists
    responses, own = confirmed_responses(store, study, trials), parent_responses(store, study)
    results = {
        e.trial: confirmed_result(e.trial, e.schedule, responses[e.trial], config, parents=own)
        for e in trials
        if e.trial in responses
    }
    shown = [(result, responses[trial]) for trial, result in results.items()]
    numbers = [trials[index].trial for index in finalists]
    chosen = [results.get(number) for number in numbers]
    decision = None
    alike: tuple[Alike, ...] = ()
    if budget is not None and all(result is not None and _is_comparable(result, config) for result in chosen):
        graded = [responses[number] for number in numbers]
        drops = [results[number].drops for number in numbers]
        decision = verdict(graded, budget=budget, margin=config.confirm.margin, weights=weights, drops=drops)
        alike = _alike(decision, graded, [results[number] for number in numbers], weights)
    return Report(
        study=study.name,
        budget=budget,
        verdict=decision.verdict if decision else None,
        best=_at(chosen, decision.pick) if decision else _unconfirmed(smoothed, budget),
        nearest=_at(chosen, decision.nearest) if decision and decision.pick is None else None,
        cheaper_than=_at(chosen, decision.best) if decision and decision.best != decision.pick else None,
        alike=tuple(alike),
        trials=trials,
        smoothed=smoothed,
        confirmed=tuple(results.values()),
        parents=parent_results(own, trials, config),
        baselines=baseline_results(store, study, own, config),
        stages=_stages(trials),
        insights=insights_of(measured.all, smoothed, shown, own, weights=weights),
        counts=study.counts(),
        tokens_generated=store.num_tokens(study.name),
        stop_reason=study.stopped_for or UNFINISHED,
        config=config,
        identity=stored.identity,
        digests={e.schedule: found for e in results.values() if (found := study.weights_of(e.schedule))},
    )


def _is_comparable(result: ScheduleResult, config: Config) -> bool:
    """Whether all that the verdict asks of a finalist is known."""
    return result.drops.keys() == config.guards.keys()


def _alike(
    decision: Decision,
    graded: Sequence[Sequence[Graded]],
    results: Sequence[ScheduleResult],
    weights: Mapping[str, float],
) -> tuple[Alike, ...]:
    """The others within the budget whose accuracy may be that of the pick."""
    if decision.pick is None:
        return ()
    changes = {
        index: difference(graded[index], graded[decision.pick], weights=weights)
        for index in decision.passed
        if index != decision.pick
    }
    return tuple(Alike(results[index], change) for index, change in changes.items() if change.low <= 0 <= change.high)


def slack_sentence(budget: float, parents: Mapping[str, float], *, bundled: bool) -> str | None:
    """That a budget is above the mean tokens of both ``parents``, and what to do; ``None`` where it is not."""
    if len(parents) < 2 or budget < max(parents.values()):
        return None
    longest = max(parents, key=lambda name: parents[name])
    advice = (
        f"For your own models: autolambda search INSTRUCT THINKING --task my.jsonl --budget {budget:g}"
        if bundled
        else "Leave it out, or give a lower one, to see what tokens buy."
    )
    return (
        f"A budget of {budget:g} tokens cannot bind here: the longest parent, {longest.capitalize()}, needs "
        f"{parents[longest]:.1f} tokens a response on average. {advice}"
    )


def _stages(trials: Sequence[ScheduleResult]) -> Stages:
    """From the uniform schedules' Think ratios; prompts, not responses, are the independent unit."""
    points = [
        CurvePoint(e.schedule.lam, e.measured.think_ratio.value, e.measured.think_ratio.num_prompts)
        for e in trials
        if e.schedule.lam is not None
    ]
    if len({point.lam for point in points}) < 2:
        return Stages(None, None, ("fewer than two uniform lambdas are measured",))
    return detect_stages(points)


def _unconfirmed(trials: tuple[ScheduleResult, ...], budget: float | None) -> ScheduleResult | None:
    """The most accurate of the smoothed trials whose upper bound is within the budget and whose guards are kept."""
    within = [e for e in trials if budget is not None and e.measured.mean_tokens.high <= budget]
    kept = [e for e in within if e.guards in (None, "kept")]
    return max(kept, key=lambda e: (e.score.accuracy, -e.score.mean_tokens), default=None)


def _at(results: list[ScheduleResult | None], index: int | None) -> ScheduleResult | None:
    return None if index is None else results[index]
