"""Prints the fronts of the line, of a scale and of scales by module side by side.

python studies/scale/results.py studies/scale/bundled.jsonl 15,20,30,40,60
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autolambda.schedule import Schedule

KINDS = ("line", "scale", "scale by module")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=Path)
    parser.add_argument("budgets", type=lambda text: [float(part) for part in text.split(",")])
    args = parser.parse_args()
    lines = [json.loads(line) for line in args.lines.read_text().splitlines()]
    print("\n".join(table(lines, args.budgets)))


def table(lines: list[dict[str, Any]], budgets: list[float]) -> Iterator[str]:
    """Yields the most accurate merge of each kind whose mean tokens are within each budget."""
    yield f"| budget | {' | '.join(KINDS)} |"
    yield "|" + "---|" * (len(KINDS) + 1)
    for budget in budgets:
        cells = []
        for kind in KINDS:
            within = [line for line in lines if kind_of(line) == kind and line["mean_tokens"][0] <= budget]
            cells.append(cell(max(within, key=lambda line: line["accuracy"][0])) if within else "")
        yield f"| {budget:g} | {' | '.join(cells)} |"


def kind_of(line: dict[str, Any]) -> str:
    schedule = schedule_of(line)
    return "line" if schedule.is_on_line else "scale" if schedule.scale.value is not None else "scale by module"


def schedule_of(line: dict[str, Any]) -> Schedule:
    return Schedule.from_dict(json.loads(line["key"]))


def cell(line: dict[str, Any]) -> str:
    value, low, high = (100 * share for share in line["accuracy"])
    return f"{schedule_of(line)}: {value:.1f} % ({low:.1f} to {high:.1f}) at {line['mean_tokens'][0]:.1f}"


if __name__ == "__main__":
    main()
