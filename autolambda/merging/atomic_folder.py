"""A folder that appears under its name complete, or not at all.

It is written beside its place under a temporary name, synced and renamed. A lock on the temporary folder lives as long
as the process that writes it: what a killed process left behind is known by its lock being free, and is removed by the
next one that writes to the same place.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from autolambda.errors import OutputError

_BUSY = (errno.EWOULDBLOCK, errno.EACCES)


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that becomes ``out`` when the block ends, and is removed when it fails.

    Raises ``OutputError`` where ``out`` exists already, its parent folder is missing, or the disk refuses.
    """
    if os.path.lexists(out):
        raise OutputError(f"'{out}' exists already; choose another folder or remove it")
    if not out.parent.is_dir():
        raise OutputError(f"'{out.parent}' is not a folder, so '{out.name}' cannot be made in it; create it first")
    _remove_leftovers(out)
    with output_errors(out):
        temporary, lock = _locked_folder(out)
    try:
        yield temporary
        with output_errors(out):
            for path in [*temporary.rglob("*"), temporary]:
                _sync(path)
            temporary.rename(out)
            _sync(out.parent)
    except BaseException:  # an interrupt too: nothing half-written stays behind
        shutil.rmtree(temporary, ignore_errors=True)  # the first error is the one to show
        raise
    finally:
        os.close(lock)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turns what the disk refuses into one line."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write '{path}': {error.strerror}; free some space or choose another folder"
        ) from error


def _locked_folder(out: Path) -> tuple[Path, int]:
    """A new temporary folder and the descriptor that holds its lock."""
    while True:
        temporary = out.parent / f".{out.name}.{secrets.token_hex(4)}.tmp"
        temporary.mkdir()
        with suppress(FileNotFoundError):  # another process took it for a leftover before it was locked
            lock = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
            if _lock(lock) is not False and temporary.exists():
                return temporary, lock
            os.close(lock)


def _remove_leftovers(out: Path) -> None:
    """Removes the temporary folders of ``out`` whose process is gone."""
    for path in out.parent.iterdir():
        if not re.fullmatch(rf"\.{re.escape(out.name)}\.[0-9a-f]{{8}}\.tmp", path.name):
            continue
        with suppress(OSError):  # a link, another user's, or gone meanwhile: not ours to remove
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if _lock(lock):
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def _lock(descriptor: int) -> bool | None:
    """Takes a folder's lock: ``False`` where another process has it, ``None`` where the disk knows no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _BUSY else None
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
