"""The table of replayed searches: what each strategy loses, proves and spends, and ours beside each other one.

All losses are in points of accuracy:

lost_all: below the best within the budget, over all searches (`scores.lost_of` says what an unproven one loses).
lost_feasible: the same over the searches with a feasible verdict on a merge.
behind_provable: the provable accuracy less what remains, mean over all searches. It is below 0 where a merge off the
    uniform lambdas beats all that is provable among them.
feasible: searches with a feasible verdict on a merge; null where no merge is worth finding.
within: those of them that truly are within the budget.
tokens_share: tokens over the allowance. trials: their median. wasted: the trials near an earlier one in truth.
claim: claimed less true accuracy of what is reported.
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bank import Truth
from scores import Facts, is_worth_finding, lost_of

Row = dict[str, Any]
Key = tuple[Any, ...]  # world, budget, strategy, allowance

MEASURES = (
    "lost_all",
    "lost_feasible",
    "behind_provable",
    "feasible",
    "within",
    "tokens_share",
    "trials",
    "wasted",
    "claim",
)
SHARES = ("feasible", "within", "tokens_share", "wasted")
LEVEL = 0.05
_COVERAGE = ("accuracy", "tokens", "emergence", "saturation")


def read_rows(path: Path) -> list[Row]:
    """The rows of a file. A line that was cut off is left out, and told on stderr."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError:
                print(f"{path}:{number}: left out, for it is no JSON", file=sys.stderr)
    return rows


def to_json(rows: Sequence[Row]) -> list[Row]:
    """An object for each world, budget, strategy and allowance, in the order of the rows."""
    return [
        {
            "world": world,
            "budget": budget,
            "strategy": strategy,
            **measures(found),
            "allowance": allowance,
            "seeds": len(found),
        }
        for (world, budget, strategy, allowance), found in _grouped(rows).items()
    ]


def measures(rows: Sequence[Row]) -> dict[str, float | None]:
    """The measures of the searches of one configuration."""
    facts, budget = _facts(rows[0]), rows[0]["key"][1]
    points = [lost(row) for row in rows]
    merges = [(row, each) for row, each in zip(rows, points, strict=True) if row["chosen_true"]]
    behind = None
    if facts.provable is not None and facts.best is not None:
        behind = float(np.mean(points)) - 100 * (facts.best - facts.provable)
    return {
        "lost_all": _mean(points),
        "lost_feasible": _mean([each for _, each in merges]),
        "behind_provable": behind,
        "feasible": len(merges) / len(rows) if is_worth_finding(facts, budget) else None,
        "within": _mean([row["chosen_true"][1] <= budget for row, _ in merges]),
        "tokens_share": _mean([row["tokens"] / row["allowance"] for row in rows]),
        "trials": float(np.median([row["trials"] for row in rows])),
        "wasted": _mean([row["wasted"] / max(row["places"], 1) for row in rows]),
        "claim": _mean([100 * (row["claimed"][0] - row["reported_true"][0]) for row in rows]),
    }


def lost(row: Row) -> float:
    """The points that a search loses."""
    chosen = _truth(row["chosen_true"]) if row["chosen_true"] else None
    return lost_of(_facts(row), row["key"][1], chosen=chosen, parent=row["parent"])


def markdown(rows: Sequence[Row]) -> str:
    """The table by configuration, its means, and ours beside the others."""
    lines = [_line("world", "budget", "strategy", "allowance", *MEASURES, "seeds"), _rule(len(MEASURES) + 5)]
    found = to_json(rows)
    for each in sorted(found, key=lambda each: (each["allowance"],)):
        numbers = [_shown(name, each[name]) for name in MEASURES]
        names = each["world"], f"{each['budget']:g}", each["strategy"], f"{each['allowance']:g}"
        lines.append(_line(*names, *numbers, str(each["seeds"])))
    return "\n\n".join(["\n".join(lines), _summary(rows, found), _comparison(rows)]).rstrip()


def _summary(rows: Sequence[Row], found: Sequence[Row]) -> str:
    """The means over the configurations, and how often the intervals hold the truth."""
    held = [f"{name} held" for name in _COVERAGE]
    lines = [_line("strategy", "allowance", *MEASURES, "configurations", *held, "CPU s")]
    lines.append(_rule(len(MEASURES) + len(held) + 4))
    kinds: dict[Key, list[Row]] = defaultdict(list)
    for each in found:
        kinds[each["allowance"], each["strategy"]].append(each)
    for (allowance, strategy), several in sorted(kinds.items(), key=lambda kind: kind[0][0]):
        of_kind = [row for row in rows if row["key"][2:4] == [strategy, allowance]]
        means = [_mean([each[name] for each in several if each[name] is not None]) for name in MEASURES]
        numbers = [_shown(name, mean) for name, mean in zip(MEASURES, means, strict=True)]
        coverage = [_shown("within", _coverage(of_kind, name)) for name in _COVERAGE]
        seconds = f"{np.mean([row['cpu_s'] for row in of_kind]):.1f}"
        lines.append(_line(strategy, f"{allowance:g}", *numbers, str(len(several)), *coverage, seconds))
    return "\n".join(lines)


def _comparison(rows: Sequence[Row]) -> str:
    """What each other strategy loses more than ours with the same seeds, and where that is significant."""
    groups = {key: {row["key"][4]: lost(row) for row in found} for key, found in _grouped(rows).items()}
    lines = [_line("against", "allowance", "loses more", "configurations", "ours better", "ours worse"), _rule(6)]
    kinds = dict.fromkeys((key[3], key[2]) for key in groups if key[2] != "ours")
    for allowance, strategy in sorted(kinds, key=lambda kind: kind[0]):
        means: list[float] = []
        better: list[str] = []
        worse: list[str] = []
        for (world, budget, name, share), theirs in groups.items():
            mine = groups.get((world, budget, "ours", share), {})
            seeds = sorted(set(mine) & set(theirs))
            if (name, share) != (strategy, allowance) or not seeds:
                continue
            differences = [theirs[seed] - mine[seed] for seed in seeds]
            means.append(float(np.mean(differences)))
            if is_significant(differences):
                (better if means[-1] > 0 else worse).append(f"{world}@{budget:g}")
        if means:
            error = f" ± {np.std(means, ddof=1) / len(means) ** 0.5:.2f}" if len(means) > 1 else ""
            gain, sides = f"{np.mean(means):+.2f}{error}", (", ".join(better) or "-", ", ".join(worse) or "-")
            lines.append(_line(strategy, f"{allowance:g}", gain, str(len(means)), *sides))
    return "\n".join(lines) if len(lines) > 2 else ""


def is_significant(differences: Sequence[float]) -> bool:
    """Whether paired differences are not 0 on average: the two-sided t test at 5 %."""
    if len(differences) < 2:
        return False
    mean, error = float(np.mean(differences)), float(np.std(differences, ddof=1)) / len(differences) ** 0.5
    if error < 1e-9:  # all searches lose the same
        return abs(mean) > 1e-9
    from scipy.stats import t

    return bool(2 * t.sf(abs(mean) / error, len(differences) - 1) < LEVEL)


def _coverage(rows: Iterable[Row], name: str) -> float | None:
    """How often the intervals of a claim hold the truth."""
    held = []
    for row in rows:
        if name in ("accuracy", "tokens"):
            claim = row["claimed" if name == "accuracy" else "claimed_tokens"]
            held.append(claim[1] <= row["reported_true"][name == "tokens"] <= claim[2])
        elif boundary := row["boundaries"][name]:
            held.append(boundary[1] <= boundary[3] <= boundary[2])
    return _mean(held)


def _facts(row: Row) -> Facts:
    return Facts(row["best"], row["provable"], _truth(row["instruct"]), _truth(row["thinking"]))


def _truth(numbers: Sequence[float]) -> Truth:
    return Truth(numbers[0], numbers[1], math.nan)


def _grouped(rows: Iterable[Row]) -> dict[Key, list[Row]]:
    groups: dict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row["key"][:4])].append(row)
    return groups


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name in SHARES:
        return f"{value:.0%}"
    return f"{value:.0f}" if name == "trials" else f"{value:.2f}"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(count: int) -> str:
    return "|" + "---|" * count
