"""A study on a PostgreSQL server, through psycopg.

The driver has one connection, which holds an advisory lock and does all the writing. The server releases the lock when
the connection ends, and the driver can then write nothing more. So a driver that was cut off cannot write between the
transactions of the next one. A lost connection is never replaced: the run ends, and the same command resumes it.

A commit is as durable as the server's ``synchronous_commit``. A connection pooler must keep sessions whole (PgBouncer:
``pool_mode = session``).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import sqlalchemy as sa

from autolambda.errors import StorageError, StudyError, reason
from autolambda.responses import sha256_of
from autolambda.study.databases.connection import Database, failure, shown_storage, unopened
from autolambda.study.holder import taken

# Each side notices within a minute that the other is gone; the server then releases the lock.
_CLIENT = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}
_SERVER = ("tcp_keepalives_idle = 30", "tcp_keepalives_interval = 10", "tcp_keepalives_count = 3")
_READING = ("default_transaction_read_only = on",)


class PostgreSQLDatabase(Database):
    """A database of a server: the driver's one connection if ``driver`` is given, else a new connection each time."""

    url = "postgresql+psycopg://"

    def __init__(self, shown: str, connect: Callable[[], Any], *, is_reader: bool, driver: Any = None) -> None:
        super().__init__(shown, is_reader=is_reader, is_shared=driver is not None)
        self._connect = connect
        self._driver = driver

    def connect(self) -> Any:
        """Returns a connection. Raises ``StorageError`` if the driver's was lost."""
        if self._driver is None:
            return self._connect()
        self.check()
        return self._driver

    def check(self) -> None:
        """Raises ``StorageError`` if the driver's connection was lost."""
        if self._driver is not None and self._driver.closed:
            raise StorageError(failure(ConnectionError("the connection was lost, and with it the lock")))

    @contextmanager
    def table_lock(self) -> Iterator[None]:
        """Holds an advisory lock, so that two drivers of one database do not make tables at once."""
        if self._driver is None:
            yield
            return
        _execute(self._driver, "SELECT pg_advisory_lock(%s)", _key("tables"))
        try:
            yield
        finally:
            if not self._driver.closed:
                self._driver.rollback()
                _execute(self._driver, "SELECT pg_advisory_unlock(%s)", _key("tables"))


def open_database(url: sa.URL, *, must_exist: bool) -> PostgreSQLDatabase:
    """Opens a server's database without a lock. Readers set ``must_exist``. Raises ``StudyError``."""
    connect = _connector(url, settings=_READING if must_exist else ())
    return PostgreSQLDatabase(_shown(url), connect, is_reader=must_exist)


@contextmanager
def driver_lock(url: sa.URL, name: str) -> Iterator[PostgreSQLDatabase]:
    """Locks a study and yields its database for the driver. Raises ``StudyError``."""
    connect = _connector(url)
    try:
        connection = connect()
    except sa.exc.SQLAlchemyError as error:
        raise unopened(_shown(url), error) from error
    with closing(connection):
        if not _execute(connection, "SELECT pg_try_advisory_lock(%s)", _key("study", name)):
            raise taken(name)
        yield PostgreSQLDatabase(_shown(url), connect, is_reader=False, driver=connection)


def _connector(url: sa.URL, *, settings: tuple[str, ...] = ()) -> Callable[[], Any]:
    """Returns a function that connects. The arguments in the URL override ours.

    Raises ``StudyError`` without psycopg.
    """
    try:
        psycopg = importlib.import_module("psycopg")
    except ImportError as error:  # psycopg or the library that it needs is missing
        raise StudyError(
            f"a study in PostgreSQL needs psycopg ({reason(error)}); pip install 'autolambda[postgres]'"
        ) from None
    dialect: Any = url.get_dialect()
    positional, named = dialect(dbapi=psycopg).create_connect_args(url)
    named = {"fallback_application_name": "autolambda", "connect_timeout": 15, **_CLIENT, **named}

    def connect() -> Any:
        with ExitStack() as stack, _errors():
            connection = stack.enter_context(closing(psycopg.connect(*positional, **named)))
            # a driver is idle while a batch is generated, which may take hours
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
    """Raises psycopg's errors as SQLAlchemy's."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise sa.exc.OperationalError("", {}, error) from error


def _key(*parts: str) -> int:
    return int.from_bytes(sha256_of("autolambda", *parts)[:8], "big", signed=True)


def _shown(url: sa.URL) -> str:
    return shown_storage(url.set(drivername="postgresql").render_as_string(hide_password=False))
