"""The tables of responses, their version, and how those of older releases become today's.

| version | releases | |
|---|---|---|
| 1 | 0.1 | SQLite alone; the order of responses is SQLite's own, its ``rowid`` |
| 2 | 0.2 | ``id`` is that order; the columns that are counted lie before the texts; PostgreSQL |

A study of version 1 is read as it is: in SQLite ``rowid`` is another name of version 2's ``id``. Its next driver brings
the whole database to version 2, in one transaction.
"""

from __future__ import annotations

import sqlalchemy as sa

SCHEMA_VERSION = 2
_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # where an INTEGER PRIMARY KEY is the rowid

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
RESPONSES = sa.Table(
    "autolambda_responses",
    METADATA,
    sa.Column("id", _BIG, primary_key=True),
    sa.Column("evaluation", sa.ForeignKey("autolambda_evaluations.id"), nullable=False),
    sa.Column("task", sa.Text, nullable=False),
    sa.Column("sample_id", sa.Text, nullable=False),
    sa.Column("repeat", sa.Integer, nullable=False),
    sa.Column("num_tokens", sa.Integer, nullable=False),
    sa.Column("finish_reason", sa.String(16), nullable=False),
    sa.Column("grade", sa.String(16), nullable=False),
    sa.Column("thought", sa.Boolean, nullable=False),
    sa.Column("answer", sa.LargeBinary),
    sa.Column("text", sa.LargeBinary, nullable=False),  # zlib: a trace of 32k tokens is 100 kB; last, to be left unread
    sa.UniqueConstraint("evaluation", "task", "sample_id", "repeat"),
)


def has_tables(engine: sa.Engine, name: str = STUDIES.name) -> bool:
    """Whether a study was ever made in this database, or (``version_info``) a trial: Optuna's tables are there."""
    return sa.inspect(engine).has_table(name)


def order(engine: sa.Engine) -> sa.ColumnElement[int]:
    """What responses are ordered by, in the tables of any version."""
    return sa.literal_column(f"{RESPONSES.name}.{'rowid' if engine.dialect.name == 'sqlite' else 'id'}")


def version(connection: sa.Connection) -> int:
    """The newest version among the studies of a database that has tables; today's where there is none."""
    return connection.scalar(sa.select(sa.func.max(STUDIES.c.schema_version))) or SCHEMA_VERSION


def make_tables(engine: sa.Engine) -> None:
    """Makes what is missing, and brings tables of version 1 to version 2: all of it or nothing."""
    METADATA.create_all(engine)
    if engine.dialect.name == "sqlite" and "id" not in {each["name"] for each in _columns(engine)}:
        _from_1_to_2(engine)


def _columns(engine: sa.Engine) -> list[sa.engine.interfaces.ReflectedColumn]:
    return sa.inspect(engine).get_columns(RESPONSES.name)


def _from_1_to_2(engine: sa.Engine) -> None:
    names = ", ".join(column.name for column in RESPONSES.columns if column.name != "id")
    old = f"{RESPONSES.name}_1"
    statements = (
        f"ALTER TABLE {RESPONSES.name} RENAME TO {old}",
        str(sa.schema.CreateTable(RESPONSES).compile(engine)),
        f"INSERT INTO {RESPONSES.name} (id, {names}) SELECT rowid, {names} FROM {old} ORDER BY rowid",
        f"DROP TABLE {old}",
        f"UPDATE {STUDIES.name} SET schema_version = 2",
    )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # SQLAlchemy's own begin with the first row that is written
        try:
            for statement in (*statements, "COMMIT"):
                connection.exec_driver_sql(statement)
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
