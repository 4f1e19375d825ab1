"""A study in an SQLite file on a local disk: the default.

The driver holds a file lock, which ends with its process. All connections must open the first opened file: a write to a
file that was removed would be lost without an error.
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
from autolambda.study.databases.connection import Database, unopened
from autolambda.study.holder import holder_of, lock_path, named_holder, taken

BUSY_SECONDS = 10.0  # to wait for a transaction of another process
_WRITING = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")
_READING = ("query_only=ON",)


class SQLiteDatabase(Database):
    """A database in an SQLite file."""

    url = "sqlite://"

    def __init__(self, path: Path, *, is_reader: bool) -> None:
        super().__init__(str(path), is_reader=is_reader)
        self._path = path
        self._inode: tuple[int, int] | None = None  # device and inode of the file that was opened first

    def connect(self) -> sqlite3.Connection:
        """Opens the file. Raises ``StorageError`` if it was replaced since it was first opened."""
        self.check()
        connection = _connect(self._path, is_reader=self.is_reader)
        self._inode = self._inode or _inode(self._path) or (0, 0)
        return connection

    def check(self) -> None:
        """Raises ``StorageError`` if the file was removed or replaced."""
        if self._inode and self._inode != _inode(self._path):
            raise StorageError(
                f"the study's database '{self._path}' was removed or replaced while it was in use; "
                "put it back, run the same command again"
            )

    def table_lock(self) -> AbstractContextManager[object]:
        """Returns a file lock; a reader makes no tables and needs none."""
        if self.is_reader:
            return nullcontext()
        return filelock.FileLock(self._path.with_name(f"{self._path.name}.lock"))


def open_database(url: sa.URL, *, must_exist: bool) -> SQLiteDatabase:
    """Opens a file for a reader if ``must_exist``, else makes what is missing. Raises ``StudyError``."""
    path = Path(url.database or "")
    if must_exist and not path.is_file():
        raise StudyError(f"no study database at '{path}'; 'autolambda list' shows the studies")
    if not must_exist:
        _make_folder(path)
    return SQLiteDatabase(path, is_reader=must_exist)


@contextmanager
def driver_lock(url: sa.URL, name: str) -> Iterator[SQLiteDatabase]:
    """Locks a study and yields its file for the driver. Raises ``StudyError``."""
    path = Path(url.database or "")
    _make_folder(path)
    try:
        lock = filelock.FileLock(lock_path(path, name), timeout=0)
        lock.acquire()
    except filelock.Timeout as error:
        raise taken(name, holder_of(f"sqlite:///{path}", name)) from error
    except OSError as error:
        raise StudyError(f"study database '{path}' cannot be locked: {error.strerror or error}") from error
    try:
        with named_holder(path, name):
            yield open_database(url, must_exist=False)
    finally:
        lock.release()


def _connect(path: Path, *, is_reader: bool) -> sqlite3.Connection:
    """Opens a file so that readers never block the writer and a commit is on the disk before it returns."""
    mode = "mode=rw"
    if not is_reader:
        mode = "mode=rwc"
    elif not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        # SQLite can make no log in a read-only folder; a missing log means that nobody is writing
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
