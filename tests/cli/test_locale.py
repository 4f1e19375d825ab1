"""Terminals and locales without UTF-8: what they cannot show is replaced, and no command ends in a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_search import NAME, copy_finished, storage_in

EXECUTABLE = Path(sys.executable).with_name("autolambda")
POSIX = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
LOCALES = {
    "posix": POSIX,
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "ascii": {"PYTHONIOENCODING": "ascii:strict"},
}


def output(folder: Path, *arguments: str, **environment: str) -> bytes:
    """What a command prints; it must end well."""
    done = subprocess.run([EXECUTABLE, *arguments], cwd=folder, env={**os.environ, **environment}, capture_output=True)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr.decode("utf-8", "replace")
    return done.stdout


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return copy_finished(storage_in(tmp_path))


@pytest.mark.parametrize("locale", LOCALES)
def test_what_the_encoding_lacks_is_replaced(tmp_path: Path, storage: str, locale: str) -> None:
    for command in ("report", "status"):
        shown = output(tmp_path, command, NAME, "--storage", storage, **LOCALES[locale])
        assert command != "report" or b"?" in shown  # in place of a dash or an arrow
        assert shown.decode("latin-1" if locale == "latin-1" else "ascii")
    page = output(tmp_path, "report", NAME, "--format", "html", "--storage", storage, **LOCALES[locale])
    assert page.decode("utf-8").startswith("<!doctype html>")  # as the page says of itself


def test_files_are_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    rows = "".join(f'{{"question": "\u00e9{i}+1=", "answer": "{i + 1}"}}\n' for i in range(8))
    (tmp_path / "mine.jsonl").write_text(rows, encoding="utf-8")
    config = "tasks: [{path: mine.jsonl, label: \u00e9t\u00e9}]\nsampling: {max_tokens: 4}\n"
    (tmp_path / "c.yaml").write_text(config, encoding="utf-8")
    assert b", 3 prompts x 8" in output(tmp_path, "validate", "c.yaml", **POSIX)
