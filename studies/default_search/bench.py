"""Times the default search as a user meets it: from the command to the verdict, in an empty folder.

python studies/default_search/bench.py [--repeats 3]

Prints the seconds to the first trial and to the verdict, and those of ``autolambda --help``, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("autolambda"))


def time_help() -> float:
    """Seconds of ``autolambda --help``."""
    started = time.monotonic()
    subprocess.run([COMMAND, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def time_search(budget: float) -> dict[str, float]:
    """Seconds to the first trial's line and to the end of ``autolambda search``, and the tokens it generated."""
    folder = tempfile.mkdtemp()
    try:
        started = time.monotonic()
        with subprocess.Popen(
            [COMMAND, "search", "--budget", str(budget)], cwd=folder, stdout=subprocess.PIPE, text=True
        ) as run:
            assert run.stdout is not None
            first = next(time.monotonic() - started for line in run.stdout if " trial 0 " in line)
            run.stdout.read()
        total = time.monotonic() - started
        report = subprocess.run(
            [COMMAND, "report", "bundled", "--format", "json"], cwd=folder, check=True, capture_output=True, text=True
        )
    finally:
        shutil.rmtree(folder)
    found = json.loads(report.stdout)
    return {"first_trial_s": first, "total_s": total, "tokens": found["tokens_generated"], "verdict": found["verdict"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--budget", type=float, default=40.0)
    args = parser.parse_args()
    help_s = statistics.median(time_help() for _ in range(10))
    runs = [time_search(args.budget) for _ in range(args.repeats)]
    median = {key: round(statistics.median(run[key] for run in runs), 2) for key in ("first_trial_s", "total_s")}
    print(
        json.dumps({"help_s": round(help_s, 3), **median, "tokens": runs[0]["tokens"], "verdict": runs[0]["verdict"]})
    )


if __name__ == "__main__":
    main()
