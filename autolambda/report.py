"""A study's report: front, stages, parents and verdict, all recomputed from the database.

Numbers of a confirmed schedule are those of the confirmation; every entry says which they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autolambda.config import Config, parse_config
from autolambda.confirm import Candidate, choose_finalists, verdict
from autolambda.errors import StudyError
from autolambda.metrics import Measured, measure
from autolambda.pareto import Decision, Score, Verdict, front
from autolambda.responses import Graded
from autolambda.schedule import Schedule
from autolambda.stages import Boundary, CurvePoint, Stages, detect_stages, stage_of
from autolambda.store import Store, StoredEvaluation
from autolambda.study import Counts, Study


@dataclass(frozen=True)
class Entry:
    """A schedule with its measured numbers; ``confirmed`` says on which slice."""

    trial: int | None
    schedule: Schedule
    measured: Measured
    confirmed: bool

    @property
    def score(self) -> Score:
        return Score(self.measured.accuracy.value, self.measured.mean_tokens.value)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of DESIGN's ``E``; shares from 0 to 1, intervals 95 %."""
        return {
            "trial": self.trial,
            "schedule": self.schedule.to_dict(),
            **_numbers(self.measured),
            "stage": stage_of(self.measured.think_ratio.value),
            "confirmed": self.confirmed,
            "tasks": {name: _numbers(measured) for name, measured in self.measured.tasks.items()},
        }


@dataclass(frozen=True)
class Report:
    """What ``search`` returns and ``report`` shows.

    ``best`` answers the budget; ``nearest`` stands in where nothing does; ``cheaper_than`` is the more accurate one
    over which a cheaper ``best`` was picked.
    """

    study: str
    budget: float | None
    verdict: Verdict | None
    best: Entry | None
    nearest: Entry | None
    cheaper_than: Entry | None
    raw_front: tuple[Entry, ...]
    confirmed_front: tuple[Entry, ...]
    parents: Mapping[str, Entry | None]
    trials: tuple[Entry, ...]
    stages: Stages
    counts: Counts
    tokens_generated: int
    stop_reason: str
    config: Config

    @property
    def front(self) -> tuple[Entry, ...]:
        """The confirmed front as far as there is one."""
        return self.confirmed_front or self.raw_front

    def entry(self, trial: int | None) -> Entry:
        """A trial's entry, confirmed where it was, or the budget's pick. Raises ``StudyError`` where there is none."""
        if trial is not None:
            found = [e for e in (*self.confirmed_front, *self.trials) if e.trial == trial]
            if not found:
                raise StudyError(
                    f"study '{self.study}' has no complete trial {trial}; its last is {self.trials[-1].trial}"
                )
            return found[0]
        if self.best is None:
            raise StudyError(
                f"study '{self.study}' has no pick"
                + (f" within {self.budget:g} tokens" if self.budget else ": give --budget TOKENS")
                + ", or name one with --trial N"
            )
        return self.best

    def to_dict(self) -> dict[str, Any]:
        """The object of ``report --format json``."""
        return {
            "study": self.study,
            "budget": self.budget,
            "verdict": self.verdict,
            "best": _plain(self.best),
            "nearest": _plain(self.nearest),
            "front": [entry.to_dict() for entry in self.front],
            "fronts": {
                "raw": [entry.to_dict() for entry in self.raw_front],
                "smoothed": [],
                "confirmed": [entry.to_dict() for entry in self.confirmed_front],
            },
            "parents": {name: _plain(entry) for name, entry in self.parents.items()},
            "baselines": [],
            "stop_reason": self.stop_reason,
            "stages": {name: boundary_dict(getattr(self.stages, name)) for name in ("emergence", "saturation")},
            "tokens_generated": self.tokens_generated,
            "trials": {"complete": self.counts.complete, "pruned": self.counts.pruned, "failed": self.counts.failed},
        }


def build_report(store: Store, study: Study, *, budget: float | None) -> Report:
    """The report of a study, running or done, for ``budget``. Raises ``StudyError`` before its first trial is done."""
    stored = store.study(study.name)
    assert stored is not None
    config = parse_config(stored.config)
    weights = config.weights
    candidates = load_candidates(store, study, weights=weights)
    if not candidates:
        raise StudyError(f"study '{study.name}' has no complete trial yet; go on with 'autolambda resume {study.name}'")
    confirmed = {e.key: e for e in store.evaluations(study.name, kind="confirm")}
    finalists = choose_finalists(candidates, budget=budget, limit=config.confirm.finalists)
    responses = {f.trial: _complete(store, confirmed.get(confirm_key(f.schedule))) for f in finalists}
    entries = {
        f.trial: Entry(f.trial, f.schedule, measure(graded, weights=weights), confirmed=True)
        for f in finalists
        if (graded := responses[f.trial])
    }
    trials = tuple(Entry(c.trial, c.schedule, c.measured, confirmed=False) for c in candidates)
    decision = None
    if budget is not None and len(entries) == len(finalists):
        decision = verdict(
            [responses[f.trial] for f in finalists], budget=budget, margin=config.confirm.margin, weights=weights
        )
    chosen = [entries.get(f.trial) for f in finalists]
    counts = study.counts()
    return Report(
        study=study.name,
        budget=budget,
        verdict=decision.verdict if decision else None,
        best=_at(chosen, decision.pick) if decision else _unconfirmed(trials, budget),
        nearest=_at(chosen, decision.nearest) if decision and decision.pick is None else None,
        cheaper_than=_given_up(chosen, decision),
        raw_front=tuple(front(trials, key=lambda e: e.score)),
        confirmed_front=tuple(front(entries.values(), key=lambda e: e.score)),
        parents=_parents(store, study, trials, weights),
        trials=trials,
        stages=_stages(candidates),
        counts=counts,
        tokens_generated=store.num_tokens(study.name),
        stop_reason="trials" if counts.complete >= config.search.trials else "unfinished",
        config=config,
    )


def load_candidates(store: Store, study: Study, *, weights: Mapping[str, float]) -> list[Candidate]:
    """The complete trials of a study with their measured numbers."""
    return [
        Candidate(int(evaluation.key), evaluation.schedule, measure(store.graded(evaluation), weights=weights))
        for evaluation in study.complete()
    ]


def confirm_key(schedule: Schedule) -> str:
    """The key of a schedule's confirmation: equal schedules are confirmed once."""
    return json.dumps(schedule.to_dict(), sort_keys=True)


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


def _stages(candidates: list[Candidate]) -> Stages:
    """From the uniform schedules' Think ratios; prompts, not responses, are the independent unit."""
    points = [
        CurvePoint(c.schedule.lam, c.measured.think_ratio.value, c.measured.think_ratio.num_prompts)
        for c in candidates
        if c.schedule.lam is not None
    ]
    if len({point.lam for point in points}) < 2:
        return Stages(None, None, ("fewer than two uniform lambdas are measured",))
    return detect_stages(points)


def _unconfirmed(trials: tuple[Entry, ...], budget: float | None) -> Entry | None:
    """The most accurate trial whose upper bound is within the budget, by the search's own numbers."""
    within = [e for e in trials if budget is not None and e.measured.mean_tokens.high <= budget]
    return max(within, key=lambda e: (e.score.accuracy, -e.score.mean_tokens), default=None)


def _given_up(chosen: list[Entry | None], decision: Decision | None) -> Entry | None:
    """The more accurate finalist over which a cheaper one was picked."""
    return _at(chosen, decision.best) if decision and decision.best != decision.pick else None


def _at(entries: list[Entry | None], index: int | None) -> Entry | None:
    return None if index is None else entries[index]


def _plain(entry: Entry | None) -> dict[str, Any] | None:
    return entry.to_dict() if entry else None


def boundary_dict(boundary: Boundary | None) -> dict[str, float] | None:
    return None if boundary is None else {"lambda": boundary.lam, "low": boundary.low, "high": boundary.high}


def _numbers(measured: Measured) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name in ("accuracy", "mean_tokens", "think_ratio"):
        estimate = getattr(measured, name)
        numbers |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return numbers | {
        "truncated_ratio": measured.truncated_ratio.value,
        "unparsed_ratio": measured.unparsed_ratio.value,
    }
