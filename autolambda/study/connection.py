"""What a database is to the rest: how connections to it are made, how it is shown, what its failures are called.

No password reaches a message, Optuna or the database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from autolambda.errors import StorageError, StudyError

_SHOWN = frozenset({"application_name", "connect_timeout", "dbname", "host", "port", "sslmode", "user"})


@dataclass(frozen=True)
class Database:
    """How the connections of one process are made.

    ``connect`` gives a DBAPI connection, always the same one where ``is_shared``. ``check`` raises ``StorageError``
    where what was opened is no longer there. ``making`` is held while tables are made: others may make theirs.
    """

    shown: str
    backend: str
    connect: Callable[[], Any]
    check: Callable[[], None]
    making: Callable[[], AbstractContextManager[Any]]
    is_reader: bool
    is_shared: bool = False

    @property
    def url(self) -> str:
        """What tells SQLAlchemy and Optuna which SQL to speak; it names no host and holds no password."""
        return f"{self.backend}://"

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of SQLAlchemy's ``create_engine``. A reader's connection that was cut is made anew."""
        pool = sa.StaticPool if self.is_shared else sa.QueuePool
        return {"creator": self.connect, "poolclass": pool, "pool_pre_ping": self.is_reader}

    def release(self, engine: sa.Engine) -> None:
        """Closes an engine's connections, but for the one that is not its own."""
        if not self.is_shared:
            engine.dispose()

    def watch(self, engine: sa.Engine) -> None:
        """Checks before each use of a connection that the database is still there."""
        sa.event.listen(engine, "checkout", lambda *_: self.check())


def shown_storage(storage: str) -> str:
    """A storage URL as it may be shown: without its password and what else may be secret in it."""
    try:
        url = sa.make_url(storage)
    except (sa.exc.ArgumentError, ValueError):
        return "***"
    query = {key: value if key in _SHOWN else "***" for key, value in url.query.items()}
    if url.query == query and url.password is None:
        return storage
    return url.set(query=query).render_as_string(hide_password=True)


def password_hint(storage: str) -> str:
    """What to do in a command about the password that ``shown_storage`` hides, as psql has it; empty without one."""
    if shown_storage(storage) == storage:
        return ""
    return " (for *** give the password, or leave it out and have it in PGPASSWORD or ~/.pgpass)"


def taken(name: str) -> StudyError:
    """The error where another process drives the study."""
    return StudyError(f"study '{name}' is being run by another process; wait for it or stop it")


def unopened(shown: str, error: BaseException) -> StudyError:
    """The error for a database that cannot be opened."""
    return StudyError(f"study database '{shown}' cannot be opened: {reason(error)}")


def failure(error: BaseException) -> str:
    """The one line for a database that failed in the middle of a run."""
    return f"the study's database failed ({reason(error)}); nothing stored is lost. Mend it, run the same command again"


def reason(error: BaseException) -> str:
    """What the database itself said, in one line."""
    lines = str(getattr(error, "orig", None) or error).split("\n")
    return lines[0].strip() or type(error).__name__


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turns what the database raises into one line. Raises ``StorageError``."""
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        raise StorageError(failure(error)) from error
