"""Real searches from the command to the verdict, and what is true of their answers.

python studies/search_cost/live.py [--pair FOLDER --bank BANK.npz] [--rows 200] [--seeds 3] [--budgets 25,40,60]

Without a pair it is the bundled one. A pair's folder has what ``studies/recorded_pairs/build.py`` writes; ``--rows``
cuts its file. Each seed runs the default search from the beginning. Its answer is then measured on 2,000 prompts of the
test file, which neither search nor confirmation saw. The best uniform lambda within the budget is the bank's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from bank import BANK, Bank

from autolambda.bundled import FOLDER
from autolambda.config import Config, parse_config
from autolambda.config_file import load_config
from autolambda.driver.engine import open_engine
from autolambda.driver.job import open_job
from autolambda.driver.search import evaluate, search
from autolambda.engines.base import Engine
from autolambda.optimizer.space import uniform_params
from autolambda.report.report import Report
from autolambda.report.results import ScheduleResult
from autolambda.schedule import Schedule
from autolambda.statistics.metrics import Measured

NUM_PROMPTS = 2000
NUM_KNOTS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pair", type=Path)
    parser.add_argument("--bank", type=Path, default=BANK)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budgets", default="25,40,60")
    args = parser.parse_args()
    bank = Bank(args.bank)
    with tempfile.TemporaryDirectory() as folder:
        base = _config(args.pair, args.rows, Path(folder))
        engine = open_engine(open_job(base))
        for budget in map(float, args.budgets.split(",")):
            for seed in range(args.seeds):
                row = _searched(base, engine, budget, seed, args.pair)
                print(json.dumps({"rows": args.rows, **row, "best_uniform": _best_uniform(bank, budget)}), flush=True)


def _config(pair: Path | None, num_rows: int | None, folder: Path) -> Config:
    """The config of a pair, with a file of ``num_rows`` rows."""
    if pair is None:
        return load_config(None, overrides={})
    plain = load_config(pair / "config.yaml", overrides={}).model_dump(mode="json")
    if num_rows is not None:
        rows = (pair / "rows.jsonl").read_text().splitlines()[:num_rows]
        (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
        plain["tasks"][0]["path"] = str(folder / "rows.jsonl")
    return parse_config(plain)


def _searched(base: Config, engine: Engine, budget: float, seed: int, pair: Path | None) -> dict[str, Any]:
    """One default search, and the truth of its answer."""
    plain = base.model_dump(mode="json")
    plain |= {"budget": budget, "search": plain["search"] | {"seed": seed}}
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        storage = f"sqlite:///{Path(folder)}/study.db"
        report = search(parse_config(plain), name="live", storage=storage, engine=engine)
        seconds = time.monotonic() - started
    answer = report.best or report.nearest
    assert answer is not None
    return {
        "budget": budget,
        "seed": seed,
        "verdict": report.verdict,
        "parent": answer.parent,
        "schedule": str(answer.schedule),
        "tokens_generated": report.tokens_generated,
        "trials": report.counts.complete + report.counts.pruned,
        "stop": report.stop_reason,
        "seconds": round(seconds, 1),
        "claimed": _numbers(answer.measured),
        "true": _numbers(_truth(base, answer.schedule, engine, pair)),
        **_likely(report, base, engine, pair),
    }


def _likely(report: Report, base: Config, engine: Engine, pair: Path | None) -> dict[str, Any]:
    if report.likely is None:
        return {}
    likely: ScheduleResult = report.likely.result
    truth = _truth(base, likely.schedule, engine, pair)
    return {"likely": [str(likely.schedule), round(report.likely.chance, 3), *_numbers(truth)]}


def _truth(base: Config, schedule: Schedule, engine: Engine, pair: Path | None) -> Measured:
    """A schedule's numbers on the test file; a few of its rows go to a confirmation that is never run."""
    plain, path = base.model_dump(mode="json"), (pair or FOLDER) / "test.jsonl"
    task = {"path": str(path), "limit": NUM_PROMPTS, "repeats": 1}
    if pair is not None:
        task = plain["tasks"][0] | task
    num_rows = len(path.read_text().splitlines())
    plain |= {"tasks": [task], "confirm": {"share": 1.5 / num_rows, "limit": 1}}
    return evaluate(parse_config(plain), schedule, engine=engine)


def _best_uniform(bank: Bank, budget: float) -> list[float]:
    """Accuracy and mean tokens of the best uniform lambda within the budget."""
    truths = [bank.truth(uniform_params(float(lam), num_knots=NUM_KNOTS)) for lam in np.linspace(0, 1, 401)]
    best = max((each for each in truths if each.mean_tokens <= budget), key=lambda each: each.accuracy)
    return [round(best.accuracy, 4), round(best.mean_tokens, 2)]


def _numbers(measured: Measured) -> list[float]:
    return [round(measured.accuracy.value, 4), round(measured.mean_tokens.value, 2)]


if __name__ == "__main__":
    main()
