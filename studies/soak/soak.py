"""A soak: a real search of thousands of trials on the bundled pair, and what it takes as it grows.

    python studies/soak/soak.py [MINUTES] [SAMPLER]

Each trial is a schedule drawn at random (SAMPLER: random), merged in place and measured on 16 responses; the search has
no other end than the clock. A line a minute tells trials, the process's memory, the database's size, and the median
milliseconds of asking for a trial, of storing its responses and of telling it. At the end: growth from the first third
to the last, as ratios.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autolambda.config_file import load_config
from autolambda.driver.events import EvaluationEnded, Event
from autolambda.driver.run import Run
from autolambda.driver.search import search
from autolambda.study.store import Store
from autolambda.study.trials import Study

SETTINGS: dict[str, object] = {
    "tasks": [{"name": "arithmetic", "limit": 16}],
    "confirm.limit": 16,
    "search.trials": 1_000_000,
    "search.min_gain": 0.0,
    "search.spaces": ["both"],  # the others are used up by some hundred trials
    "search.max_tokens_generated": 10**12,
    "sampling.max_tokens": 32,
    "engine.threads": 1,
}


class TimeIsUpError(Exception):
    """The clock ended the soak."""


@dataclass
class Watcher:
    """Counts trials and times the calls that are looked at."""

    database: Path
    minutes: float
    began: float = field(default_factory=time.monotonic)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    rows: list[dict[str, float]] = field(default_factory=list)
    num_trials: int = 0

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, with its seconds kept."""

        def then(*args: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*args, **named)
            finally:
                self.seconds[name].append(time.perf_counter() - began)

        return then

    def on_event(self, event: Event) -> None:
        """Takes in what the search tells."""
        if not isinstance(event, EvaluationEnded):
            return
        self.num_trials += 1
        minutes = (time.monotonic() - self.began) / 60
        if minutes >= len(self.rows) + 1:
            self._note(minutes)
        if minutes >= self.minutes:
            raise TimeIsUpError

    def _note(self, minutes: float) -> None:
        files = self.database.parent.glob(f"{self.database.name}*")
        row = {
            "minutes": minutes,
            "trials": float(self.num_trials),
            "MB of memory": _resident() / 1e6,
            "MB of database": sum(path.stat().st_size for path in files) / 1e6,
            **{f"{name} ms": 1000 * statistics.median(each) for name, each in sorted(self.seconds.items())},
        }
        self.seconds.clear()
        self.rows.append(row)
        print("  ".join(f"{name} {value:,.1f}" for name, value in row.items()), flush=True)


def _resident() -> int:
    """The bytes of this process that lie in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def main(minutes: float, sampler: str) -> None:
    """Runs the soak and prints its growth."""
    with tempfile.TemporaryDirectory() as folder:
        watcher = Watcher(Path(folder) / "study.db", minutes)
        Run.next_trial = watcher.timed("ask", Run.next_trial)  # type: ignore[method-assign]
        Store.add = watcher.timed("store", Store.add)  # type: ignore[method-assign]
        Study.tell = watcher.timed("tell", Study.tell)  # type: ignore[method-assign]
        config = load_config(None, overrides=SETTINGS | {"search.sampler": sampler})
        with suppress(TimeIsUpError):
            search(config, name="soak", storage=f"sqlite:///{watcher.database}", on_event=watcher.on_event)
    third = max(len(watcher.rows) // 3, 1)
    first, last = watcher.rows[:third], watcher.rows[-third:]
    print(f"{watcher.num_trials} trials; the last third of the time beside the first:")
    for name in list(watcher.rows[0])[2:]:
        before, after = (statistics.median(row[name] for row in rows) for rows in (first, last))
        per = " a trial" if name == "MB of database" else ""
        if per:
            before, after = (statistics.median(row[name] / row["trials"] for row in rows) for rows in (first, last))
        print(f"  {name}{per}: {before:,.4g} -> {after:,.4g} ({after / before:.2f} times)")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 120.0, sys.argv[2] if len(sys.argv) > 2 else "tpe")
