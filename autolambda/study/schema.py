"""The tables of studies, evaluations and responses, and the version of their layout.

Optuna keeps its tables of trials in the same database. A study of another version is refused.
"""

from __future__ import annotations

import sqlalchemy as sa

from autolambda.errors import StudyError

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
