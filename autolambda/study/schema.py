"""The tables of studies, evaluations and responses, what their columns hold, and the version of their layout.

Optuna keeps its tables of trials in the same database. A study of another version is refused.
"""

from __future__ import annotations

import zlib
from typing import Any

import sqlalchemy as sa

from autolambda.errors import StorageError, StudyError, in_short, one_line
from autolambda.files import load_json
from autolambda.responses import Grade, Graded, Response

SCHEMA_VERSION = 3
_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite numbers rows only in an INTEGER PRIMARY KEY

METADATA = sa.MetaData()
STUDIES = sa.Table(
    "autolambda_studies",
    METADATA,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("schema_version", sa.Integer, nullable=False),
    sa.Column("config", sa.Text, nullable=False),
    sa.Column("identity", sa.Text, nullable=False),
    sa.Column("created_at", sa.String(32), nullable=False),
)
EVALUATIONS = sa.Table(
    "autolambda_evaluations",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study", sa.ForeignKey("autolambda_studies.name"), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("schedule", sa.Text, nullable=False),
    sa.Column("num_responses", sa.Integer, nullable=False),
    sa.UniqueConstraint("study", "kind", "key"),
)
# Short columns come before the text: SQLite reads a row from its start, and a text of 32k tokens is 100 kB.
RESPONSES = sa.Table(
    "autolambda_responses",
    METADATA,
    sa.Column("id", _BIG, primary_key=True),  # the order in which responses were stored
    sa.Column("evaluation", sa.ForeignKey("autolambda_evaluations.id"), nullable=False),
    sa.Column("task", sa.Text, nullable=False),
    sa.Column("sample_id", sa.Text, nullable=False),
    sa.Column("repeat", sa.Integer, nullable=False),
    sa.Column("num_tokens", sa.Integer, nullable=False),
    sa.Column("finish_reason", sa.String(16), nullable=False),
    sa.Column("grade", sa.String(16), nullable=False),
    sa.Column("thought", sa.Boolean, nullable=False),
    sa.Column("answer", sa.LargeBinary),
    sa.Column("text", sa.LargeBinary, nullable=False),  # zlib
    sa.UniqueConstraint("evaluation", "task", "sample_id", "repeat"),
)

OUTCOME = ("task", "sample_id", "repeat", "num_tokens", "finish_reason", "grade", "thought", "answer")
"""The columns of a response except its text, in the order in which ``graded_from`` takes them."""

_GRADES = {grade.value: grade for grade in Grade}


def has_tables(engine: sa.Engine, name: str = STUDIES.name) -> bool:
    """Returns whether a table exists. Optuna's ``version_info`` exists once a study has trials."""
    return sa.inspect(engine).has_table(name)


def check_versions(connection: sa.Connection) -> None:
    """Raises ``StudyError`` for the first study of another schema version in a database that has tables."""
    other = sa.select(STUDIES.c.name, STUDIES.c.schema_version).where(STUDIES.c.schema_version != SCHEMA_VERSION)
    for name, version in connection.execute(other.order_by(STUDIES.c.created_at, STUDIES.c.name)):
        check_version(name, version)


def check_version(study: str, version: int) -> None:
    """Raises ``StudyError`` unless this release reads the schema ``version`` of a study."""
    if version != SCHEMA_VERSION:
        raise StudyError(
            f"study '{study}' has schema version {version}, and this autolambda reads version {SCHEMA_VERSION}; "
            "use the autolambda that made it, or start a study in another database"
        )


def row_of(evaluation: int, graded: Graded) -> dict[str, Any]:
    """Returns the columns of a response that belongs to the evaluation with this id."""
    return {
        "evaluation": evaluation,
        "task": graded.task,
        "sample_id": graded.sample_id,
        "repeat": graded.repeat,
        "text": _packed(graded.response.text),
        "num_tokens": graded.response.num_tokens,
        "finish_reason": graded.response.finish_reason,
        "grade": graded.grade.value,
        "answer": None if graded.answer is None else _packed(graded.answer),
        "thought": graded.thought,
    }


def graded_from(row: Any) -> Graded:
    """Returns the response of a row with the columns ``OUTCOME`` and, if it was read, the text.

    Takes columns by position for speed, because a study has 100,000 rows. Raises ``StorageError`` for a damaged text.
    """
    task, sample_id, repeat, num_tokens, finish_reason, grade, thought, answer, *text = row
    response = Response(_unpacked(text[0]) if text else "", num_tokens, finish_reason)
    answer = None if answer is None else _unpacked(answer)
    return Graded(task, sample_id, repeat, response, _GRADES[grade], answer, thought)


def object_from(text: str, study: str) -> dict[str, Any]:
    """Returns a stored JSON object. Raises ``StudyError`` for anything else, which is never stored."""
    try:
        value = load_json(text)
    except ValueError as error:
        raise StudyError(
            f"study '{study}': its stored config is damaged ({one_line(error)}); restore a copy"
        ) from error
    if not isinstance(value, dict):
        raise StudyError(f"study '{study}': its config is damaged ({in_short(value)}); restore a copy")
    return value


def _packed(text: str) -> bytes:
    """Compresses a text as bytes, because a model's text may hold lone surrogates, which no text column accepts."""
    return zlib.compress(text.encode("utf-8", "surrogatepass"))


def _unpacked(data: bytes) -> str:
    try:
        return zlib.decompress(data).decode("utf-8", "surrogatepass")
    except (zlib.error, ValueError) as error:
        raise StorageError(f"the study's database holds a damaged response ({error}); restore a copy") from error
