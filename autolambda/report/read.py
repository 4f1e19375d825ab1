"""Reads the report of a stored study: everything is computed from the database."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from autolambda.config import Config, parse_config
from autolambda.errors import ConfigError, StudyError
from autolambda.optimizer.aims import Aims
from autolambda.optimizer.finalists import Plan, plan
from autolambda.optimizer.surrogate import fit
from autolambda.report.answer.stages import stages_of, with_stages
from autolambda.report.cap.results import Caps, CapsBeside, with_cut_baseline
from autolambda.report.followup.read import read_followups
from autolambda.report.insights import insights_of
from autolambda.report.report import UNFINISHED, Alike, Answer, Beyond, Likely, Open, Report, unconfirmed
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
from autolambda.statistics.metrics import difference
from autolambda.statistics.verdict import LEAST_PROMPTS, Confirmed, Decision, confirmed_of, drops_of, verdict
from autolambda.study.measured import load_measured
from autolambda.study.reader import open_for_reading
from autolambda.study.store import Store, StoredStudy
from autolambda.study.trials import Study


def read_report(name: str, storage: str | None, budget: float | None) -> Report:
    """Returns the report for ``budget`` (mean tokens per response), by default the study's own budget.

    Raises ``StudyError`` if the study or its first trial is missing, ``ConfigError`` for a budget that is not positive.
    """
    with open_for_reading(name, storage, with_texts=False) as reader:
        wanted = reader.config.budget if budget is None else positive_budget(budget)
        return build_report(reader.store, reader.study, budget=wanted)


def positive_budget(budget: float) -> float:
    """Returns the budget unchanged. Raises ``ConfigError`` unless it is a positive number."""
    if not 0 < budget < float("inf"):
        raise ConfigError(f"budget: a positive number of tokens, seen {budget:g}")
    return budget


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
    aims = _aims(stored, config, budget)
    model = fit(measured.observations, config.search_settings, guards=aims.guards, cap=aims.max_tokens)
    trials = measured_results(measured.all, model, config)
    smoothed = smoothed_results(trials, model)
    agreed = plan(measured.observations, config.search_settings, aims, model=model)
    responses, own = confirmed_responses(store, study, trials), parent_responses(store, study)
    confirmed = {
        e.trial: confirmed_result(e.trial, e.schedule, responses[e.trial], config, parents=own, parent=e.parent)
        for e in trials
        if e.trial in responses
    }
    known = (smoothed, tuple(confirmed.values()))
    trials, smoothed = with_stages(trials, known=known), with_stages(smoothed, known=known)
    shown = [(result, responses[trial]) for trial, result in confirmed.items()]
    chosen = [confirmed.get(trials[index].trial) for index in agreed.finalists]
    parents, stages = parent_results(own, trials, config), stages_of(trials)
    answer, caps = None, CapsBeside()
    if budget is not None:
        answer = _Confirmation(config, budget, agreed, responses, own).answer(chosen, parents)
    if budget is not None and answer:
        reader = Caps(store, study, config, tuple(confirmed.values()), responses, own)
        caps = reader.beside(answer.best, answer.nearest, budget=budget)
    return Report(
        **vars(answer or Answer(best=unconfirmed(smoothed, budget))),
        study=study.name,
        budget=budget,
        trials=trials,
        smoothed=smoothed,
        confirmed=tuple(confirmed.values()),
        parents=parents,
        baselines=with_cut_baseline(baseline_results(store, study, own, config), caps.thinking, config),
        cap=caps.thinking,
        capped_merge=caps.merge,
        stages=stages,
        insights=insights_of(measured.all, smoothed, shown, own, weights=config.weights),
        counts=study.counts(),
        tokens_generated=store.num_tokens(study.name),
        stop_reason=study.stopped_for or UNFINISHED,
        config=config,
        identity=stored.identity,
        parents_differ=study.difference,
        digests={e.schedule: found for e in confirmed.values() if (found := study.weights_of(e.schedule))},
        **vars(read_followups(store, study, stages, weights=config.weights)),
    )


def _aims(stored: StoredStudy, config: Config, budget: float | None) -> Aims:
    identity = stored.identity
    return Aims(
        budget,
        tuple(identity["search.rungs"]),
        identity["confirm.responses"],
        identity["confirm.prompts"],
        tuple(config.guards.items()),
        max_tokens=identity.get("sampling.max_tokens") or math.inf,
    )


class _Confirmation:
    """The confirmed responses of a study, which answer the budget."""

    def __init__(
        self,
        config: Config,
        budget: float,
        agreed: Plan,
        responses: Mapping[int | None, Sequence[Graded]],
        own: Mapping[str, Sequence[Graded]],
    ) -> None:
        """``responses`` are those of the trials, ``own`` those of the parents under their own templates."""
        self._config, self._budget, self._agreed, self._responses, self._own = config, budget, agreed, responses, own
        self._parents = {name: self._parent(name, own) for name in own if len(own) == 2 or not config.guards}

    def answer(
        self, finalists: Sequence[ScheduleResult | None], parents: Mapping[str, ScheduleResult | None]
    ) -> Answer | None:
        """Returns the answer from the finalists in testing order.

        Those after the first that does not pass do not count, even if they were confirmed for another budget. Returns
        ``None`` until the others are confirmed, with their guards.
        """
        known = [result is not None and result.drops.keys() == self._config.guards.keys() for result in finalists]
        chosen = [each for each in finalists[: (*known, False).index(False)] if each is not None]
        passed = [self._numbers(each).passes(self._budget) for each in chosen]
        is_decided = len(chosen) == len(finalists) or not all(passed)
        if not chosen or not is_decided:
            return None
        chosen = chosen[: (*passed, False).index(False) + 1]
        decision = verdict(
            [self._responses[each.trial] for each in chosen],
            budget=self._budget,
            margin=self._config.confirm.margin,
            weights=self._config.weights,
            drops=[each.drops for each in chosen],
            parents=self._parents,
            own=self._own,
            combined=self._agreed.combined,
            uniform=[index for index, each in enumerate(chosen) if each.schedule.lam is not None],
            beyond=[index for index, each in enumerate(chosen) if each.schedule.further],
        )
        return self._told(decision, chosen, parents)

    def _told(
        self, decision: Decision, chosen: Sequence[ScheduleResult], parents: Mapping[str, ScheduleResult | None]
    ) -> Answer:
        best = more_accurate = beaten = None
        if decision.parent is not None:
            best = parents[decision.parent]
        elif decision.pick is not None and decision.best is not None:
            best = chosen[decision.pick]
            more_accurate = chosen[decision.best] if decision.best != decision.pick else None
        if best is not None and best.parent is not None:
            merges = [chosen[index] for index in decision.passed if chosen[index].parent is None]
            beaten = max(merges, key=lambda each: each.score.accuracy, default=None)
        graded = [self._responses[each.trial] for each in chosen]
        likely = None if decision.likely is None else chosen[decision.likely]
        passed_over = None if decision.passed_over is None else chosen[decision.passed_over]
        uniform = None if decision.uniform is None else chosen[decision.uniform]
        place = len(decision.passed) if decision.passed else decision.nearest
        return Answer(
            verdict=decision.verdict,
            best=best,
            nearest=None if decision.passed else chosen[decision.nearest],
            cheaper_than=more_accurate,
            alike=() if decision.parent else _alike(decision, graded, chosen, self._config.weights),
            beaten=beaten,
            likely=Likely(likely, self._numbers(likely).chance) if likely else None,
            uniform=uniform if best is not None and best.schedule.lam is None else None,
            preferred_over=passed_over if decision.parent is None else None,
            beyond=self._beyond(decision, chosen, parents),
            open=Open(chosen[place], self._enough(chosen[place])) if place < len(chosen) else None,
        )

    def _beyond(
        self, decision: Decision, chosen: Sequence[ScheduleResult], parents: Mapping[str, ScheduleResult | None]
    ) -> Beyond | None:
        name = decision.rival
        line = parents[name] if name else None if decision.line is None else chosen[decision.line]
        if decision.beyond is None or line is None:
            return None
        far, other = chosen[decision.beyond], self._own[name] if name else self._responses[line.trial]
        change = difference(self._responses[far.trial], other, weights=self._config.weights)
        return Beyond(far, line, change, is_shown=decision.best == decision.beyond)

    def _parent(self, name: str, own: Mapping[str, Sequence[Graded]]) -> Confirmed:
        """Returns a parent's numbers. On guards it is compared with the other parent."""
        others = [graded for other, graded in own.items() if other != name]
        drops = drops_of(own[name], others, guards=self._config.guards)
        return confirmed_of(own[name], budget=self._budget, weights=self._config.weights, drops=drops)

    def _numbers(self, result: ScheduleResult) -> Confirmed:
        graded, weights = self._responses[result.trial], self._config.weights
        return confirmed_of(graded, budget=self._budget, weights=weights, drops=result.drops)

    def _enough(self, result: ScheduleResult) -> int | None:
        """Returns how many prompts would show what this finalist lacks; ``None`` if no number would.

        The width of an interval falls with the square root of the number of prompts.
        """
        numbers, mean_tokens = self._numbers(result), result.measured.mean_tokens
        gaps = [(numbers.tokens_upper - numbers.mean_tokens, self._budget - numbers.mean_tokens)]
        gaps += [(each.high - each.value, each.max_drop - each.value) for each in result.drops.values()]
        if any(available <= 0 for _, available in gaps):
            return None
        enough = mean_tokens.num_prompts * max(needed / available for needed, available in gaps) ** 2
        enough = max(enough, LEAST_PROMPTS)
        step = int(10 ** max(math.floor(math.log10(enough)) - 1, 0))
        return step * math.ceil(enough / step)


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
