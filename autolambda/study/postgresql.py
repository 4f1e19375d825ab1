"""A study on a PostgreSQL server, through psycopg.

The driver has one connection, which holds an advisory lock and does all its writing. The server lets go of the lock
when that connection ends, and with it ends all that its driver could still write: a driver that was cut off cannot come
between the next one's writes. So a connection is never made anew in mid-run: the run ends, the same command goes on.
A commit is as durable as the server's ``synchronous_commit`` makes it. A pooler in front of the server must keep
sessions whole (PgBouncer: ``pool_mode = session``).
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from typing import Any

import sqlalchemy as sa

from autolambda.errors import StorageError, StudyError
from autolambda.study.connection import Database, failure, reason, shown_storage, taken, unopened

_DRIVER = "postgresql+psycopg"
# Both sides notice within a minute that the other's machine is gone; the server then lets go of the lock.
_CLIENT = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}
_SERVER = ("tcp_keepalives_idle = 30", "tcp_keepalives_interval = 10", "tcp_keepalives_count = 3")
_READING = ("default_transaction_read_only = on",)


def open_database(url: sa.URL, *, must_exist: bool) -> Database:
    """The server's database, for a reader where it ``must_exist``; without a lock. Raises ``StudyError``."""
    connect = _connector(url, settings=_READING if must_exist else ())
    return Database(_shown(url), _DRIVER, connect, lambda: None, nullcontext, must_exist)


@contextmanager
def driver_lock(url: sa.URL, name: str) -> Iterator[Database]:
    """The server's database for its driver. Raises ``StudyError``."""
    try:
        connection = _connector(url)()
    except sa.exc.SQLAlchemyError as error:
        raise unopened(_shown(url), error) from error

    def check() -> None:
        if connection.closed:
            raise StorageError(failure(ConnectionError("the connection was lost, and with it the lock")))

    def same() -> Any:
        check()
        return connection

    @contextmanager
    def making() -> Iterator[None]:
        """Two drivers of one database, of different studies, do not make the same tables at once."""
        _execute(connection, "SELECT pg_advisory_lock(%s)", _key("tables"))
        try:
            yield
        finally:
            if not connection.closed:
                connection.rollback()
                _execute(connection, "SELECT pg_advisory_unlock(%s)", _key("tables"))

    with closing(connection):
        if not _execute(connection, "SELECT pg_try_advisory_lock(%s)", _key("study", name)):
            raise taken(name)
        yield Database(_shown(url), _DRIVER, same, check, making, is_reader=False, is_shared=True)


def _connector(url: sa.URL, *, settings: tuple[str, ...] = ()) -> Callable[[], Any]:
    """Makes connections. What the URL says goes before our own arguments. Raises ``StudyError`` without psycopg."""
    try:
        psycopg = importlib.import_module("psycopg")
    except ImportError as error:  # or the library that psycopg needs is missing
        raise StudyError(
            f"a study in PostgreSQL needs psycopg ({reason(error)}); pip install 'autolambda[postgres]'"
        ) from None
    dialect: Any = url.get_dialect()
    positional, named = dialect(dbapi=psycopg).create_connect_args(url)
    named = {"fallback_application_name": "autolambda", "connect_timeout": 15, **_CLIENT, **named}

    def connect() -> Any:
        with ExitStack() as stack, _errors():
            connection = stack.enter_context(closing(psycopg.connect(*positional, **named)))
            # a driver is idle as long as a batch takes, which may be hours
            endless = ("idle_session_timeout = 0",) if connection.info.server_version >= 140_000 else ()
            for setting in (*_SERVER, *endless, *settings):
                connection.execute(f"SET {setting}")
            connection.commit()
            stack.pop_all()
        return connection

    return connect


def _execute(connection: Any, statement: str, key: int) -> Any:
    with _errors():
        [(value,)] = connection.execute(statement, [key]).fetchall()
        connection.commit()
    return value


@contextmanager
def _errors() -> Iterator[None]:
    """psycopg's own errors as SQLAlchemy raises them."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise sa.exc.OperationalError("", {}, error) from error


def _key(*parts: str) -> int:
    """A 64-bit key of an advisory lock."""
    digest = hashlib.sha256("\x1f".join(("autolambda", *parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _shown(url: sa.URL) -> str:
    return shown_storage(url.set(drivername="postgresql").render_as_string(hide_password=False))
