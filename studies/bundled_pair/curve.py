"""What a pair does between Instruct and Thinking, measured on its test split, which nothing else uses.

    python studies/bundled_pair/curve.py [--limit 1024] [--threads 1]
    python studies/bundled_pair/curve.py --pair FOLDER --lambdas 0,.5,1

Prints a Markdown table of the bundled pair: uniform lambdas, then the paper's ablations of modules and layers at lambda
0.8. ``--pair`` is a folder of studies/recorded_pairs, of which only uniform lambdas are measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autolambda.bundled import FOLDER
from autolambda.config import parse_config
from autolambda.config_file import bundled_defaults, read_settings
from autolambda.driver.engine import open_engine
from autolambda.driver.job import open_job
from autolambda.driver.search import evaluate
from autolambda.schedule import Profile, Schedule

GRID = (0.0, 0.2, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)


def schedules(lambdas: list[float], *, partial: bool) -> Iterator[tuple[str, Schedule]]:
    """The rows of the table."""
    for lam in lambdas:
        yield f"{lam:g}", Schedule.uniform(lam)
    if not partial:
        return
    yield "0.8, Instruct's ffn", Schedule.by_module(attention=0.8, ffn=0.0)
    yield "0.8, Instruct's attention", Schedule.by_module(attention=0.0, ffn=0.8)
    for name, bands in (
        ("layers 0-1", (0.8, 0.0, 0.0)),
        ("layers 2-3", (0.0, 0.8, 0.0)),
        ("layers 4-5", (0.0, 0.0, 0.8)),
        ("layers 0-3", (0.8, 0.8, 0.0)),
        ("layers 2-5", (0.0, 0.8, 0.8)),
    ):
        yield f"0.8 in {name} only", Schedule.by_depth(Profile(bands, "bands"))


def on_test_rows(pair: Path | None, *, limit: int) -> dict[str, Any]:
    """The settings of a pair, by default the bundled one, on its test rows. Nearly all of them go to the evaluation."""
    plain = read_settings(pair / "config.yaml") if pair else bundled_defaults(with_task=True)
    path = (pair or FOLDER) / "test.jsonl"
    grader = plain["tasks"][0].get("grader", "number")
    return {
        **plain,
        "tasks": [{"path": str(path), "limit": limit, "grader": grader}],
        "confirm": {"share": 1.5 / len(path.read_text(encoding="utf-8").splitlines())},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", type=Path)
    parser.add_argument("--lambdas", default=",".join(map(str, GRID)))
    parser.add_argument("--limit", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args()
    config = parse_config({**on_test_rows(args.pair, limit=args.limit), "engine": {"threads": args.threads}})
    engine = open_engine(open_job(config))
    print("| lambda | accuracy | mean tokens | Think ratio | cut |\n|---|---|---|---|---|")
    for name, schedule in schedules(list(map(float, args.lambdas.split(","))), partial=args.pair is None):
        measured = evaluate(config, schedule, engine=engine)
        print(
            f"| {name} | {measured.accuracy.value:.3f} | {measured.mean_tokens.value:.1f} "
            f"| {measured.think_ratio.value:.3f} | {measured.truncated_ratio.value:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
