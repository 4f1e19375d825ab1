"""Searches that are killed or interrupted. What was stored is kept, and the result is an undisturbed search's."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from paths import ROOT
from small_search import BUDGET, NAME, SETTINGS, answer, database, finished, small_config, storage_in
from vllm_engines import needs_vllm

from autolambda.driver.search import search

CLI = [sys.executable, "-m", "autolambda"]
KILLS = ROOT / "studies/kills/kills.py"


@pytest.mark.parametrize(
    ("num_kills", "engine"),
    [
        (3, "transformers"),
        pytest.param(8, "transformers", marks=pytest.mark.slow),
        pytest.param(4, "vllm", marks=[pytest.mark.slow, needs_vllm]),
    ],
)
def test_a_search_that_is_killed_ends_as_one_that_nobody_disturbed(num_kills: int, engine: str) -> None:
    """Kills by the clock, in storing, telling, confirming and exporting: the shorter version of studies/kills.

    The script ends with an assertion where a response, a trial, the verdict or the report differs, or a process of a
    killed run stays.
    """
    command = [sys.executable, str(KILLS), str(num_kills), "1", "--engine", engine]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert f"{num_kills} kills in " in done.stdout and (num_kills < 8 or "export" in done.stdout)


def started(folder: Path, *options: str) -> subprocess.Popen[str]:
    """The real command in ``folder``, with the config of ``finished()``."""
    config = {key: value for key, value in SETTINGS.items() if "." not in key}
    settings = [f"--set={key}={value}" for key, value in SETTINGS.items() if "." in key]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return subprocess.Popen(
        [*CLI, "search", "--config=config.yaml", f"--study={NAME}", f"--budget={BUDGET:g}", *settings, *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )


def wait_for_line(process: subprocess.Popen[str], start: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line[9:].startswith(start):
            return
    raise AssertionError(f"no line that starts with {start!r}: {process.communicate()[1]}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_in_one_line_with_the_command_to_go_on(tmp_path: Path, number: signal.Signals) -> None:
    process = started(tmp_path)
    wait_for_line(process, "trial 1 ")
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.splitlines() == [f"interrupted; nothing is lost. Go on with: autolambda resume {NAME}"]
    assert "Front by the search, estimated" in output
    assert len(database(storage_in(tmp_path))["responses"]) >= 32
    if number == signal.SIGINT:
        report = search(small_config(), name=NAME, storage=storage_in(tmp_path))
        assert answer(report) == answer(finished())
