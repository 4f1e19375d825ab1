"""The search loop's own cost: ask, fit, store and tell, trial by trial, with responses that cost nothing.

python studies/search_cost/loop.py [--trials 200] [--knots 5]

12 parameters with 5 knots, 128 responses a trial, SQLite on the disk, one thread. Prints one JSON line: seconds a trial
around the 25th, the 100th and the last, and their parts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np

from autolambda.config import parse_config
from autolambda.optimizer.aims import Aims
from autolambda.optimizer.propose import Stop, propose
from autolambda.optimizer.racing import stopped_for
from autolambda.optimizer.space import ranges
from autolambda.responses import Grade, Graded, Response
from autolambda.schedule import Schedule
from autolambda.study.measured import MeasuredSchedules
from autolambda.study.store import Store
from autolambda.study.trials import Study

NUM_RESPONSES = 128
AIMS = Aims(40.0, (NUM_RESPONSES,), 1024, 1024)
P = ParamSpec("P")
T = TypeVar("T")


def respond(schedule: Schedule, rng: np.random.Generator) -> list[Graded]:
    """Responses of a made-up three-stage truth."""
    lam = schedule.attention.mean() / 3 + 2 * schedule.ffn.mean() / 3
    ratio = 1 / (1 + np.exp(-14 * (lam - 0.58)))
    found = []
    for sample in range(NUM_RESPONSES):
        thought = bool(rng.random() < ratio)
        length = int(rng.lognormal(np.log(75 if thought else 6 + 15 * lam), 0.4)) + 1
        right = rng.random() < (0.97 if thought else 0.45 + 0.4 * lam)
        grade = Grade.CORRECT if right else Grade.WRONG
        found.append(Graded("task", f"{sample:04d}", 0, Response("7", length, "stop"), grade, "7", thought))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--knots", type=int, default=5)
    args = parser.parse_args()
    search = {"trials": args.trials, "knots": args.knots, "min_gain": 0.0, "max_tokens_generated": 10**9}
    config = parse_config({"search": search}).search_settings
    rng, record = np.random.default_rng(0), MeasuredSchedules(weights={"task": 1.0})
    parts: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder)}/study.db"
        with closing(Store(url)) as store:
            store.create_study("loop", config={}, identity={})
            with closing(Study(store, name="loop")) as study:
                for _ in range(args.trials):
                    proposal = _timed(parts, "propose", propose, record.observations, config, AIMS)
                    if isinstance(proposal, Stop):
                        break
                    trial = _timed(parts, "ask", study.start, proposal, ranges=ranges(args.knots))
                    graded = respond(trial.schedule, rng)
                    evaluation = store.evaluation(
                        "loop", kind="trial", key=str(trial.number), schedule=trial.schedule, num_responses=len(graded)
                    )
                    _timed(parts, "store", store.add, evaluation, graded)
                    pooled = _timed(parts, "measure", record.pooled, trial, graded)
                    ahead = record.observations.with_measured(pooled.observation, cost=0)
                    _timed(parts, "race", stopped_for, trial.schedule, ahead, config, AIMS)
                    record.add(trial, graded)
                    seen = record.of(trial.schedule)
                    assert seen is not None
                    _timed(parts, "tell", study.tell, trial, seen.measured)
    total = np.sum([values[: len(parts["tell"])] for values in parts.values()], axis=0)
    near = {
        f"s_at_{n}": round(float(np.median(total[max(n - 10, 0) : n])), 3)
        for n in (25, 100, len(total))
        if n <= len(total)
    }
    print(
        json.dumps({"trials": len(total), **near, **{k: round(float(np.median(v[-10:])), 3) for k, v in parts.items()}})
    )


def _timed(parts: dict[str, list[float]], name: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    started = time.perf_counter()
    found = call(*args, **kwargs)
    parts[name].append(time.perf_counter() - started)
    return found


if __name__ == "__main__":
    main()
