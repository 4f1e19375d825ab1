"""Real searches on the bundled pair, depth schedules included, and what is true of their picks.

python studies/search_cost/live.py [--seeds 4] [--budget 40]

Each seed runs the default search from the beginning; its pick is then measured on the 2,000 prompts of the bank, which
neither search nor confirmation saw. One JSON line a seed: 90 seconds for the search, 20 for the truth, on one core.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from autolambda.bundled import FOLDER
from autolambda.config import parse_config
from autolambda.config_file import load_config
from autolambda.driver.engine import open_engine
from autolambda.driver.job import open_job
from autolambda.driver.search import evaluate, search
from autolambda.engines.base import Engine
from autolambda.schedule import Schedule
from autolambda.statistics.metrics import Measured

NUM_PROMPTS = 2000
NUM_ROWS = 2048  # of the test split; a few go to a confirmation that is never run


def truth_of(schedule: Schedule, engine: Engine) -> Measured:
    """A schedule's numbers on the test split."""
    plain = load_config(None, overrides={}).model_dump(mode="json")
    plain |= {
        "tasks": [{"path": str(FOLDER / "test.jsonl"), "limit": NUM_PROMPTS}],
        "confirm": {"share": 1.5 / NUM_ROWS},
    }
    return evaluate(parse_config(plain), schedule, engine=engine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--budget", type=float, default=40.0)
    args = parser.parse_args()
    engine = open_engine(open_job(load_config(None, overrides={})))
    for seed in range(args.seeds):
        config = load_config(None, overrides={"budget": args.budget, "search.seed": seed})
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            storage = f"sqlite:///{Path(folder)}/study.db"
            report = search(config, name="live", storage=storage, engine=engine)
            seconds = time.monotonic() - started
        pick = report.best or report.nearest
        assert pick is not None
        truth = truth_of(pick.schedule, engine)
        row = {
            "seed": seed,
            "verdict": report.verdict,
            "schedule": str(pick.schedule),
            "tokens_generated": report.tokens_generated,
            "trials": report.counts.complete + report.counts.pruned,
            "seconds": round(seconds, 1),
            "claimed": [round(pick.measured.accuracy.value, 4), round(pick.measured.mean_tokens.value, 2)],
            "true": [round(truth.accuracy.value, 4), round(truth.mean_tokens.value, 2)],
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
