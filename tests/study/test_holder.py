"""Who runs a study: told while the lock is held, and by nobody after a crash."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from autolambda.errors import StudyError
from autolambda.study.database import driver_lock
from autolambda.study.holder import Holder, check_free, holder_of


def note_of(folder: Path) -> Path:
    return folder / "study.db.one.driver"


def test_the_holder_is_named_while_it_holds_the_lock(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    assert holder_of(url, "one") is None
    with driver_lock(url, "one"):
        assert holder_of(url, "one") == Holder(os.getpid(), socket.gethostname())
        assert holder_of(url, "two") is None
        by = f"study 'one' is being run by process {os.getpid()} on {socket.gethostname()}; wait for it or stop it"
        with pytest.raises(StudyError, match=by):
            check_free("one", url)
        with pytest.raises(StudyError, match=by), driver_lock(url, "one"):
            pass
    assert holder_of(url, "one") is None and not note_of(tmp_path).exists()
    check_free("one", url)


@pytest.mark.parametrize(
    "left",
    [
        {"pid": os.getpid(), "host": socket.gethostname()},  # the number of the process was given again
        {"pid": 2**22 + 1, "host": socket.gethostname()},
        {"pid": 1, "host": "elsewhere"},
        {"pid": "?", "host": "x"},
        {},
        [],
    ],
)
def test_what_a_crash_left_behind_is_nobody(tmp_path: Path, left: object) -> None:
    note_of(tmp_path).write_text(json.dumps(left))
    assert holder_of(f"sqlite:///{tmp_path}/study.db", "one") is None


def test_a_server_does_not_tell() -> None:
    assert holder_of("postgresql://me@host/studies", "one") is None
