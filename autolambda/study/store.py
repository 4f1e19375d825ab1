"""The store of a study: its config, its evaluations and their responses.

A group of responses (a batch, or the finished ones of a streaming engine) is stored in one transaction as soon as it is
graded. A crash leaves the whole group or nothing of it. Optuna keeps its own tables in the same database.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from autolambda.responses import Capped, Graded, Key
from autolambda.schedule import Schedule
from autolambda.study.database import open_database
from autolambda.study.databases.connection import Database, unopened
from autolambda.study.schema import (
    EVALUATIONS,
    METADATA,
    OUTCOME,
    RESPONSES,
    SCHEMA_VERSION,
    STUDIES,
    check_version,
    check_versions,
    graded_from,
    has_tables,
    object_from,
    row_of,
)

# A parent is confirmed with its own template. A baseline is another way to a merge, and a sweep a lambda of the one of
# that name, in the search. A cap holds what it changes (``responses.Capped``). A transfer is on other tasks, and served
# through a server.
Kind = Literal["trial", "confirm", "parent", "baseline", "ablation", "cap", "sweep", "transfer", "served"]

EARLIER: Mapping[str, Any] = {
    "merge.rounding": "nearest",
    "sampling.frequency_penalty": 0.0,
    "sampling.repetition_penalty": 1.0,
}
"""The values of keys that a study of an earlier release lacks, because nothing else could be chosen."""


@dataclass(frozen=True)
class StoredStudy:
    """The row of a study: its resolved config, and its ``identity``, everything that its results depend on."""

    name: str
    config: Mapping[str, Any]
    identity: Mapping[str, Any]
    created_at: str

    @property
    def settings(self) -> dict[str, Any]:
        """The config as it is read now, with what a study did before it could be chosen (``EARLIER``)."""
        settings = dict(self.config)
        for key, value in EARLIER.items():
            section, name = key.split(".")
            if isinstance(
                stored := settings.get(section, {}), dict
            ):  # else it is damaged, and refused when it is parsed
                settings[section] = {name: value, **stored}
        return settings


@dataclass(frozen=True)
class StoredEvaluation:
    """The row of an evaluation, complete once ``num_responses`` are stored. ``key`` is unique in its study and kind."""

    id: int
    kind: Kind
    key: str
    schedule: Schedule
    num_responses: int


class Store:
    """The tables of one database. Every method is one transaction."""

    def __init__(self, storage: str | Database, *, must_exist: bool = False, with_texts: bool = True) -> None:
        """Opens a database URL, or the database that the driver locked. Makes the tables unless it ``must_exist``.

        Without texts (``with_texts=False``), which can be gigabytes, reading takes half the time and little memory.
        Raises ``StudyError``.
        """
        self.database = open_database(storage, must_exist=must_exist) if isinstance(storage, str) else storage
        self._with_texts = with_texts
        self._engine = sa.create_engine(self.database.url, **self.database.options)
        self.database.watch(self._engine)
        try:
            self.is_empty = self.database.is_reader and not has_tables(self._engine)
            self.has_trials = not self.database.is_reader or has_tables(self._engine, "version_info")
            if not self.database.is_reader:
                self._make_tables()
        except (OSError, sa.exc.SQLAlchemyError) as error:
            self.close()
            raise unopened(self.database.shown, error) from error
        except BaseException:
            self.close()
            raise

    def _make_tables(self) -> None:
        with self.database.table_lock():
            if has_tables(self._engine):
                with self._engine.connect() as connection:
                    check_versions(connection)
            METADATA.create_all(self._engine)

    def close(self) -> None:
        self.database.release(self._engine)

    def changing(self) -> AbstractContextManager[sa.Connection]:
        """Returns a connection in a transaction, which is committed at the end of the block."""
        return self._engine.begin()

    def select(self, query: str, **values: object) -> list[tuple[Any, ...]]:
        """Returns the rows of a query in SQL, such as one on Optuna's tables."""
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(query), values)]

    def names(self) -> list[str]:
        """Returns the names of the studies in this database, oldest first."""
        if self.is_empty:
            return []
        with self._engine.connect() as connection:
            return list(connection.scalars(sa.select(STUDIES.c.name).order_by(STUDIES.c.created_at, STUDIES.c.name)))

    def study(self, name: str) -> StoredStudy | None:
        """Returns the row of a study, if there is one. Raises ``StudyError`` for another schema version."""
        if self.is_empty:
            return None
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(STUDIES).where(STUDIES.c.name == name)).one_or_none()
        if row is None:
            return None
        check_version(name, row.schema_version)
        return StoredStudy(name, object_from(row.config, name), object_from(row.identity, name), row.created_at)

    def create_study(self, name: str, *, config: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        """Adds a study."""
        row = {
            "name": name,
            "schema_version": SCHEMA_VERSION,
            "config": json.dumps(config),
            "identity": json.dumps(identity),
            "created_at": datetime.datetime.now(datetime.UTC).isoformat(" ", "seconds"),
        }
        with self._engine.begin() as connection:
            connection.execute(sa.insert(STUDIES), row)

    def update_study(self, name: str, *, config: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        """Replaces the config and identity of a study that has grown."""
        row = {"config": json.dumps(config), "identity": json.dumps(identity)}
        with self._engine.begin() as connection:
            connection.execute(sa.update(STUDIES).where(STUDIES.c.name == name).values(row))

    def evaluation(
        self, study: str, *, kind: Kind, key: str, schedule: Schedule, num_responses: int
    ) -> StoredEvaluation:
        """Returns the evaluation with this key, and adds it if it is new."""
        if found := self.evaluations(study, kind=kind, key=key):
            return found[0]
        row = {
            "study": study,
            "kind": kind,
            "key": key,
            "schedule": json.dumps(schedule.to_dict()),
            "num_responses": num_responses,
        }
        with self._engine.begin() as connection:
            inserted = connection.execute(sa.insert(EVALUATIONS).values(row)).inserted_primary_key
        assert inserted is not None
        return StoredEvaluation(int(inserted[0]), kind, key, schedule, num_responses)

    def evaluations(self, study: str, *, kind: Kind, key: str | None = None) -> list[StoredEvaluation]:
        """Returns the evaluations of a kind, oldest first, or only the one with this key. Some may be incomplete."""
        query = sa.select(EVALUATIONS).where(EVALUATIONS.c.study == study, EVALUATIONS.c.kind == kind)
        if key is not None:
            query = query.where(EVALUATIONS.c.key == key)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(EVALUATIONS.c.id)).all()
        return [
            StoredEvaluation(row.id, kind, row.key, Schedule.from_dict(json.loads(row.schedule)), row.num_responses)
            for row in rows
        ]

    def add(self, evaluation: StoredEvaluation, graded: Sequence[Graded]) -> None:
        """Stores a group of responses in one transaction."""
        rows = [row_of(evaluation.id, response) for response in graded]
        with self._engine.begin() as connection:
            connection.execute(sa.insert(RESPONSES), rows)

    def graded(
        self, evaluation: StoredEvaluation, *, sample_ids: Collection[str] | None = None, with_texts: bool = True
    ) -> list[Graded]:
        """Returns the stored responses of an evaluation, optionally only to ``sample_ids``, in the order of storing.

        Their texts are empty without ``with_texts``, here or when the store was opened.
        """
        names = (*OUTCOME, "text") if with_texts and self._with_texts else OUTCOME
        query = sa.select(*(RESPONSES.c[name] for name in names)).where(RESPONSES.c.evaluation == evaluation.id)
        if sample_ids is not None:
            query = query.where(RESPONSES.c.sample_id.in_(sample_ids))
        with self._engine.connect() as connection:
            return [graded_from(row) for row in connection.execute(query.order_by(RESPONSES.c.id)).all()]

    def outcomes(self, study: str) -> list[tuple[str, str, str, str, int, str, bool, int, str]]:
        """Returns every response of a study without its text, in the order of storing.

        The columns are the evaluation's kind and key, task, sample id, repeat, grade, thought, tokens, finish reason.
        """
        of, each = EVALUATIONS.c, RESPONSES.c
        columns = (of.kind, of.key, each.task, each.sample_id, each.repeat, each.grade, each.thought)
        query = sa.select(*columns, each.num_tokens, each.finish_reason).select_from(RESPONSES.join(EVALUATIONS))
        with self._engine.connect() as connection:
            rows = connection.execute(query.where(of.study == study).order_by(RESPONSES.c.id))
            return [tuple(row) for row in rows]

    def keys_stored(self, study: str, *, kind: Kind) -> dict[str, set[Key]]:
        """Returns which responses are stored of each evaluation of a kind, by the evaluation's key."""
        of, each, found = EVALUATIONS.c, RESPONSES.c, dict[str, set[Key]]()
        query = sa.select(of.key, each.task, each.sample_id, each.repeat).select_from(RESPONSES.join(EVALUATIONS))
        with self._engine.connect() as connection:
            for key, *response in connection.execute(query.where(of.study == study, of.kind == kind)):
                found.setdefault(key, set()).add((response[0], response[1], response[2]))
        return found

    def num_complete(self, study: str) -> int:
        """Counts the complete evaluations of the confirmation and of ablations."""
        of = EVALUATIONS.c
        stored = sa.select(RESPONSES.c.evaluation).join(EVALUATIONS).where(of.study == study, of.kind != "trial")
        full = stored.group_by(RESPONSES.c.evaluation, of.num_responses).having(sa.func.count() == of.num_responses)
        with self._engine.connect() as connection:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(full.subquery())) or 0)

    def num_tokens(self, study: str) -> int:
        """Counts all tokens that were ever generated for a study. Under a cap on thinking, only answers were."""
        of, length = EVALUATIONS.c, RESPONSES.c.num_tokens
        whole = sa.select(sa.func.coalesce(sa.func.sum(length), 0)).join(EVALUATIONS)
        cut = sa.select(of.key, length).select_from(RESPONSES.join(EVALUATIONS))
        with self._engine.connect() as connection:
            total = int(connection.scalar(whole.where(of.study == study, of.kind != "cap")) or 0)
            rows = connection.execute(cut.where(of.study == study, of.kind == "cap")).all()
        return total + sum(Capped.from_key(key).num_new(num_tokens) for key, num_tokens in rows)
