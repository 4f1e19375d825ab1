"""How long a report of a large study takes, and how large it is: 200 trials and 200,000 responses that were made up.

The study's database is a real one, written through the store and Optuna; only its responses are drawn, not generated.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from autolambda.config import Config
from autolambda.config_file import load_config
from autolambda.driver.job import Job, open_job
from autolambda.driver.search import enter
from autolambda.optimizer.observations import Proposal
from autolambda.optimizer.space import PARENTS, ranges, uniform_params
from autolambda.responses import Grade, Graded, Response
from autolambda.schedule import Schedule
from autolambda.statistics.metrics import measure
from autolambda.study.store import Store
from autolambda.study.trials import Study

NAME = "large"
BUDGET = 450.0
NUM_FINALISTS = 3
WORDS = ("let", "us", "see", "then", "12", "and", "7", "make", "19", "so", "wait", "check", "again", "=", "therefore")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--responses", type=int, default=200_000, help="in all; a tenth of them in the confirmation")
    parser.add_argument("--keep", type=Path, help="a folder in which the database stays")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where = options.keep or Path(folder)
        storage = synthesise(where, num_trials=options.trials, num_responses=options.responses)
        print(json.dumps(measured(where, storage) | {"python": platform.python_version()}))


def measured(folder: Path, storage: str) -> dict[str, float]:
    """The command as a user runs it: seconds from start to end, megabytes of the file and of memory."""
    out = folder / "report.html"
    code = "from autolambda.cli.main import main; main()"
    options = ["report", NAME, "--format", "html", "--out", str(out), "--storage", storage]
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", code, *options], check=True)
    seconds = time.monotonic() - start
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak, used = usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime
    size = out.stat().st_size / 1e6
    with closing(Store(storage)) as store:
        num_responses, tokens = len(store.outcomes(NAME)), store.num_tokens(NAME)
    database = (folder / "study.db").stat().st_size / 1e6
    return {
        "responses": num_responses,
        "tokens": tokens,
        "database_mb": round(database),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used, 1),
        "megabytes": round(size, 2),
        "peak_memory_mb": round(peak),
    }


def synthesise(folder: Path, *, num_trials: int, num_responses: int) -> str:
    """A study whose search and confirmation are done; its storage URL."""
    folder.mkdir(parents=True, exist_ok=True)
    shares = [0.25 if is_lost(number) else 1.0 for number in range(num_trials)]
    per_trial = round(num_responses * 0.9 / sum(shares))
    num_confirm = num_responses // 10 // (NUM_FINALISTS + len(PARENTS))
    job = open_job(_config(folder, per_trial, num_confirm, num_trials))
    storage = f"sqlite:///{folder / 'study.db'}"
    with closing(Store(storage)) as store:
        enter(store, job, name=NAME)
        with closing(Study(store, name=NAME)) as study:
            rng = np.random.default_rng(0)
            for params in _places(rng, num_trials, job.config.search.knots):
                _trial(store, study, params, job, rng)
            study.stopped_for = "trials"
            _confirm(store, study, job, rng)
    return storage


def _config(folder: Path, num_search: int, num_confirm: int, num_trials: int) -> Config:
    share = num_confirm / (num_search + num_confirm)
    rows = [{"question": f"{i} + {i % 7} = ?", "answer": str(i + i % 7)} for i in range(num_search + num_confirm)]
    (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return load_config(
        None,
        overrides={
            "tasks": [{"path": str(folder / "sums.jsonl"), "limit": num_search}],
            "confirm.limit": num_confirm,
            "confirm.share": share,
            "confirm.finalists": NUM_FINALISTS,
            "search.trials": num_trials,
            "search.max_tokens_generated": 10**12,
            "budget": BUDGET,
        },
    )


def _places(rng: np.random.Generator, num_trials: int, num_knots: int) -> Iterator[dict[str, float]]:
    """A ladder of nine uniform lambdas, then places of the box that crowd around the middle."""
    ladder = np.linspace(0, 1, 9)[[0, 8, 4, 5, 3, 6, 2, 7, 1]]
    for lam in ladder[:num_trials]:
        yield uniform_params(float(lam), num_knots=num_knots)
    for _ in range(num_trials - len(ladder)):
        params = {name: float(rng.normal(0, 0.1)) for name in ranges(num_knots)}
        yield {name: round(min(max(value, -0.4), 0.4), 4) for name, value in params.items()} | {
            "lam": round(float(rng.beta(6, 6)), 4)
        }


def is_lost(number: int) -> bool:
    """Whether a trial loses the race on a quarter of its responses."""
    return number >= 9 and number % 5 == 4


def _trial(store: Store, study: Study, params: dict[str, float], job: Job, rng: np.random.Generator) -> None:
    (part,) = job.search
    trial = study.start(Proposal(params, 0, part.num_responses), ranges=job.search_settings.ranges)
    assert trial is not None
    lost = is_lost(trial.number)
    ids = [sample.id for sample in part.samples][: part.num_responses // 4 if lost else None]
    evaluation = store.evaluation(
        study.name, kind="trial", key=str(trial.number), schedule=trial.schedule, num_responses=part.num_responses
    )
    graded = drawn(part.task, ids, trial.schedule, rng)
    store.add(evaluation, graded)
    if lost:
        study.prune(trial, "over the budget" if trial.schedule.other > 0.5 else "off the front")
    else:
        study.tell(trial, measure(graded, weights=job.config.weights))


def _confirm(store: Store, study: Study, job: Job, rng: np.random.Generator) -> None:
    from autolambda.optimizer.finalists import plan
    from autolambda.study.measured import load_measured

    record = load_measured(store, study, weights=job.config.weights)
    chosen = [
        record.all[index].schedule
        for index in plan(record.observations, job.config.search_settings, job.aims(BUDGET)).finalists
    ]
    steps = [("parent", name, schedule) for name, schedule in PARENTS.items()]
    steps += [("confirm", schedule.key, schedule) for schedule in chosen]
    (part,) = job.confirm
    for kind, key, schedule in steps:
        evaluation = store.evaluation(
            study.name, kind=kind, key=key, schedule=schedule, num_responses=part.num_responses
        )
        store.add(evaluation, drawn(part.task, [sample.id for sample in part.samples], schedule, rng))


def drawn(task: str, ids: list[str], schedule: Schedule, rng: np.random.Generator) -> list[Graded]:
    """Responses of a schedule: the more of the Thinking model, the more of them think, and the more are right."""
    ratio = 1 / (1 + np.exp(-12 * (schedule.other - 0.5)))
    thoughts = rng.random(len(ids)) < ratio
    lengths = np.where(thoughts, rng.lognormal(6.5, 0.6, len(ids)), rng.lognormal(4.0, 0.5, len(ids))).astype(int) + 2
    rights = rng.random(len(ids)) < np.where(thoughts, 0.9, 0.45 + 0.2 * schedule.other)
    words = rng.integers(len(WORDS), size=int(lengths.sum()))
    ends = np.cumsum(lengths)
    graded = []
    for name, thought, start, end, right in zip(ids, thoughts, ends - lengths, ends, rights, strict=True):
        text = " ".join(WORDS[word] for word in words[start:end])
        text += "</think>\nThe answer is 5." if thought else "\nThe answer is 5."
        response = Response(text, int(end - start), "stop")
        grade = Grade.CORRECT if right else Grade.WRONG
        graded.append(Graded(task, name, 0, response, grade, "5", bool(thought)))
    return graded


if __name__ == "__main__":
    main()
