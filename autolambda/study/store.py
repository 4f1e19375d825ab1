"""Responses in the study's database: what is done, what is still owed.

A group of responses (a batch, or what a streaming engine has finished) is stored in one transaction as soon as it is
graded, and is there whole or not at all. Optuna keeps its own tables in the same database.
"""

from __future__ import annotations

import datetime
import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from autolambda.errors import StorageError, StudyError, in_short, one_line
from autolambda.files import load_json
from autolambda.responses import Grade, Graded, Response
from autolambda.schedule import Schedule
from autolambda.study.connection import Database, unopened
from autolambda.study.database import open_database
from autolambda.study.schema import (
    EVALUATIONS,
    METADATA,
    RESPONSES,
    SCHEMA_VERSION,
    STUDIES,
    check_version,
    check_versions,
    has_tables,
)

# A parent is measured on the confirm slice, under its own template; a baseline is another method's merge; an ablation
# is a row of the paper's studies.
Kind = Literal["trial", "confirm", "parent", "baseline", "ablation"]

_OUTCOME = ("task", "sample_id", "repeat", "num_tokens", "finish_reason", "grade", "thought", "answer")
_GRADES = {grade.value: grade for grade in Grade}


@dataclass(frozen=True)
class StoredStudy:
    """A study's row: its resolved config, and what its results depend on (``identity``)."""

    name: str
    config: Mapping[str, Any]
    identity: Mapping[str, Any]
    created_at: str


@dataclass(frozen=True)
class StoredEvaluation:
    """An evaluation's row. ``key`` is unique among the study's evaluations of its kind.

    It is complete once ``num_responses`` are stored for it.
    """

    id: int
    kind: Kind
    key: str
    schedule: Schedule
    num_responses: int


class Store:
    """The tables of one database. Every method is one transaction."""

    def __init__(self, storage: str | Database, *, must_exist: bool = False, with_texts: bool = True) -> None:
        """Opens a database URL, or what the driver's lock gave; tables are made unless it ``must_exist``.

        ``with_texts=False`` is for those who only count: ``graded`` then gives responses without their text, in
        half the time and with little memory, for texts can be gigabytes. Raises ``StudyError``.
        """
        self.database = open_database(storage, must_exist=must_exist) if isinstance(storage, str) else storage
        self._columns = [RESPONSES.c[name] for name in (*_OUTCOME, *(["text"] if with_texts else []))]
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

    def names(self) -> list[str]:
        """The studies of this database, oldest first."""
        if self.is_empty:
            return []
        with self._engine.connect() as connection:
            return list(connection.scalars(sa.select(STUDIES.c.name).order_by(STUDIES.c.created_at, STUDIES.c.name)))

    def study(self, name: str) -> StoredStudy | None:
        """A study's row, ``None`` where there is none. Raises ``StudyError`` for one of a newer schema."""
        if self.is_empty:
            return None
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(STUDIES).where(STUDIES.c.name == name)).one_or_none()
        if row is None:
            return None
        check_version(name, row.schema_version)
        return StoredStudy(name, _object(row.config, name), _object(row.identity, name), row.created_at)

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
        """Replaces the config and the identity of a study that has grown."""
        row = {"config": json.dumps(config), "identity": json.dumps(identity)}
        with self._engine.begin() as connection:
            connection.execute(sa.update(STUDIES).where(STUDIES.c.name == name).values(row))

    def evaluation(
        self, study: str, *, kind: Kind, key: str, schedule: Schedule, num_responses: int
    ) -> StoredEvaluation:
        """The evaluation of that key, added if it is new."""
        found = self._evaluations(study, kind, EVALUATIONS.c.key == key)
        if found:
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

    def evaluations(self, study: str, *, kind: Kind) -> list[StoredEvaluation]:
        """All evaluations of a kind, oldest first; some may be unfinished."""
        return self._evaluations(study, kind)

    def _evaluations(self, study: str, kind: Kind, *conditions: sa.ColumnElement[bool]) -> list[StoredEvaluation]:
        query = sa.select(EVALUATIONS).where(EVALUATIONS.c.study == study, EVALUATIONS.c.kind == kind, *conditions)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(EVALUATIONS.c.id)).all()
        return [
            StoredEvaluation(row.id, kind, row.key, Schedule.from_dict(json.loads(row.schedule)), row.num_responses)
            for row in rows
        ]

    def add(self, evaluation: StoredEvaluation, graded: Sequence[Graded]) -> None:
        """Stores a group of responses in one transaction: after a crash all of it is there or nothing."""
        rows = [
            {
                "evaluation": evaluation.id,
                "task": g.task,
                "sample_id": g.sample_id,
                "repeat": g.repeat,
                "text": _packed(g.response.text),
                "num_tokens": g.response.num_tokens,
                "finish_reason": g.response.finish_reason,
                "grade": g.grade.value,
                "answer": None if g.answer is None else _packed(g.answer),
                "thought": g.thought,
            }
            for g in graded
        ]
        with self._engine.begin() as connection:
            connection.execute(sa.insert(RESPONSES), rows)

    def graded(self, evaluation: StoredEvaluation, *, sample_ids: Collection[str] | None = None) -> list[Graded]:
        """The stored responses of an evaluation, in the order in which they were stored; to ``sample_ids`` alone."""
        query = sa.select(*self._columns).where(RESPONSES.c.evaluation == evaluation.id).order_by(RESPONSES.c.id)
        if sample_ids is not None:
            query = query.where(RESPONSES.c.sample_id.in_(sample_ids))
        with self._engine.connect() as connection:
            return [_graded(row) for row in connection.execute(query).all()]

    def outcomes(self, study: str) -> list[tuple[str, str, str, str, int, str, bool, int, str]]:
        """Every response of a study without its text, in the order in which they were stored.

        Kind and key of its evaluation, task, sample id, repeat, grade, whether it thought, tokens, finish reason.
        """
        of, each = EVALUATIONS.c, RESPONSES.c
        columns = (of.kind, of.key, each.task, each.sample_id, each.repeat, each.grade, each.thought)
        query = sa.select(*columns, each.num_tokens, each.finish_reason).select_from(RESPONSES.join(EVALUATIONS))
        with self._engine.connect() as connection:
            rows = connection.execute(query.where(of.study == study).order_by(RESPONSES.c.id))
            return [tuple(row) for row in rows]

    def num_stored(self, evaluation: StoredEvaluation) -> int:
        """How many responses of an evaluation are there."""
        query = sa.select(sa.func.count()).where(RESPONSES.c.evaluation == evaluation.id)
        with self._engine.connect() as connection:
            return int(connection.scalar(query) or 0)

    def num_complete(self, study: str) -> int:
        """How many evaluations beside the trials are complete: of the confirmation and of ablations."""
        of = EVALUATIONS.c
        stored = sa.select(RESPONSES.c.evaluation).join(EVALUATIONS).where(of.study == study, of.kind != "trial")
        full = stored.group_by(RESPONSES.c.evaluation, of.num_responses).having(sa.func.count() == of.num_responses)
        with self._engine.connect() as connection:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(full.subquery())) or 0)

    def num_tokens(self, study: str) -> int:
        """All tokens ever generated for a study: its cost."""
        query = sa.select(sa.func.coalesce(sa.func.sum(RESPONSES.c.num_tokens), 0)).join(EVALUATIONS)
        with self._engine.connect() as connection:
            return int(connection.scalar(query.where(EVALUATIONS.c.study == study)) or 0)


def _graded(row: Any) -> Graded:
    """From the columns that every store reads, then the text where it was read: by place, which is quick."""
    task, sample_id, repeat, num_tokens, finish_reason, grade, thought, answer, *text = row
    response = Response(_unpacked(text[0]) if text else "", num_tokens, finish_reason)
    answer = None if answer is None else _unpacked(answer)
    return Graded(task, sample_id, repeat, response, _GRADES[grade], answer, thought)


def _packed(text: str) -> bytes:
    """Text from a model may hold lone surrogates, which no database takes as text."""
    return zlib.compress(text.encode("utf-8", "surrogatepass"))


def _unpacked(data: bytes) -> str:
    """Raises ``StorageError`` for what cannot have been stored by us."""
    try:
        return zlib.decompress(data).decode("utf-8", "surrogatepass")
    except (zlib.error, ValueError) as error:
        raise StorageError(f"the study's database holds a damaged response ({error}); restore a copy") from error


def _object(text: str, study: str) -> dict[str, Any]:
    """A stored JSON object. Raises ``StudyError`` for anything else, which autolambda never wrote."""
    try:
        value = load_json(text)
    except ValueError as error:
        raise StudyError(
            f"study '{study}': its stored config is damaged ({one_line(error)}); restore a copy"
        ) from error
    if not isinstance(value, dict):
        raise StudyError(f"study '{study}': its config is damaged ({in_short(value)}); restore a copy")
    return value
