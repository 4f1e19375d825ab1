"""Opens the database of a study by its URL: for readers, who change nothing, or locked for its one driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from autolambda.errors import StudyError
from autolambda.study.databases import postgresql, sqlite
from autolambda.study.databases.connection import Database

_POSTGRESQL = ("postgresql", "postgresql+psycopg", "postgres")
_SQLITE = ("sqlite", "sqlite+pysqlite")
_HELP = "give sqlite:///PATH or postgresql://USER@HOST/DATABASE"


def open_database(storage: str, *, must_exist: bool = False) -> Database:
    """Opens the database of a URL. Readers set ``must_exist``. Raises ``StudyError``."""
    url = _parsed(storage)
    open_ = sqlite.open_database if url.drivername == "sqlite" else postgresql.open_database
    return open_(url, must_exist=must_exist)


@contextmanager
def driver_lock(storage: str, name: str) -> Iterator[Database]:
    """Yields the database for the one process that proposes and writes. The lock ends with this process.

    Raises ``StudyError`` if another process holds the lock.
    """
    url = _parsed(storage)
    lock = sqlite.driver_lock if url.drivername == "sqlite" else postgresql.driver_lock
    with lock(url, name) as database:
        yield database


def _parsed(storage: str) -> sa.URL:
    """Returns the parsed URL. Raises ``StudyError`` for an unsupported one, and does not show its secret parts."""
    try:
        url = sa.make_url(storage)
    except (sa.exc.ArgumentError, ValueError):  # a port that is no number; its text could hold a password
        raise StudyError(f"storage: not a database URL; {_HELP}") from None
    if url.drivername in _POSTGRESQL and url.database:
        return url.set(drivername="postgresql+psycopg")
    plain = not (url.query or url.host or url.username)
    if url.drivername in _SQLITE and plain and url.database not in (None, "", ":memory:"):
        return url.set(drivername="sqlite")
    # hides the user name too: it may be a misplaced password
    shown = sa.URL.create(url.drivername, host=url.host, database=url.database).render_as_string()
    raise StudyError(f"storage '{shown}' is not supported; {_HELP} (SQLite without a host or a query)")
