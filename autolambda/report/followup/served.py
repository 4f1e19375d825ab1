"""A study's pick, and its parents, as a server serves them: beside the study's own numbers, kept or not kept.

A study keeps a list of what was checked (``Check``), and the responses as evaluations of the kind ``served``. They are
compared with the confirmation's, paired by prompt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from autolambda.optimizer.space import PARENTS
from autolambda.report.followup.transfer import change_dict, change_words, numbers
from autolambda.responses import Graded, Key
from autolambda.schedule import Schedule
from autolambda.statistics.metrics import Measured, measure
from autolambda.statistics.paired import Change, Kept, compare
from autolambda.statistics.words import percent, percent_of, tokens_of
from autolambda.study.store import Store, StoredEvaluation
from autolambda.study.trials import Study

KEPT_AS = "served"  # the name of the list of checks among a study's attributes


@dataclass(frozen=True)
class Check:
    """A model of a server that is checked.

    ``role`` is ``pick``, ``instruct`` or ``thinking``. ``software`` is the server's, ``label`` the user's name for how
    the model is served. ``date`` is the day of the last response, in UTC. ``form`` is how prompts were sent: as
    ``tokens``, ``text`` or ``messages``. ``left_out`` are parameters of the sampling that the server refused.
    ``server_tokens`` and ``tokenizer_tokens`` are the mean tokens by both counts, of the responses of the last run.
    ``compared`` are the responses that the last complete run asked for; ``None`` before one, and in older studies.
    """

    role: str
    schedule: Schedule
    endpoint: str
    model: str
    software: str
    label: str | None = None
    trial: int | None = None
    date: str = ""
    form: str = "tokens"
    left_out: tuple[str, ...] = ()
    server_tokens: float | None = None
    tokenizer_tokens: float | None = None
    compared: tuple[Key, ...] | None = None

    @property
    def key(self) -> str:
        """The key of the evaluation: what was asked, and for which model of the study."""
        of = {"schedule": self.schedule.to_dict()} if self.role == "pick" else {"parent": self.role}
        server = {"endpoint": self.endpoint, "model": self.model, "software": self.software, "label": self.label}
        return json.dumps({**of, **server}, sort_keys=True)

    def to_dict(self) -> dict[str, Any]:
        """Returns the plain form that a study keeps."""
        return {**asdict(self), "schedule": self.schedule.to_dict(), "left_out": list(self.left_out)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Check:
        """Returns what ``to_dict`` made plain."""
        keys = plain.get("compared")
        own = {"schedule": Schedule.from_dict(plain["schedule"]), "left_out": tuple(plain["left_out"])}
        compared = None if keys is None else tuple((task, sample, repeat) for task, sample, repeat in keys)
        return cls(**{**plain, **own, "compared": compared})


@dataclass(frozen=True)
class Served:
    """A checked model: its numbers through the server, the study's own on the same prompts, and their comparison."""

    check: Check
    measured: Measured
    own: Measured
    change: Change

    @property
    def name(self) -> str:
        """The model for people: ``the pick, lambda 0.5``, or the name of a parent."""
        return f"the pick, {self.check.schedule}" if self.check.role == "pick" else self.check.role.capitalize()

    @property
    def kept(self) -> Kept:
        return self.change.kept

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of the report. Shares are 0 to 1, intervals 95 %."""
        return {
            **{name: value for name, value in self.check.to_dict().items() if name != "compared"},
            "kept": self.kept,
            "accuracy_kept": self.change.accuracy_kept,
            "tokens_kept": self.change.tokens_kept,
            "num_prompts": self.measured.accuracy.num_prompts,
            "served": numbers(self.measured),
            "study": numbers(self.own),
            "against_study": change_dict(self.change),
        }

    def for_others(self) -> dict[str, Any]:
        """Returns the JSON object without the address of the server, which an export does not tell."""
        return {name: value for name, value in self.to_dict().items() if name != "endpoint"}

    def sentences(self) -> Iterator[str]:
        """Yields the verdict, then what both numbers are, then what limits the comparison."""
        check, served, own = self.check, self.measured, self.own
        how = f" ({check.label})" if check.label else ""
        parts = {"accuracy": self.change.accuracy_kept, "mean tokens": self.change.tokens_kept}
        why = " and ".join(name for name, kept in parts.items() if kept is self.kept)
        said = self.kept.capitalize() + ("" if self.kept is Kept.KEPT else f" ({why})")
        yield (
            f"{said}: {self.name}, as '{check.model}' on {check.software}{how}: {change_words(self.change)} "
            f"against the study, on {served.accuracy.num_prompts} prompts."
        )
        yield (
            f"  Served: {percent_of(served.accuracy)} right with {tokens_of(served.mean_tokens)}, thinking in "
            f"{percent(served.think_ratio.value)}. In the study: {percent_of(own.accuracy)}, "
            f"{tokens_of(own.mean_tokens)}, {percent(own.think_ratio.value)}."
        )
        enough = self.change.num_prompts_enough
        if self.kept is Kept.UNDECIDED and enough:
            yield f"  If these differences stay, about {enough:,} prompts in the confirmation would show it to be kept."
        if check.left_out:
            yield f"  The server refused {', '.join(check.left_out)}, so its responses were drawn without."
        if check.form == "messages":
            yield "  The server's own chat template rendered the prompts, not the study's."
        if self.miscounts:
            yield (
                f"  The server counts {check.server_tokens:.1f} tokens a response, the tokenizer "
                f"{check.tokenizer_tokens:.1f}: the mean tokens do not compare."
            )

    @property
    def miscounts(self) -> bool:
        """Whether the two counts of tokens differ by more than 2 %."""
        mine, theirs = self.check.tokenizer_tokens, self.check.server_tokens
        return mine is not None and theirs is not None and abs(theirs - mine) > 0.02 * mine


def checks_of(study: Study) -> list[Check]:
    """Returns the checks of a study, oldest first. Some may be incomplete."""
    return [Check.from_dict(each) for each in json.loads(study.kept(KEPT_AS) or "[]")]


def keep_check(study: Study, check: Check) -> None:
    """Adds a check to the study's list, in the place of an earlier one of the same model."""
    others = [each for each in checks_of(study) if each.key != check.key]
    study.keep(KEPT_AS, json.dumps([each.to_dict() for each in (*others, check)]))


def known_check(study: Study, check: Check) -> Check:
    """Returns the stored check of the same model, if there is one, with the trial of ``check``."""
    return next((replace(each, trial=check.trial) for each in checks_of(study) if each.key == check.key), check)


def own_responses(store: Store, study: Study, check: Check) -> list[Graded]:
    """Returns the study's responses of a checked model, from its confirmation; none if they are incomplete."""
    if check.role in PARENTS:
        found = store.evaluations(study.name, kind="parent", key=check.role)
    else:
        found = store.evaluations(study.name, kind="confirm", key=check.schedule.key)
    graded = store.graded(found[0], with_texts=False) if found else []
    return graded if found and len(graded) >= found[0].num_responses else []


def read_served(store: Store, study: Study, *, weights: Mapping[str, float]) -> tuple[Served, ...]:
    """Returns the complete checks of a study that share a response of every task with it.

    ``weights`` are those of the study's tasks; one without a weight may be missing.
    """
    stored = {each.key: each for each in store.evaluations(study.name, kind="served")}
    found = []
    for check in checks_of(study):
        evaluation = stored.get(check.key)
        graded = _compared(check, store, evaluation) if evaluation else []
        own = own_responses(store, study, check)
        shared = {each.key for each in graded} & {each.key for each in own}
        has_all = {task for task, weight in weights.items() if weight} <= {task for task, _, _ in shared}
        if shared and has_all:
            found.append(served_of(check, graded, own, weights=weights))
    return tuple(found)


def _compared(check: Check, store: Store, evaluation: StoredEvaluation) -> list[Graded]:
    """Returns the responses of the last complete run, without those of a larger one that did not end; none before."""
    graded = store.graded(evaluation, with_texts=False)
    if check.compared is None:
        return graded if len(graded) >= evaluation.num_responses else []
    compared = {*check.compared}
    return [each for each in graded if each.key in compared]


def served_of(check: Check, graded: list[Graded], own: list[Graded], *, weights: Mapping[str, float]) -> Served:
    """Returns a check from the responses of the server and the study's own, on the responses that both have."""
    shared = {each.key for each in graded} & {each.key for each in own}
    theirs, mine = ([each for each in side if each.key in shared] for side in (graded, own))
    change = compare(theirs, mine, weights=weights)
    return Served(check, measure(theirs, weights=weights), measure(mine, weights=weights), change)
