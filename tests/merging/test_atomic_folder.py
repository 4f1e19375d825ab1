"""Folders that appear complete or not at all, and what a killed process leaves behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autolambda.errors import OutputError
from autolambda.merging.atomic_folder import atomic_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from autolambda.merging.atomic_folder import atomic_folder
with atomic_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("x")
    print("begun", flush=True)
    sys.stdin.read()
"""


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with atomic_folder(out) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text("x")
        assert folder.parent == tmp_path and not out.exists()
    assert (out / "sub" / "file").read_text() == "x"
    assert list(tmp_path.iterdir()) == [out]
    assert out.stat().st_mode & 0o777 == 0o777 & ~_umask()


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_nothing_stays_after_a_failure(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), atomic_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("x")
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_what_exists_is_not_overwritten(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    {"folder": out.mkdir, "file": out.touch, "dangling link": lambda: out.symlink_to("nowhere")}[kind]()
    with pytest.raises(OutputError, match="exists already"), atomic_folder(out):
        pytest.fail("the block must not run")
    assert list(tmp_path.iterdir()) == [out]


def test_what_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OutputError, match="cannot write"), atomic_folder(out):
        out.mkdir()
        (out / "theirs").touch()
    assert list(tmp_path.iterdir()) == [out] and (out / "theirs").exists()


def test_a_missing_parent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"missing' is not a folder.*create it first"):
        atomic_folder(tmp_path / "missing" / "out").__enter__()


def test_an_unwritable_parent_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(OutputError, match=r"out': Permission denied"):
        atomic_folder(tmp_path / "out").__enter__()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the middle of writing ``out``."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "out")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"begun\n"
    with process:
        yield process
        process.kill()


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    [left] = tmp_path.iterdir()
    with atomic_folder(tmp_path / "another"):
        pass
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (left / "half").exists()
    with atomic_folder(tmp_path / "another2"):
        assert left.exists()  # it is of another place
    with atomic_folder(tmp_path / "out"):
        assert not left.exists()


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    [theirs] = tmp_path.iterdir()
    with atomic_folder(tmp_path / "out") as ours:
        assert (theirs / "half").exists() and ours != theirs
        (ours / "x").touch()
    assert other.poll() is None and theirs.exists()
    assert other.communicate(b"", timeout=30) and other.returncode == 1  # the first to end has the place
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_folders_that_only_look_like_leftovers_stay(tmp_path: Path) -> None:
    names = (".out.tmp", ".out.12345678.tmp.old", ".out.1234567g.tmp", "out.12345678.tmp", ".xout.12345678.tmp")
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / "precious").mkdir()
    (tmp_path / ".out.00000000.tmp").symlink_to("precious")
    (tmp_path / ".out.00000001.tmp").write_text("a file")
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "x").touch()
    assert len(list(tmp_path.iterdir())) == len(names) + 4


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
