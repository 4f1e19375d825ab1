"""A study's report: front, stages, parents and verdict, all recomputed from the database.

Numbers of a confirmed schedule are those of the confirmation; every entry says which they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autolambda.config import Config, parse_config
from autolambda.confirm import choose_finalists, verdict
from autolambda.entry import Entry
from autolambda.errors import StudyError
from autolambda.metrics import measure
from autolambda.pareto import Verdict, front
from autolambda.responses import Graded
from autolambda.schedule import Schedule
from autolambda.stages import CurvePoint, Stages, detect_stages
from autolambda.store import Store, StoredEvaluation
from autolambda.study import Counts, Study

UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Report:
    """What ``search`` returns and ``report`` shows.

    ``best`` answers the budget; ``nearest`` stands in where nothing does; ``cheaper_than`` is the more accurate one
    over which a cheaper ``best`` was picked. ``confirmed`` holds every trial that was ever confirmed, for any budget;
    ``identity`` is what the results depend on.
    """

    study: str
    budget: float | None
    verdict: Verdict | None
    best: Entry | None
    nearest: Entry | None
    cheaper_than: Entry | None
    trials: tuple[Entry, ...]
    confirmed: tuple[Entry, ...]
    parents: Mapping[str, Entry | None]
    stages: Stages
    counts: Counts
    tokens_generated: int
    stop_reason: str
    config: Config
    identity: Mapping[str, Any]

    @property
    def raw_front(self) -> tuple[Entry, ...]:
        return tuple(front(self.trials, key=lambda e: e.score))

    @property
    def confirmed_front(self) -> tuple[Entry, ...]:
        return tuple(front(self.confirmed, key=lambda e: e.score))

    @property
    def slack(self) -> str | None:
        """Says that the budget cannot bind, where no parent and no trial needs more; ``None`` where it may."""
        parents = {name: entry.score.mean_tokens for name, entry in self.parents.items() if entry}
        highest = max(entry.score.mean_tokens for entry in (*self.trials, *self.confirmed))
        if self.budget is None or self.budget < highest:
            return None
        return slack_sentence(self.budget, parents, bundled=self.config.models.bundled)

    @property
    def is_done(self) -> bool:
        """Whether all trials are told, both parents measured as they are, and the budget (if any) decided."""
        measured = all(entry is not None and entry.confirmed for entry in self.parents.values())
        decided = self.verdict is not None if self.budget else bool(self.confirmed)
        return self.stop_reason != UNFINISHED and measured and decided

    @property
    def front(self) -> tuple[Entry, ...]:
        """The confirmed front as far as there is one."""
        return self.confirmed_front or self.raw_front

    def entry(self, trial: int | None) -> Entry:
        """A trial's entry, confirmed where it was, or the budget's pick. Raises ``StudyError`` where there is none."""
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
    trials = load_trials(store, study, weights=weights)
    if not trials:
        raise StudyError(f"study '{study.name}' has no complete trial yet; go on with 'autolambda resume {study.name}'")
    finalists = choose_finalists(trials, budget=budget, limit=config.confirm.finalists)
    responses = _confirmations(store, study, trials)
    entries = {
        e.trial: Entry(e.trial, e.schedule, measure(responses[e.trial], weights=weights), confirmed=True)
        for e in trials
        if e.trial in responses
    }
    decision = None
    if budget is not None and all(f.trial in responses for f in finalists):
        graded = [responses[f.trial] for f in finalists]
        decision = verdict(graded, budget=budget, margin=config.confirm.margin, weights=weights)
    chosen = [entries.get(f.trial) for f in finalists]
    counts = study.counts()
    return Report(
        study=study.name,
        budget=budget,
        verdict=decision.verdict if decision else None,
        best=_at(chosen, decision.pick) if decision else _unconfirmed(trials, budget),
        nearest=_at(chosen, decision.nearest) if decision and decision.pick is None else None,
        cheaper_than=_at(chosen, decision.best) if decision and decision.best != decision.pick else None,
        trials=trials,
        confirmed=tuple(entries.values()),
        parents=_parents(store, study, trials, weights),
        stages=_stages(trials),
        counts=counts,
        tokens_generated=store.num_tokens(study.name),
        stop_reason="trials" if counts.complete >= config.search.trials else UNFINISHED,
        config=config,
        identity=stored.identity,
    )


def load_trials(store: Store, study: Study, *, weights: Mapping[str, float]) -> tuple[Entry, ...]:
    """The complete trials of a study with what the search measured of them."""
    return tuple(
        Entry(int(stored.key), stored.schedule, measure(store.graded(stored), weights=weights), confirmed=False)
        for stored in study.complete()
    )


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


def confirm_key(schedule: Schedule) -> str:
    """The key of a schedule's confirmation: equal schedules are confirmed once."""
    return json.dumps(schedule.to_dict(), sort_keys=True)


def _confirmations(store: Store, study: Study, trials: Sequence[Entry]) -> dict[int | None, list[Graded]]:
    """The responses of every trial whose confirmation is complete; trials with equal schedules share them."""
    evaluations = {evaluation.key: evaluation for evaluation in store.evaluations(study.name, kind="confirm")}
    found = {e.trial: _complete(store, evaluations.get(confirm_key(e.schedule))) for e in trials}
    return {trial: graded for trial, graded in found.items() if graded}


def _complete(store: Store, evaluation: StoredEvaluation | None) -> list[Graded]:
    """An evaluation's responses, none unless all are there."""
    graded = store.graded(evaluation) if evaluation else []
    return graded if evaluation and len(graded) == evaluation.num_responses else []


def _parents(
    store: Store, study: Study, trials: tuple[Entry, ...], weights: Mapping[str, float]
) -> dict[str, Entry | None]:
    """Each parent under its own template on the confirmation slice; until then, its end of the ladder."""
    stored = {e.key: _complete(store, e) for e in store.evaluations(study.name, kind="parent")}
    parents: dict[str, Entry | None] = {}
    for name, lam in (("instruct", 0.0), ("thinking", 1.0)):
        if graded := stored.get(name):
            parents[name] = Entry(None, Schedule.uniform(lam), measure(graded, weights=weights), confirmed=True)
        else:
            parents[name] = next((entry for entry in trials if entry.schedule.lam == lam), None)
    return parents


def _stages(trials: Sequence[Entry]) -> Stages:
    """From the uniform schedules' Think ratios; prompts, not responses, are the independent unit."""
    points = [
        CurvePoint(e.schedule.lam, e.measured.think_ratio.value, e.measured.think_ratio.num_prompts)
        for e in trials
        if e.schedule.lam is not None
    ]
    if len({point.lam for point in points}) < 2:
        return Stages(None, None, ("fewer than two uniform lambdas are measured",))
    return detect_stages(points)


def _unconfirmed(trials: tuple[Entry, ...], budget: float | None) -> Entry | None:
    """The most accurate trial whose upper bound is within the budget, by the search's own numbers."""
    within = [e for e in trials if budget is not None and e.measured.mean_tokens.high <= budget]
    return max(within, key=lambda e: (e.score.accuracy, -e.score.mean_tokens), default=None)


def _at(entries: list[Entry | None], index: int | None) -> Entry | None:
    return None if index is None else entries[index]
