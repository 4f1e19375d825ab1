"""What a study's database costs as it grows: bytes a response, and the time of each step of a trial.

Writes trials as a search does (ask, evaluation, batches, tell), their texts drawn from words; a line at each size.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from autolambda.optimizer.observations import Proposal
from autolambda.optimizer.space import ranges, uniform_params
from autolambda.responses import Grade, Graded, Response
from autolambda.statistics.estimates import Estimate
from autolambda.statistics.metrics import Measured
from autolambda.statistics.quantiles import Quantile, Quantiles
from autolambda.study.database import driver_lock
from autolambda.study.store import Store
from autolambda.study.trials import Study

T = TypeVar("T")
NAME, BATCH, NUM_BATCHES = "growing", 256, 2
WORDS = ("let", "us", "see", "then", "12", "and", "7", "make", "19", "so", "wait", "check", "again", "=", "therefore")
WINDOW = 20  # trials whose median is reported


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--words", type=int, default=400, help="in a response")
    parser.add_argument("--storage", help="a database URL; a file that is thrown away by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        grow(options.storage or f"sqlite:///{folder}/study.db", sizes=options.sizes, num_words=options.words)


def grow(storage: str, *, sizes: list[int], num_words: int) -> None:
    """Adds trials up to each size and prints its line."""
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=num_words)) for _ in range(1000)]
    clock = Clock()
    with (
        driver_lock(storage, NAME) as database,
        closing(Store(database)) as store,
        closing(Study(store, name=NAME)) as study,
    ):
        store.create_study(NAME, config={}, identity={})
        num_stored = 0
        for size in sizes:
            while num_stored < size:
                one_trial(store, study, texts, clock)
                num_stored += BATCH * NUM_BATCHES
            print(json.dumps(line(store, storage, num_stored, clock)), flush=True)


def one_trial(store: Store, study: Study, texts: list[str], clock: Clock) -> None:
    """What a search writes and reads for one trial."""
    proposal = Proposal(uniform_params(random.random(), num_knots=3), 0, BATCH * NUM_BATCHES)
    trial = clock.timed("ask", lambda: study.start(proposal, ranges=ranges(3)))
    assert trial is not None
    evaluation = clock.timed(
        "evaluation",
        lambda: store.evaluation(
            NAME, kind="trial", key=str(trial.number), schedule=trial.schedule, num_responses=BATCH * NUM_BATCHES
        ),
    )
    for number in range(NUM_BATCHES):
        batch = [
            Graded("t", str(i), 0, Response(random.choice(texts), 400, "stop"), Grade.CORRECT, "7", True)
            for i in range(number * BATCH, (number + 1) * BATCH)
        ]
        clock.timed("store a batch", lambda batch=batch: store.add(evaluation, batch))  # type: ignore[misc]
    clock.timed("read a trial", lambda: store.graded(evaluation))
    clock.timed("tell", lambda: study.tell(trial, made_up()))


def made_up() -> Measured:
    one = Estimate(0.5, 0.01, 0.4, 0.6, 10, 10)
    lengths = Quantiles(*(Quantile(10.0, False) for _ in range(4)))
    return Measured(one, one, one, one, one, lengths, 10, {})


def line(store: Store, storage: str, num_stored: int, clock: Clock) -> dict[str, object]:
    """The figures at one size: bytes a response, medians in milliseconds, and the readers' sums in seconds."""
    found: dict[str, object] = {"responses": num_stored}
    if storage.startswith("sqlite"):
        path = Path(storage.removeprefix("sqlite:///"))
        size = sum(each.stat().st_size for each in (path, path.with_name(f"{path.name}-wal")) if each.exists())
        found["bytes a response"] = round(size / num_stored)
    found |= {f"{name}, ms": round(1000 * statistics.median(times[-WINDOW:]), 1) for name, times in clock.times.items()}
    for name, call in (("count tokens", store.num_tokens), ("read outcomes", store.outcomes)):
        start = time.perf_counter()
        call(NAME)
        found[f"{name}, s"] = round(time.perf_counter() - start, 2)
    return found


class Clock:
    """Seconds of each call, by name."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}

    def timed(self, name: str, call: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = call()
        self.times.setdefault(name, []).append(time.perf_counter() - start)
        return result


if __name__ == "__main__":
    main()
