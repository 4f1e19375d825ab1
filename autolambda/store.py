"""Responses in the study's database: what is done, what is still owed.

A group of responses (a batch, or what a streaming engine has finished) is stored in one transaction as soon as it is
graded, and is there whole or not at all. Optuna keeps its own tables in the same database.
"""

from __future__ import annotations

import datetime
import json
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from autolambda.errors import StorageError, StudyError
from autolambda.responses import Grade, Graded, Response
from autolambda.schedule import Schedule

SCHEMA_VERSION = 1
# A parent is measured on the confirm slice, under its own template; a baseline is another method's merge; an ablation
# is a row of the paper's studies.
Kind = Literal["trial", "confirm", "parent", "baseline", "ablation"]

_METADATA = sa.MetaData()
_STUDIES = sa.Table(
    "autolambda_studies",
    _METADATA,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("schema_version", sa.Integer, nullable=False),
    sa.Column("config", sa.Text, nullable=False),
    sa.Column("identity", sa.Text, nullable=False),
    sa.Column("created_at", sa.String(32), nullable=False),
)
_EVALUATIONS = sa.Table(
    "autolambda_evaluations",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study", sa.ForeignKey("autolambda_studies.name"), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("key", sa.String(512), nullable=False),
    sa.Column("schedule", sa.Text, nullable=False),
    sa.Column("num_responses", sa.Integer, nullable=False),
    sa.UniqueConstraint("study", "kind", "key"),
)
_RESPONSES = sa.Table(
    "autolambda_responses",
    _METADATA,
    sa.Column("evaluation", sa.ForeignKey("autolambda_evaluations.id"), primary_key=True),
    sa.Column("task", sa.String(128), primary_key=True),
    sa.Column("sample_id", sa.String(256), primary_key=True),
    sa.Column("repeat", sa.Integer, primary_key=True),
    sa.Column("text", sa.LargeBinary, nullable=False),  # zlib: a trace of 32k tokens is 100 kB
    sa.Column("num_tokens", sa.Integer, nullable=False),
    sa.Column("finish_reason", sa.String(16), nullable=False),
    sa.Column("grade", sa.String(16), nullable=False),
    sa.Column("answer", sa.LargeBinary),
    sa.Column("thought", sa.Boolean, nullable=False),
)
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

    def __init__(self, url: str, *, must_exist: bool = False, with_texts: bool = True) -> None:
        """Opens a ``sqlite:///`` URL and makes the tables. Raises ``StudyError``.

        ``with_texts=False`` is for those who only count: ``graded`` then gives responses without their text, in
        half the time and with little memory, for texts can be gigabytes.
        """
        path = sqlite_path(url)
        self._columns = [_RESPONSES.c[name] for name in (*_OUTCOME, *(["text"] if with_texts else []))]
        if must_exist and not path.is_file():
            raise StudyError(f"no study database at '{path}'; 'autolambda list' shows the studies")
        self._engine = sa.create_engine(url)
        sa.event.listen(self._engine, "connect", _on_connect)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _METADATA.create_all(self._engine)
        except (OSError, sa.exc.DatabaseError) as error:
            self.close()
            raise StudyError(f"study database '{path}' cannot be opened: {_reason(error)}") from error

    def close(self) -> None:
        self._engine.dispose()

    def names(self) -> list[str]:
        """The studies of this database, oldest first."""
        with self._engine.connect() as connection:
            return list(connection.scalars(sa.select(_STUDIES.c.name).order_by(_STUDIES.c.created_at)))

    def study(self, name: str) -> StoredStudy | None:
        """A study's row, ``None`` where there is none. Raises ``StudyError`` for one of a newer schema."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_STUDIES).where(_STUDIES.c.name == name)).one_or_none()
        if row is None:
            return None
        if row.schema_version > SCHEMA_VERSION:
            raise StudyError(f"study '{name}' was made by a newer autolambda; upgrade with pip install -U autolambda")
        return StoredStudy(name, json.loads(row.config), json.loads(row.identity), row.created_at)

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
            connection.execute(sa.insert(_STUDIES), row)

    def update_config(self, name: str, config: Mapping[str, Any]) -> None:
        """Replaces the stored config of a study that has grown."""
        with self._engine.begin() as connection:
            connection.execute(sa.update(_STUDIES).where(_STUDIES.c.name == name).values(config=json.dumps(config)))

    def evaluation(
        self, study: str, *, kind: Kind, key: str, schedule: Schedule, num_responses: int
    ) -> StoredEvaluation:
        """The evaluation of that key, added if it is new."""
        found = [e for e in self.evaluations(study, kind=kind) if e.key == key]
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
            inserted = connection.execute(sa.insert(_EVALUATIONS).values(row)).inserted_primary_key
        assert inserted is not None
        return StoredEvaluation(int(inserted[0]), kind, key, schedule, num_responses)

    def evaluations(self, study: str, *, kind: Kind) -> list[StoredEvaluation]:
        """All evaluations of a kind, oldest first; some may be unfinished."""
        query = sa.select(_EVALUATIONS).where(_EVALUATIONS.c.study == study, _EVALUATIONS.c.kind == kind)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(_EVALUATIONS.c.id)).all()
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
            connection.execute(sa.insert(_RESPONSES), rows)

    def graded(self, evaluation: StoredEvaluation, *, sample_ids: Collection[str] | None = None) -> list[Graded]:
        """The stored responses of an evaluation, in the order in which they were stored; to ``sample_ids`` alone."""
        query = sa.select(*self._columns).where(_RESPONSES.c.evaluation == evaluation.id).order_by(sa.text("rowid"))
        if sample_ids is not None:
            query = query.where(_RESPONSES.c.sample_id.in_(sample_ids))
        with self._engine.connect() as connection:
            return [_graded(row) for row in connection.execute(query).all()]

    def outcomes(self, study: str) -> list[tuple[str, str, str, str, int, str, bool, int, str]]:
        """Every response of a study without its text, in the order in which they were stored.

        Kind and key of its evaluation, task, sample id, repeat, grade, whether it thought, tokens, finish reason.
        """
        of, each = _EVALUATIONS.c, _RESPONSES.c
        columns = (of.kind, of.key, each.task, each.sample_id, each.repeat, each.grade, each.thought)
        query = sa.select(*columns, each.num_tokens, each.finish_reason).select_from(_RESPONSES.join(_EVALUATIONS))
        with self._engine.connect() as connection:
            rows = connection.execute(query.where(of.study == study).order_by(sa.text("autolambda_responses.rowid")))
            return [tuple(row) for row in rows]

    def num_stored(self, evaluation: StoredEvaluation) -> int:
        """How many responses of an evaluation are there."""
        query = sa.select(sa.func.count()).where(_RESPONSES.c.evaluation == evaluation.id)
        with self._engine.connect() as connection:
            return int(connection.scalar(query) or 0)

    def num_tokens(self, study: str) -> int:
        """All tokens ever generated for a study: its cost."""
        query = sa.select(sa.func.coalesce(sa.func.sum(_RESPONSES.c.num_tokens), 0)).join(_EVALUATIONS)
        with self._engine.connect() as connection:
            return int(connection.scalar(query.where(_EVALUATIONS.c.study == study)) or 0)


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turns what the database raises in the middle of a run into one line. Raises ``StorageError``."""
    try:
        yield
    except sa.exc.DatabaseError as error:
        raise StorageError(storage_failure(error)) from error


def storage_failure(error: BaseException) -> str:
    """The one line for a database that failed."""
    return (
        f"the study's database failed ({_reason(error)}); nothing stored is lost. Mend it, run the same command again"
    )


def sqlite_path(url: str) -> Path:
    """The file of a ``sqlite:///`` URL. Raises ``StudyError`` for any other URL, its password hidden."""
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # a port that is no number; its text could hold a password
        raise StudyError("--storage is not a database URL; give sqlite:///PATH") from None
    plain = parsed.drivername in ("sqlite", "sqlite+pysqlite") and not (parsed.query or parsed.host or parsed.username)
    if not plain or not parsed.database or parsed.database == ":memory:":
        # neither the user nor the query is shown: either may hold a password
        shown = sa.URL.create(parsed.drivername, host=parsed.host, database=parsed.database).render_as_string()
        raise StudyError(f"storage '{shown}' is not supported; give sqlite:///PATH, without a host or a query")
    return Path(parsed.database)


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
    return zlib.decompress(data).decode("utf-8", "surrogatepass")


def _on_connect(connection: Any, _: Any) -> None:
    """Readers never block the writer, and a commit is on the disk before it returns."""
    for pragma in ("busy_timeout=10000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _reason(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]
