"""Ctrl-C in the middle of the real ``autolambda ablate``: what is shown, and that it goes on after it.

Ctrl-C in ``search`` is tested in driver/test_search.py, the commands that are named to continue with in test_main.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command_line import Run
from small_ablation import ROWS
from small_search import NAME, SETTINGS, database, storage_in

CLI = str(Path(sys.executable).with_name("autolambda"))
SMALL = {
    "tasks": SETTINGS["tasks"],
    "sampling": {"max_tokens": 16},
    "engine": {"threads": 1, "batch_size": 8},
    "ablation": ROWS,
}
EACH = 16  # responses of a row
ROW_LABELS = ["lambda 1", "Instruct as is", "Thinking as is", "lambda 0", "lambda 0.5"]
"""In the order in which they are measured: first what the others are compared with."""


def started(*options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [CLI, "ablate", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "120"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )


def interrupt_after(row: str, process: subprocess.Popen[str]) -> tuple[str, str]:
    """Sends Ctrl-C once a row is told of; what is printed from then on."""
    assert process.stdout is not None
    told_of = (line[9:].startswith(f"{row} ") for line in process.stdout)  # after the time of day
    assert any(told_of), process.communicate()
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=60)
    assert process.returncode == 130
    return told


def labels(text: str) -> list[str]:
    """The rows of the table in a text."""
    table = text.partition("Uniform lambdas (tables 2 and 5 of the paper)")[2]
    return [label for label in ROW_LABELS if any(line.startswith(f"{label} ") for line in table.splitlines())]


def responses() -> list[object]:
    return database(storage_in(Path.cwd()))["responses"]


def test_an_interrupted_ablation_shows_what_is_done_and_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("config.yaml").write_text(yaml.safe_dump(SMALL))
    begun = started("--config=config.yaml", f"--study={NAME}", "--only=uniform")
    output, errors = interrupt_after("Instruct as is", begun)
    go_on = f"ablate --study={NAME} --only=uniform"
    assert errors.splitlines() == [f"interrupted; nothing is lost. Go on with: autolambda {go_on}"]
    first = responses()
    done = labels(output)
    assert 2 * EACH <= len(first) < len(ROW_LABELS) * EACH and done == ROW_LABELS[: len(first) // EACH]

    monkeypatch.setenv("COLUMNS", "120")
    ran = run(*go_on.split())
    assert not ran.err and labels(ran.out) == ROW_LABELS
    assert f"ablations: {5 - len(done)} of 5 rows to measure" in ran.out
    last = responses()
    assert last[: len(first)] == first and len(last) == len(ROW_LABELS) * EACH
