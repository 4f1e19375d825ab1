"""The command line in this process, for every test of what commands print and how they end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from autolambda.cli import main as cli


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs the command line in this process, in an empty folder, at 80 columns."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("AUTOLAMBDA_STORAGE", raising=False)
    before = signal.getsignal(signal.SIGTERM)

    def run_it(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["autolambda", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capfd.readouterr()
        return Ran(int(ended.value.code or 0), captured.out, captured.err)

    yield run_it
    signal.signal(signal.SIGTERM, before)


def refused(ran: Ran, *parts: str) -> str:
    """Checks for exit code 2 and one line on stderr that holds ``parts``; returns the line."""
    assert ran.code == 2 and len(ran.err.splitlines()) == 1 and ran.err.startswith("error: "), ran
    assert all(part in ran.err for part in parts), ran.err
    assert "Traceback" not in ran.out + ran.err
    return ran.err


def files() -> list[Path]:
    return sorted(path for path in Path().rglob("*") if path.is_file())
