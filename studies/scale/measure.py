"""Measures merges on the line between two parents and beyond it, with a scale around their base model.

    python studies/scale/measure.py bundled OUT.jsonl --lambdas 0:1:.1 --scales .8,1.2,1.4 --limit 2000
    python studies/scale/measure.py PAIR/pairs/mixed-float32 OUT.jsonl --base PAIR/verbose-float32 ...

The pair is the bundled one, with its base, or a folder with ``config.yaml`` and ``test.jsonl`` (studies/recorded_pairs,
studies/real_pair). Every lambda is measured at scale 1, which is the line, and at each of ``--scales``. ``--modules``
adds, at these lambdas, the scales ATTENTION:FFN, whose mean is that of the other parameters. Each line of OUT is one
merge; a merge that has a line is not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from autolambda.coefficients import ByModule
from autolambda.config import Config, parse_config
from autolambda.driver.engine import open_engine
from autolambda.driver.job import open_job
from autolambda.driver.search import evaluate
from autolambda.schedule import Schedule

sys.path.insert(0, str(Path(__file__).parents[1] / "search_cost"))
sys.path.insert(0, str(Path(__file__).parents[1] / "bundled_pair"))
from curve import on_test_rows
from record import places


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pair")
    parser.add_argument("out", type=Path)
    parser.add_argument("--base")
    parser.add_argument("--lambdas", type=places, default=places("0:1:.1"))
    parser.add_argument("--scales", type=places, default=places(".8,1.2,1.4"))
    parser.add_argument("--modules", default="", help="such as 1.4:1,1:1.4")
    parser.add_argument("--limit", type=int, default=2000, help="prompts")
    args = parser.parse_args()
    config = config_of(args.pair, args.base, args.limit)
    done = {json.loads(line)["key"] for line in args.out.read_text().splitlines()} if args.out.exists() else set()
    engine = open_engine(open_job(config))
    for schedule in schedules(args.lambdas, args.scales, args.modules):
        if schedule.key in done:
            continue
        measured = evaluate(config, schedule, engine=engine)
        numbers = {
            name: [estimate.value, estimate.low, estimate.high]
            for name in ("accuracy", "mean_tokens", "think_ratio")
            for estimate in [getattr(measured, name)]
        }
        line = {"key": schedule.key, "prompts": measured.num_responses, **numbers}
        with args.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)


def config_of(pair: str, base: str | None, limit: int) -> Config:
    """The pair on its test rows, of which nearly all go to the evaluation."""
    plain = on_test_rows(None if pair == "bundled" else Path(pair), limit=limit)
    if base:
        plain["models"]["base"] = base
    plain["tasks"][0]["repeats"] = 1
    return parse_config({**plain, "search": {"spaces": ["uniform", "scale"]}, "engine": {"threads": 1}})


def schedules(lambdas: list[float], scales: list[float], modules: str) -> list[Schedule]:
    """The line first, then each scale of all modules, then the scales by module."""
    sizes: list[float | ByModule] = [1.0, *scales]
    for pair in modules.split(",") if modules else []:
        attention, ffn = map(float, pair.split(":"))
        sizes.append(ByModule(attention, ffn, (attention + ffn) / 2))
    return [Schedule.uniform(lam).beyond(scale=size) for size in sizes for lam in lambdas]


if __name__ == "__main__":
    main()
