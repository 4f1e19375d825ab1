"""Whole searches on the vLLM engine: the same findings as on transformers', whatever is killed in the middle."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import yaml
from small_search import BUDGET, NAME, SETTINGS, small_config, storage_in
from vllm_engines import needs_vllm

from autolambda.driver.engine import open_engine
from autolambda.driver.events import Noted
from autolambda.driver.job import open_job
from autolambda.driver.search import evaluate, search
from autolambda.schedule import Schedule

pytestmark = [needs_vllm, pytest.mark.usefixtures("one_thread")]

CLI = [sys.executable, "-W", "ignore", "-c", "from autolambda.cli.main import main; main()"]
VLLM: dict[str, object] = {"engine__name": "vllm", "engine__threads": None}


def start(folder: Path, *settings: str, **environment: str) -> subprocess.Popen[str]:
    """The real command, with a slice that takes seconds a trial."""
    config = {"tasks": [{"name": "arithmetic", "limit": 256}], "engine": {"name": "vllm"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    options = [f"--set={setting}" for setting in settings]
    return subprocess.Popen(
        [*CLI, "search", "--config=config.yaml", f"--study={NAME}", f"--budget={BUDGET:g}", *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | environment,
    )


def stored(folder: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "studies" / NAME / "study.db")) as connection:
        return connection.execute(query).fetchall()


def test_a_search_says_what_runs_and_ends_in_a_verdict(tmp_path):
    notes = []
    report = search(
        small_config(**VLLM),
        name=NAME,
        storage=storage_in(tmp_path),
        on_event=lambda event: notes.append(event.text) if isinstance(event, Noted) else None,
    )
    assert any(re.match(r"engine: vLLM \S+ on cpu, float32, merged by stream", note) for note in notes)
    assert report.counts.complete == SETTINGS["search.trials"]
    assert report.verdict is not None


@pytest.mark.slow  # the contract suite compares the engines' weights
def test_both_engines_measure_the_same():
    """Of 256 prompts, by intervals that overlap; equal weights are shown elsewhere."""
    measured = []
    for settings in ({}, VLLM):
        tasks = [{"name": "arithmetic", "limit": 256}]
        config = small_config(tasks=tasks, sampling__max_tokens=192, **settings)
        with closing(open_engine(open_job(config))) as engine:
            measured.append([evaluate(config, Schedule.uniform(lam), engine=engine) for lam in (0.0, 0.6, 1.0)])
    for one, other in zip(*measured, strict=True):
        for name in ("accuracy", "mean_tokens", "think_ratio"):
            left, right = getattr(one, name), getattr(other, name)
            assert left.low <= right.high and right.low <= left.high, name


@pytest.mark.slow  # driver/test_kills kills a search by transformers; both engines store responses in one way
def test_what_a_killed_search_had_finished_is_not_generated_again(tmp_path):
    """Within one trial: responses are stored while the others still run."""
    # few at a time, so that the first are finished long before the last
    settings = (
        "search.trials=2",
        "search.ladder=2",
        "search.rungs=[256]",
        "confirm.limit=16",
        "engine.max_num_seqs=16",
    )
    process = start(tmp_path, *settings)
    rows = "SELECT * FROM autolambda_responses"
    partial = (
        "SELECT count(*) FROM autolambda_responses JOIN autolambda_evaluations e ON e.id = evaluation WHERE e.key = '1'"
    )
    wait_until(lambda: (tmp_path / "studies" / NAME / "study.db").exists(), process)
    wait_until(lambda: 0 < count(tmp_path, partial) < 256, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = stored(tmp_path, rows)
    assert 256 < len(before) < 512
    resumed = start(tmp_path, *settings)
    output, _ = resumed.communicate(timeout=300)
    assert resumed.returncode in (0, 3), output
    after = stored(tmp_path, rows)
    assert set(before) < set(after)
    assert stored(tmp_path, partial) == [(256,)]


def test_an_engine_that_is_killed_in_mid_trial_is_replaced(tmp_path):
    """A real engine process of its own, killed as the kernel does when memory runs out."""
    trials = ("search.trials=3", "search.ladder=3", "confirm.limit=16", "confirm.finalists=1")
    process = start(tmp_path, *trials, VLLM_ENABLE_V1_MULTIPROCESSING="1")
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line[9:].startswith("trial 0"):  # after the time of day
            time.sleep(1.0)
            [core] = [
                p for p in psutil.Process(process.pid).children() if "EngineCore" in p.name() + "".join(p.cmdline())
            ]
            core.kill()
    output = "".join(lines)
    process.communicate()
    assert process.returncode in (0, 3), output
    assert re.search(
        r"the engine failed \(vLLM failed while .*: its process died.*\); once more with a new one", output
    )
    assert re.search(r"^\S+ trial 2 ", output, re.MULTILINE)
    assert stored(tmp_path, "SELECT state, count(*) FROM trials GROUP BY state") == [("COMPLETE", 3)]


def count(folder: Path, query: str) -> int:
    try:
        return int(str(stored(folder, query)[0][0]))
    except sqlite3.OperationalError:  # before there are tables
        return 0


def wait_until(condition, process: subprocess.Popen[str], *, seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
