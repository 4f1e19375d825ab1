"""The process that runs a study: a file beside the lock names it, so that others can say who holds the lock.

The lock decides, and the file only informs. A file that a crash left behind counts for nothing, because nobody holds
its lock. This module imports little, so a locked study is told before anything slow is loaded.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from autolambda.errors import StudyError
from autolambda.study.places import sqlite_path, storage_url


@dataclass(frozen=True)
class Holder:
    """The process that runs a study."""

    pid: int
    host: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def lock_path(database: Path, name: str) -> Path:
    """Returns the lock file of a study in an SQLite file."""
    return database.with_name(f"{database.name}.{name}.lock")


def taken(name: str, holder: Holder | None = None) -> StudyError:
    """Returns the error for a study that another process runs."""
    by = holder or "another process"
    return StudyError(
        f"study '{name}' is being run by {by}; wait for it or stop it, or watch it: autolambda status {name} --watch"
    )


@contextmanager
def named_holder(database: Path, name: str) -> Iterator[None]:
    """Names this process as the one that runs the study; the caller holds the lock."""
    path = _note_path(database, name)
    with suppress(OSError):  # a full disk: the lock holds without the note
        path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}), encoding="utf-8")
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()


def holder_of(storage: str, name: str) -> Holder | None:
    """Returns the process that runs a study; ``None`` if nobody does, or if the database does not tell."""
    database = sqlite_path(storage)
    if database is None:
        return None
    try:
        noted = json.loads(_note_path(database, name).read_text(encoding="utf-8"))
        holder = Holder(int(noted["pid"]), str(noted["host"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return holder if _is_alive(holder) and _is_locked(lock_path(database, name)) else None


def check_free(name: str, storage: str | None) -> None:
    """Raises ``StudyError`` for a bad name, or if another process runs the study. ``storage`` is the URL, if given."""
    holder = holder_of(storage_url(name, storage), name)
    if holder is not None:
        raise taken(name, holder)


def _note_path(database: Path, name: str) -> Path:
    return database.with_name(f"{database.name}.{name}.driver")


def _is_alive(holder: Holder) -> bool:
    """Returns whether the process exists; a process of another host is believed to."""
    if holder.host != socket.gethostname():
        return True
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's process
        return True
    return True


def _is_locked(path: Path) -> bool:
    import filelock

    try:
        with filelock.FileLock(path, timeout=0):
            return False
    except filelock.Timeout:
        return True
    except OSError:  # a folder that cannot be written: the note has to be believed
        return True
