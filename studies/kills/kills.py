"""Kills a real search again and again, and compares what it ends with to a search that nobody disturbed.

    python studies/kills/kills.py [KILLS] [SEED]

Each run is a process of its own, forked from this one so that it need not import everything again, and killed by
SIGKILL: half of them by the clock, the others at a random step of storing, telling, confirming or exporting (a
statement or a commit of any database connection, an fsync, a rename), which a clock would seldom hit. After each, every
response that was ever stored must still be there as it was, and no more than one trial may be open. In the end trials,
parameters, values, evaluations, responses and the report must be those of the undisturbed search, bit for bit, and the
exported folder intact.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from autolambda.cli.main import main as autolambda_main

SEARCH = [
    *("search", "--study=killed", "--budget=30", "--trials=6", "--set=search.ladder=4", "--set=confirm.limit=32"),
    *("--set=sampling.max_tokens=64", "--set=engine.threads=1", "--set=engine.batch_size=32", "--config=config.yaml"),
]
EXPORT = ["export", "killed", "out"]
MOST_OF_EXPORT = 3  # kills a search
TABLES = {
    "trials": "SELECT trial_id, number, state FROM trials ORDER BY number",
    "params": "SELECT trial_id, param_name, param_value FROM trial_params ORDER BY trial_id, param_name",
    "values": "SELECT trial_id, objective, value FROM trial_values ORDER BY trial_id, objective",
    "notes": "SELECT trial_id, key, value_json FROM trial_user_attributes ORDER BY trial_id, key",
    "evaluations": "SELECT id, kind, key, schedule, num_responses FROM autolambda_evaluations ORDER BY id",
    "responses": (
        "SELECT evaluation, task, sample_id, repeat, text, num_tokens, finish_reason, grade, answer, thought "
        "FROM autolambda_responses ORDER BY evaluation, task, sample_id, repeat"
    ),
}


@dataclass(frozen=True)
class Ended:
    """A run that ended: whether it was killed, what it said, and its steps if nobody killed it."""

    was_killed: bool
    said: str
    num_steps: int

    @property
    def last(self) -> str:
        """The start of the last line that it had said."""
        lines = [line.split("  ")[0] for line in self.said.splitlines() if line.strip()]
        return lines[-1][:24] if lines else "(nothing said)"


def run(folder: Path, *arguments: str, step: int = 0, seconds: float = 600.0) -> Ended:
    """Runs the command in a process of its own until its end, its death at ``step``, or ``seconds`` have passed."""
    paths = [folder / f"{name}.txt" for name in ("said", "errors", "steps")]
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _become(folder, arguments, step, paths)
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() - began > seconds:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    code = os.waitstatus_to_exitcode(status)
    said, errors, steps = (path.read_text(encoding="utf-8") if path.exists() else "" for path in paths)
    assert code in (0, -signal.SIGKILL), f"{arguments[0]} ended with {code}: {errors}"
    return Ended(code != 0, said, int(steps or 0) if code == 0 else 0)


def _become(folder: Path, arguments: tuple[str, ...], step: int, paths: list[Path]) -> None:
    """The forked process: runs the command and does not return."""
    os.chdir(folder)
    for descriptor, path in zip((1, 2), paths, strict=False):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), descriptor)
    os.environ["COLUMNS"] = "200"
    sys.argv = ["autolambda", *arguments]
    count = _kill_at(step)
    code = 1
    try:
        autolambda_main()
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        paths[2].write_text(str(next(count) - 1), encoding="utf-8")
        sys.stdout.flush()
        os._exit(code)


def _kill_at(step: int) -> itertools.count[int]:
    """Arms the kill: a step that begins does not end. 0 never kills."""
    steps = itertools.count(1)

    def count(*_: object, **__: object) -> None:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def then(*args: Any, **named: Any) -> Any:
            count()
            return call(*args, **named)

        return then

    sa.event.listen(sa.engine.Engine, "after_cursor_execute", count)
    sa.event.listen(sa.engine.Engine, "commit", count)
    os.fsync = counted(os.fsync)
    os.rename = counted(os.rename)
    os.replace = counted(os.replace)
    return steps


def contents(folder: Path) -> dict[str, list[Any]]:
    """All that the study holds, in its order; nothing before there are tables."""
    path = folder / "studies/killed/study.db"
    if not path.is_file():
        return {}
    with closing(sqlite3.connect(path)) as connection:
        there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"trials", "trial_user_attributes", "autolambda_responses"} <= there:
            return {}
        return {name: connection.execute(query).fetchall() for name, query in TABLES.items()}


def check(before: dict[str, list[Any]], after: dict[str, list[Any]]) -> None:
    """Nothing that was stored is gone or changed, and one trial at most is open."""
    if before:
        assert {*before["responses"]} <= {*after["responses"]}, "a response is lost or changed"
        assert after["evaluations"][: len(before["evaluations"])] == before["evaluations"]
    if after:
        keys = [row[:4] for row in after["responses"]]
        assert len(set(keys)) == len(keys), "a response is there twice"
        assert sum(state == "RUNNING" for _, _, state in after["trials"]) <= 1, "an orphaned trial"


def report(folder: Path) -> dict[str, Any]:
    """The report as JSON."""
    plain: dict[str, Any] = json.loads(run(folder, "report", "killed", "--format=json").said)
    return plain


def made(folder: Path) -> Path:
    """A folder with the config."""
    folder.mkdir()
    (folder / "config.yaml").write_text("tasks: [{name: arithmetic, limit: 16}]\n", encoding="utf-8")
    return folder


def disturbed(folder: Path, rng: random.Random, *, seconds: float, steps: int, at_most: int) -> Counter[str]:
    """A search and an export that are killed up to ``at_most`` times; where they were killed."""
    killed: Counter[str] = Counter()
    before: dict[str, list[Any]] = {}
    is_done = False
    of_export = min(MOST_OF_EXPORT, at_most // 2)
    while killed.total() < at_most - of_export and not is_done:
        by_clock = rng.random() < 0.5
        clock, step = {"seconds": rng.uniform(0, seconds / 4)}, {"step": rng.randint(1, steps // 4)}
        ended = run(folder, *SEARCH, **(clock if by_clock else step))
        after = contents(folder)
        check(before, after)
        before, is_done = after, not ended.was_killed
        if ended.was_killed:
            killed[f"{'clock' if by_clock else 'step '} after '{ended.last}'"] += 1
    run(folder, *SEARCH)
    for _ in range(of_export):
        if not (folder / "out").exists():
            killed["export"] += run(folder, *EXPORT, step=rng.randint(1, 40)).was_killed
    if not (folder / "out").exists():
        run(folder, *EXPORT)
    run(folder, "validate", "out")
    return killed


def main(kills: int, seed: int) -> None:
    """Searches are disturbed until there were so many kills."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        calm = made(Path(name) / "calm")
        began = time.monotonic()
        num_steps = run(calm, *SEARCH).num_steps
        seconds = time.monotonic() - began
        expected, answer = contents(calm), report(calm)
        print(f"undisturbed: {seconds:.1f} s, {num_steps} steps, {len(expected['responses'])} responses", flush=True)
        killed: Counter[str] = Counter()
        for number in itertools.count(1):
            folder = made(Path(name) / "disturbed")
            killed += disturbed(folder, rng, seconds=seconds, steps=num_steps, at_most=kills - killed.total())
            assert contents(folder) == expected, "another study"
            assert report(folder) == answer, "another answer"
            shutil.rmtree(folder)
            print(f"{killed.total()} kills in {number} searches: all as undisturbed", flush=True)
            if killed.total() >= kills:
                break
        for where, count in sorted(killed.items()):
            print(f"{count:4}  {where}")


if __name__ == "__main__":
    main(*(int(argument) for argument in [*sys.argv[1:], *["100", "0"][len(sys.argv) - 1 :]]))
