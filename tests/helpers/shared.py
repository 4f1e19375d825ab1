"""What the workers of pytest-xdist share: a temporary folder, and expensive things that one of them makes for all."""

from __future__ import annotations

import atexit
import functools
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

VARIABLE = "AUTOLAMBDA_TESTS_FOLDER"  # workers inherit it


@functools.cache
def shared_folder() -> Path:
    """Returns the temporary folder of this test run. The process that made it removes it when it ends."""
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = tempfile.mkdtemp(prefix="autolambda-tests-")
        atexit.register(shutil.rmtree, os.environ[VARIABLE], ignore_errors=True)
    return Path(os.environ[VARIABLE])


def made_once(name: str, make: Callable[[Path], Any]) -> Any:
    """Returns what ``make`` made in the folder ``name``. The first worker calls it, the others read its pickle."""
    folder = shared_folder() / name
    result = folder / "result.pickle"
    with FileLock(folder.with_suffix(".lock")):
        if not result.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed half-way
            folder.mkdir()
            result.write_bytes(pickle.dumps(make(folder)))
        return pickle.loads(result.read_bytes())
