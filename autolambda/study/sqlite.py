"""A study in an SQLite file, on a local disk: the default.

The driver holds a file lock, which ends with its process. All connections are to the file of the first one: what is
written to a file that was removed meanwhile would be lost in silence.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from urllib.parse import quote

import filelock
import sqlalchemy as sa

from autolambda.errors import StorageError, StudyError
from autolambda.study.connection import Database, taken, unopened

BUSY_SECONDS = 10.0  # to wait for another process's transaction
_WRITING = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")
_READING = ("query_only=ON",)


def open_database(url: sa.URL, *, must_exist: bool) -> Database:
    """The file's database, for a reader where it ``must_exist``, else made. Raises ``StudyError``."""
    path = Path(url.database or "")
    if must_exist and not path.is_file():
        raise StudyError(f"no study database at '{path}'; 'autolambda list' shows the studies")
    if not must_exist:
        _make_folder(path)
    known: list[tuple[int, int]] = []

    def check() -> None:
        if known and known[0] != _inode(path):
            raise StorageError(
                f"the study's database '{path}' was removed or replaced while it was in use; "
                "put it back, run the same command again"
            )

    def connect() -> sqlite3.Connection:
        check()
        connection = _connect(path, is_reader=must_exist)
        known[:] = known or [_inode(path) or (0, 0)]
        return connection

    def making() -> AbstractContextManager[object]:
        return nullcontext() if must_exist else filelock.FileLock(path.with_name(f"{path.name}.lock"))

    return Database(str(path), "sqlite", connect, check, making, must_exist)


@contextmanager
def driver_lock(url: sa.URL, name: str) -> Iterator[Database]:
    """The file's database for its driver. Raises ``StudyError``."""
    path = Path(url.database or "")
    _make_folder(path)
    try:
        lock = filelock.FileLock(path.with_name(f"{path.name}.{name}.lock"), timeout=0)
        lock.acquire()
    except filelock.Timeout as error:
        raise taken(name) from error
    except OSError as error:
        raise StudyError(f"study database '{path}' cannot be locked: {error.strerror or error}") from error
    try:
        yield open_database(url, must_exist=False)
    finally:
        lock.release()


def _connect(path: Path, *, is_reader: bool) -> sqlite3.Connection:
    """Readers never block the writer, and a commit is on the disk before it returns."""
    mode = "mode=rw"
    if not is_reader:
        mode = "mode=rwc"
    elif not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        # without a write-ahead log beside the file nobody writes, and none can be made here
        log = path.with_name(f"{path.name}-wal")
        mode = "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"
    location = f"file:{quote(os.path.abspath(path))}?{mode}"
    connection = sqlite3.connect(location, uri=True, timeout=BUSY_SECONDS, check_same_thread=False)
    try:
        for pragma in _READING if is_reader else _WRITING:
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unopened(str(path), error) from error


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
