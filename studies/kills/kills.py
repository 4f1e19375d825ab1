"""Kills a real search again and again, and compares what it ends with to a search that nobody disturbed.

    python studies/kills/kills.py [KILLS] [SEED] [--engine vllm] [--set KEY=VALUE ...]

Each run is a process of its own, forked from this one so that it need not import everything again, and killed by
SIGKILL: half of them by the clock, the others at a random step of storing, telling, confirming or exporting (a
statement or a commit of any database connection, an fsync, a rename), which a clock would seldom hit. After each, every
response that was ever stored must still be there as it was, no more than one trial may be open, and no process of the
run may be alive after five seconds. In the end trials, parameters, values, evaluations, responses and the report must
be those of the undisturbed search, bit for bit, and the exported folder intact.

With vLLM on a CPU, its core is a process of its own, as on a GPU. A core that has not begun to load may wait for its
dead driver, and is killed then.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from runs import adopt_orphans, run

from autolambda.engines.vllm.arguments import import_vllm
from autolambda.schedule import Schedule

SEARCH = [
    *("search", "--study=killed", "--budget=30", "--trials=6", "--set=search.ladder=4", "--set=confirm.limit=32"),
    *("--set=sampling.max_tokens=64", "--set=engine.batch_size=32", "--config=config.yaml"),
]
ENGINES = {
    "transformers": ["--set=engine.threads=1"],
    "vllm": ["--set=engine.name=vllm", "--set=engine.max_num_seqs=32", "--set=engine.kv_cache_memory_bytes=134217728"],
}
CLOCK = {"transformers": 0.25, "vllm": 0.6}  # the part of a run in which the clock kills; vLLM's start takes long
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


def is_beyond(schedule: str) -> bool:
    """Whether a stored schedule reads the base model or a third parent."""
    return not Schedule.from_dict(json.loads(schedule)).is_on_line


def report(folder: Path) -> dict[str, Any]:
    """The report as JSON."""
    plain: dict[str, Any] = json.loads(run(folder, "report", "killed", "--format=json").said)
    return plain


def made(folder: Path) -> Path:
    """A folder with the config."""
    folder.mkdir()
    (folder / "config.yaml").write_text("tasks: [{name: arithmetic, limit: 16}]\n", encoding="utf-8")
    return folder


def disturbed(
    folder: Path, search: list[str], rng: random.Random, *, seconds: float, steps: int, at_most: int
) -> Counter[str]:
    """A search and an export that are killed up to ``at_most`` times; where they were killed.

    The clock kills a search within ``seconds``.
    """
    killed: Counter[str] = Counter()
    before: dict[str, list[Any]] = {}
    is_done = False
    of_export = min(MOST_OF_EXPORT, at_most // 2)
    while killed.total() < at_most - of_export and not is_done:
        by_clock = rng.random() < 0.5
        clock, step = {"seconds": rng.uniform(0, seconds)}, {"step": rng.randint(1, steps // 4)}
        ended = run(folder, *search, **(clock if by_clock else step))
        after = contents(folder)
        check(before, after)
        before, is_done = after, not ended.was_killed
        assert not ended.left or ended.is_starting, f"these processes outlived a killed run: {ended.left}"
        if ended.was_killed:
            waits = ", a core waits" if ended.left else ""
            killed[f"{'clock' if by_clock else 'step '} after '{ended.last}'{waits}"] += 1
    run(folder, *search)
    for _ in range(of_export):
        if not (folder / "out").exists():
            killed["export"] += run(folder, *EXPORT, step=rng.randint(1, 40)).was_killed
    if not (folder / "out").exists():
        run(folder, *EXPORT)
    run(folder, "validate", "out")
    return killed


def main(kills: int, seed: int, engine: str, settings: list[str]) -> None:
    """Searches are disturbed until there were so many kills. ``settings`` are further ``--set`` of the search."""
    adopt_orphans()
    rng, search = random.Random(seed), [*SEARCH, *ENGINES[engine], *(f"--set={each}" for each in settings)]
    with tempfile.TemporaryDirectory() as name:
        calm = made(Path(name) / "calm")
        began = time.monotonic()
        num_steps = run(calm, *search).num_steps
        seconds = time.monotonic() - began
        expected, answer = contents(calm), report(calm)
        print(f"undisturbed: {seconds:.1f} s, {num_steps} steps, {len(expected['responses'])} responses", flush=True)
        print(f"evaluations beyond the line: {sum(is_beyond(row[3]) for row in expected['evaluations'])}", flush=True)
        killed: Counter[str] = Counter()
        for number in itertools.count(1):
            folder = made(Path(name) / "disturbed")
            killed += disturbed(
                folder,
                search,
                rng,
                seconds=seconds * CLOCK[engine],
                steps=num_steps,
                at_most=kills - killed.total(),
            )
            assert contents(folder) == expected, "another study"
            assert report(folder) == answer, "another answer"
            shutil.rmtree(folder)
            print(f"{killed.total()} kills in {number} searches: all as undisturbed", flush=True)
            if killed.total() >= kills:
                break
        for where, count in sorted(killed.items()):
            print(f"{count:4}  {where}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kills", type=int, nargs="?", default=100)
    parser.add_argument("seed", type=int, nargs="?", default=0)
    parser.add_argument("--engine", choices=tuple(ENGINES), default="transformers")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of the command")
    given = parser.parse_args()
    if given.engine == "vllm":
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
        import_vllm()  # once, and not in each of the forked processes
    main(given.kills, given.seed, given.engine, given.set)
