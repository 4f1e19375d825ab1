"""A study's entries, made of its stored responses: measured in the search, smoothed, confirmed; parents, baselines.

An evaluation counts once all of its responses are stored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from autolambda.config import Config
from autolambda.confirm import NUM_DRAWS, drops_of
from autolambda.entry import Entry
from autolambda.estimates import Estimate
from autolambda.graders import ifeval
from autolambda.metrics import measure
from autolambda.record import Seen
from autolambda.responses import Graded
from autolambda.schedule import Schedule
from autolambda.store import Store, StoredEvaluation
from autolambda.study import Study
from autolambda.surrogate import ACCURACY, OUTPUTS, THINK, TOKENS, Surrogate
from autolambda.tasks.base import Phase


def measured_entries(seen: Sequence[Seen], model: Surrogate, config: Config) -> tuple[Entry, ...]:
    """The measured schedules; with guards, how likely each is to break none."""
    allowed: list[float | None] = [None] * len(seen)
    if config.guards:
        draw = model.draw([each.schedule for each in seen], num_draws=NUM_DRAWS, seed=config.search.seed)
        allowed = draw.allowed.mean(axis=0).tolist()
    return tuple(
        Entry(
            each.trial,
            each.schedule,
            each.measured,
            confirmed=False,
            stopped=each.stopped,
            allowed=chance,
            scores=_scores(each.graded, config, phase="search"),
        )
        for each, chance in zip(seen, allowed, strict=True)
    )


def confirmed_entry(
    trial: int | None,
    schedule: Schedule,
    graded: Sequence[Graded],
    config: Config,
    *,
    parents: Mapping[str, Sequence[Graded]],
) -> Entry:
    """An entry as it was confirmed; what it loses on guards is known once both ``parents`` are."""
    drops = drops_of(graded, parents.values(), guards=config.guards) if len(parents) == 2 else {}
    measured, scores = measure(graded, weights=config.weights), _scores(graded, config, phase="confirm")
    return Entry(trial, schedule, measured, confirmed=True, drops=drops, scores=scores)


def smoothed_entries(trials: Sequence[Entry], model: Surrogate) -> tuple[Entry, ...]:
    """The trials with what the surrogate makes of all of them; truncated and unparsed shares stay as measured."""
    bands = [model.predict([entry.schedule for entry in trials], output) for output in OUTPUTS]
    entries = []
    for index, entry in enumerate(trials):
        estimates = [
            Estimate(
                float(band.value[index]),
                float(band.high[index] - band.low[index]) / (2 * 1.96),
                float(band.low[index]),
                float(band.high[index]),
                entry.measured.accuracy.num_prompts,
                entry.measured.num_responses,
            )
            for band in bands
        ]
        measured = replace(
            entry.measured,
            accuracy=estimates[ACCURACY],
            mean_tokens=estimates[TOKENS],
            think_ratio=estimates[THINK],
            tasks={},
        )
        entries.append(replace(entry, measured=measured, scores={}))
    return tuple(entries)


def confirmed_responses(store: Store, study: Study, trials: Sequence[Entry]) -> dict[int | None, list[Graded]]:
    """The responses of every trial whose confirmation is complete; trials with equal schedules share them."""
    evaluations = {evaluation.key: evaluation for evaluation in store.evaluations(study.name, kind="confirm")}
    found = {e.trial: _complete(store, evaluations.get(confirm_key(e.schedule))) for e in trials}
    return {trial: graded for trial, graded in found.items() if graded}


def _complete(store: Store, evaluation: StoredEvaluation | None) -> list[Graded]:
    """An evaluation's responses, none unless all are there."""
    graded = store.graded(evaluation) if evaluation else []
    return graded if evaluation and len(graded) == evaluation.num_responses else []


def parent_responses(store: Store, study: Study) -> dict[str, list[Graded]]:
    """The responses of each parent under its own template, as far as they are complete."""
    found = {each.key: _complete(store, each) for each in store.evaluations(study.name, kind="parent")}
    return {name: graded for name, graded in found.items() if graded}


def parent_entries(
    responses: Mapping[str, Sequence[Graded]], trials: tuple[Entry, ...], config: Config
) -> dict[str, Entry | None]:
    """Each parent as it is on the confirmation slice; until then, its end of the ladder."""
    parents: dict[str, Entry | None] = {}
    for name, lam in (("instruct", 0.0), ("thinking", 1.0)):
        if graded := responses.get(name):
            parents[name] = confirmed_entry(None, Schedule.uniform(lam), graded, config, parents={})
        else:
            parents[name] = next((entry for entry in trials if entry.schedule.lam == lam), None)
    return parents


def baseline_entries(
    store: Store, study: Study, parents: Mapping[str, Sequence[Graded]], config: Config
) -> dict[str, Entry]:
    """The other methods that were measured beside the finalists, by name."""
    stored = {each.key: each for each in store.evaluations(study.name, kind="baseline")}
    complete = {name: graded for name, each in stored.items() if (graded := _complete(store, each))}
    return {
        name: confirmed_entry(None, stored[name].schedule, graded, config, parents=parents)
        for name, graded in complete.items()
    }


def confirm_key(schedule: Schedule) -> str:
    """The key of a schedule's confirmation: equal schedules are confirmed once."""
    return json.dumps(schedule.to_dict(), sort_keys=True)


def _scores(graded: Sequence[Graded], config: Config, *, phase: Phase) -> dict[str, dict[str, float]]:
    """IFEval's four scores for the tasks that it grades, over the responses that were read (``num_read``)."""
    found = {}
    for task in config.tasks:
        source = task.confirm_on if phase == "confirm" and task.confirm_on else task
        if source.grader_name == "ifeval":
            answers = [each.answer for each in graded if each.task == task.label and each.answer is not None]
            found[task.label] = {**ifeval.scores(answers), "num_read": len(answers)}
    return found
