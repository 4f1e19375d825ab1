"""Searches a real pair as a user would, at several budgets, dtypes and roundings.

    python studies/real_pair/searches.py FOLDER STUDIES studies/real_pair/searches.jsonl mixed:float32:dithered:30 ...

Each name is PAIR:DTYPE:ROUNDING:BUDGET, of the parents in FOLDER (``make.py``). STUDIES gets the studies' databases.
Each line of the file is one search: its seconds, and what its report says of the fronts, stages and rivals. A search
that has a line is not run again; one that was killed goes on. ``--set`` goes to every search.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import Any

KEPT = ("verdict", "best", "nearest", "parents", "cap", "stages", "stop_reason", "tokens_generated")  # of the report
DROPPED = ("tasks", "guards")  # of a result: there is one task and no guard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("studies", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("searches", nargs="+", metavar="PAIR:DTYPE:ROUNDING:BUDGET")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    arguments.studies.mkdir(parents=True, exist_ok=True)
    out = arguments.out.resolve()
    for name in arguments.searches:
        lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
        if name in (line["name"] for line in lines):
            continue
        line = search(arguments.folder.resolve(), arguments.studies, name, arguments.set)
        with out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(name, line["report"]["verdict"], f"{line['seconds'] / 60:.1f} minutes", flush=True)


def search(folder: Path, studies: Path, name: str, settings: list[str]) -> dict[str, Any]:
    """Runs one search from the command to the verdict, and returns its line."""
    pair, dtype, rounding, budget = name.split(":")
    config = folder / "pairs" / (f"{pair}-float32" if dtype == "float32" else pair) / "config.yaml"
    study = name.replace(":", "-")
    options = [f"--set={each}" for each in (f"merge.rounding={rounding}", "engine.threads=1", *settings)]
    begun = time.time()
    run(studies, "search", f"--config={config}", f"--budget={budget}", f"--study={study}", *options)
    seconds = round(time.time() - begun)
    report = json.loads(run(studies, "report", study, "--format=json"))
    return {"name": name, "settings": settings, "seconds": seconds, "report": shortened(report)}


def shortened(report: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what the tables and the picture do not show."""
    fronts = {name: report["fronts"][name] for name in ("smoothed", "confirmed")}
    return plain({name: report[name] for name in KEPT} | {"fronts": fronts})


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items() if name not in DROPPED}
    return [plain(each) for each in value] if isinstance(value, list) else value


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["autolambda", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):  # 3: nothing is within the budget
        raise SystemExit(f"autolambda {' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
