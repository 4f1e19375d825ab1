"""A study in short, for lists: its config, its counts and its last answer, without its responses.

Optuna's tables are read directly, because opening them through Optuna takes longer than everything else here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from autolambda.study.databases.connection import shown_storage
from autolambda.study.holder import Holder, holder_of
from autolambda.study.store import Store, StoredStudy

State = Literal["running", "done", "unfinished"]

_TRIALS = """SELECT state, count(*) FROM trials JOIN studies ON studies.study_id = trials.study_id
WHERE study_name = :name GROUP BY state"""
_ATTRIBUTES = """SELECT key, value_json FROM study_user_attributes JOIN studies
ON studies.study_id = study_user_attributes.study_id WHERE study_name = :name AND key IN ('answer', 'stopped_for')"""


@dataclass(frozen=True)
class Overview:
    """A study in short. ``num_trials`` have ended; ``answer`` is what the last finished search found, if it is kept."""

    stored: StoredStudy
    storage: str
    holder: Holder | None
    num_trials: int
    stopped_for: str | None
    answer: Mapping[str, Any] | None

    @property
    def state(self) -> State:
        if self.holder:
            return "running"
        return "done" if self.stopped_for and self.answer else "unfinished"

    @property
    def models(self) -> tuple[str, str]:
        """The names of Instruct and Thinking, without the folders that hold them."""
        models = self.stored.config.get("models", {})
        names = [Path(str(models.get(each) or f"bundled/{each}")).name for each in ("instruct", "thinking")]
        return names[0], names[1]

    @property
    def tasks(self) -> Sequence[str]:
        """The names of the tasks."""
        return [str(task.get("label") or task.get("name")) for task in self.stored.config.get("tasks", ())]

    @property
    def most_trials(self) -> int | None:
        """The most trials that the search may run."""
        most: int | None = self.stored.config.get("search", {}).get("trials")
        return most

    @property
    def budget(self) -> float | None:
        """The study's own budget in tokens."""
        budget: float | None = self.stored.config.get("budget")
        return budget

    @property
    def verdict(self) -> str | None:
        """The verdict for the study's own budget; ``None`` until it is known, and without a budget."""
        if self.state != "done" or self.answer is None or self.answer.get("budget") != self.budget:
            return None
        verdict: str | None = self.answer.get("verdict")
        return verdict

    def to_dict(self) -> dict[str, Any]:
        """Returns the study as the commands print it as JSON; cli/README.md lists the keys."""
        instruct, thinking = self.models
        return {
            "study": self.stored.name,
            "state": self.state,
            "driver": {"pid": self.holder.pid, "host": self.holder.host} if self.holder else None,
            "instruct": instruct,
            "thinking": thinking,
            "tasks": list(self.tasks),
            "budget": self.budget,
            "verdict": self.verdict,
            "best": self.answer.get("best") if self.answer and self.verdict else None,
            "trials": {"done": self.num_trials, "at_most": self.most_trials},
            "stop_reason": self.stopped_for,
            "created_at": self.stored.created_at,
            "storage": shown_storage(self.storage),
        }


def overviews(storage: str) -> Iterator[Overview]:
    """Yields the studies of a database, oldest first. Raises ``StudyError``."""
    with closing(Store(storage, must_exist=True, with_texts=False)) as store:
        for name in store.names():
            if (found := overview(store, name, storage)) is not None:
                yield found


def overview(store: Store, name: str, storage: str) -> Overview | None:
    """Returns a study in short; ``None`` if the database has none of this name."""
    stored = store.study(name)
    if stored is None:
        return None
    counts: dict[str, int] = {}
    attributes: dict[str, Any] = {}
    if store.has_trials:
        counts = {str(state): number for state, number in store.select(_TRIALS, name=name)}
        attributes = {key: json.loads(value) for key, value in store.select(_ATTRIBUTES, name=name)}
    ended = sum(counts.get(state, 0) for state in ("COMPLETE", "PRUNED"))
    return Overview(
        stored,
        storage,
        holder_of(storage, name),
        ended,
        attributes.get("stopped_for"),
        attributes.get("answer"),
    )
