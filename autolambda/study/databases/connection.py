"""The parts that all databases share: connections, storage URLs in messages, and one-line errors.

No password reaches a message, Optuna or the database.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import sqlalchemy as sa

from autolambda.errors import StorageError, StudyError, reason

_SHOWN = frozenset({"application_name", "connect_timeout", "dbname", "host", "port", "sslmode", "user"})


class Database(ABC):
    """The connections of one process to a study's database.

    ``shown`` names the database in messages, without its password. A reader (``is_reader``) changes nothing. If
    ``is_shared`` is true, there is one connection and every ``connect`` returns it.
    """

    url: str
    """Selects the SQL dialect for SQLAlchemy and Optuna. Names no host and holds no password."""

    def __init__(self, shown: str, *, is_reader: bool, is_shared: bool = False) -> None:
        self.shown = shown
        self.is_reader = is_reader
        self.is_shared = is_shared

    @abstractmethod
    def connect(self) -> Any:
        """Returns a DBAPI connection."""

    @abstractmethod
    def check(self) -> None:
        """Raises ``StorageError`` if the first opened database is gone."""

    @abstractmethod
    def table_lock(self) -> AbstractContextManager[object]:
        """Returns a lock to hold while tables are made, because drivers of other studies may make theirs."""

    @property
    def options(self) -> dict[str, Any]:
        """Returns the arguments of SQLAlchemy's ``create_engine``. A reader replaces a lost connection."""
        pool = sa.StaticPool if self.is_shared else sa.QueuePool
        return {"creator": self.connect, "poolclass": pool, "pool_pre_ping": self.is_reader}

    def release(self, engine: sa.Engine) -> None:
        """Closes the connections of an engine, except a shared one."""
        if not self.is_shared:
            engine.dispose()

    def watch(self, engine: sa.Engine) -> None:
        """Makes an engine call ``check`` before each use of a connection."""
        sa.event.listen(engine, "checkout", lambda *_: self.check())


def shown_storage(storage: str) -> str:
    """Returns a storage URL without its password and other parts that may be secret."""
    try:
        url = sa.make_url(storage)
    except (sa.exc.ArgumentError, ValueError):
        return "***"
    query = {key: value if key in _SHOWN else "***" for key, value in url.query.items()}
    if url.query == query and url.password is None:
        return storage
    return url.set(query=query).render_as_string(hide_password=True)


def password_hint(storage: str) -> str:
    """Returns advice on the password that ``shown_storage`` hides; empty if it hides nothing."""
    if shown_storage(storage) == storage:
        return ""
    return " (for *** give the password, or leave it out and have it in PGPASSWORD or ~/.pgpass)"


def unopened(shown: str, error: BaseException) -> StudyError:
    """Returns the error for a database that cannot be opened."""
    return StudyError(f"study database '{shown}' cannot be opened: {_said(error)}")


def failure(error: BaseException) -> str:
    """Returns the message for a database that failed during a run."""
    return (
        f"the study's database failed ({_said(error)}); nothing stored is lost. "
        "Correct the cause, run the same command again"
    )


def _said(error: BaseException) -> str:
    """Returns what the database itself said, in one line."""
    return reason(getattr(error, "orig", None) or error)


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turns database errors into a ``StorageError`` of one line."""
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        raise StorageError(failure(error)) from error
