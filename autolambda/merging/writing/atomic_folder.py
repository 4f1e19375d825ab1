"""A folder that appears under its name when it is complete, or not at all.

It is written inside a temporary folder in the same parent, synced, and renamed. A killed process leaves its temporary
folder (``.NAME.*.tmp``) behind; it can be deleted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from autolambda.errors import OutputError


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """Yields an empty folder that is renamed to ``out`` when the block ends, and is removed when the block fails.

    Raises ``OutputError`` when ``out`` exists, when its parent folder is missing, or when the disk refuses.
    """
    if os.path.lexists(out):
        raise OutputError(f"'{out}' exists already; choose another folder or remove it")
    if not out.parent.is_dir():
        raise OutputError(f"'{out.parent}' is not a folder, so '{out.name}' cannot be made in it; create it first")
    with output_errors(out):
        parent = TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", suffix=".tmp", ignore_cleanup_errors=True)
    with parent:  # readable by its owner only, but the folder in it gets the usual permissions
        folder = Path(parent.name) / out.name
        with output_errors(out):
            folder.mkdir()
        yield folder
        with output_errors(out):
            for path in [*folder.rglob("*"), folder]:
                _sync(path)
            folder.rename(out)
            _sync(out.parent)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turns an ``OSError`` of the block into an ``OutputError`` of one line."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write '{path}': {error.strerror}; free some space or choose another folder"
        ) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
