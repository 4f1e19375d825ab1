"""Reads the paper's Qwen3-4B table as autolambda reads a study: stages, worth, front and verdicts for several budgets.

    python studies/paper/read.py > studies/paper/README.md

The table has means alone. How sure they are is an assumption, said in the output: prompts are the unit, a prompt's mean
length deviates by ``VARIATION`` of the mean, and two merges differ on ``DISAGREEMENT`` of the prompts.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from autolambda.driver.cost import DISAGREEMENT
from autolambda.statistics.curve import CurvePoint
from autolambda.statistics.pareto import Objectives, front
from autolambda.statistics.stages import stage_of
from autolambda.statistics.token_value import curve_insights
from autolambda.statistics.verdict import Confirmed, Decision, Verdict, confirmation_order, decide

TABLE = Path(__file__).with_name("qwen3_4b.csv")
PARENTS = {"instruct": 0.0, "thinking": 1.0}
METHODS = {
    "ta": "task arithmetic",
    "ta-base": "task arithmetic, base",
    "ties": "TIES",
    "ties-base": "TIES, base",
}
NAMES = {"aime25": "AIME'25", "ifeval": "IFEval", "gpqa_diamond": "GPQA-Diamond"}
NUM_PROMPTS = {"aime25": 30, "ifeval": 541, "gpqa_diamond": 198}
BUDGETS = {
    "aime25": (10_000, 12_000, 15_000, 20_000, 25_000),
    "ifeval": (1_000, 1_300, 1_600, 2_200),
    "gpqa_diamond": (1_000, 2_000, 6_000, 8_000, 9_500),
}
VARIATION = 0.6  # standard deviation over mean of the prompts' mean lengths
MARGIN = 0.01
NUM_FINALISTS = 3
Z95 = 1.644854  # one-sided

INTRODUCTION = f"""# The paper's Qwen3-4B table, read by autolambda

`qwen3_4b.csv` holds Qwen3-4B-Instruct-2507 x Qwen3-4B-Thinking-2507 of arXiv 2510.10977: Mean@k and Think ratio in
percent, and tokens; its parents have no lambda and are 0 and 1 here. All below is the output of

    python studies/paper/read.py > studies/paper/README.md

which puts the table through the same functions as a study: the stages, what more tokens bring, the front, and the
verdict for a budget. The table has no errors, so these are assumed: prompts are the unit (30, 541 and 198), a prompt's
mean length deviates by {VARIATION:.0%} of the mean, and two merges differ on {DISAGREEMENT:.0%} of the prompts. The
finalists are the last {NUM_FINALISTS} of the front up to a twentieth above the budget; in brackets is the nearest where
none is shown to be within it. Chosen and confirmed on the same numbers, as here, a verdict is too bold: this
shows how the rule decides, and what so few prompts can tell.

![accuracy against mean tokens of the merges, both models and other methods](merges.png)

The picture is drawn by `python studies/paper/picture.py`."""


@dataclass(frozen=True)
class Row:
    """A row of the table; ``lam`` is ``None`` for another method than interpolation."""

    name: str
    lam: float | None
    accuracy: float
    mean_tokens: float
    think_ratio: float

    @property
    def score(self) -> Objectives:
        return Objectives(self.accuracy, self.mean_tokens)


def main() -> None:
    print(INTRODUCTION)
    with TABLE.open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    for benchmark in NAMES:
        rows = [row_of(plain) for plain in table if plain["benchmark"] == benchmark]
        print("\n".join(["", f"## {NAMES[benchmark]}", "", *_section(benchmark, rows)]))


def row_of(plain: dict[str, str]) -> Row:
    method = plain["method"]
    lam = PARENTS.get(method, float(plain["lambda"]) if plain["lambda"] else None)
    name = method.capitalize() if method in PARENTS else METHODS.get(method, f"lambda {plain['lambda']}")
    numbers = (float(plain[key]) for key in ("mean_at_k", "mean_tokens", "think_ratio"))
    accuracy, tokens, think = numbers
    return Row(name, lam, accuracy / 100, tokens, think / 100)


def _section(benchmark: str, rows: Sequence[Row]) -> Iterator[str]:
    num_prompts = NUM_PROMPTS[benchmark]
    merges = sorted((row for row in rows if row.lam is not None), key=lambda row: row.lam or 0.0)
    members = front(merges, key=lambda row: row.score)
    widened = front(rows, key=lambda row: row.score)
    yield "| lambda | accuracy % | tokens | Think % | stage | front |"
    yield "|---|---|---|---|---|---|"
    for row in [*merges, *(row for row in rows if row.lam is None)]:
        mark = "yes" if row in members else "yes, among all methods" if row in widened else ""
        shown = row.name if row.lam is None or row.name.lower() in PARENTS else f"{row.lam:g}"
        yield (
            f"| {shown} | {100 * row.accuracy:.1f} | {row.mean_tokens:,.0f} | {100 * row.think_ratio:.1f} "
            f"| {stage_of(row.think_ratio)} | {mark} |"
        )
    yield ""
    points = [CurvePoint(row.lam or 0.0, row.think_ratio, num_prompts, row.accuracy, row.mean_tokens) for row in merges]
    yield from (sentence for sentence in curve_insights(points).sentences())
    yield ""
    yield "| budget | verdict | pick | accuracy % | tokens | beside Thinking |"
    yield "|---|---|---|---|---|---|"
    for budget in BUDGETS[benchmark]:
        yield _verdict(budget, members, merges, num_prompts)


def _verdict(budget: float, members: Sequence[Row], merges: Sequence[Row], num_prompts: int) -> str:
    """The line of a budget: the pick, or in brackets the nearest."""
    near = [row for row in members if row.mean_tokens <= 1.05 * budget] or [members[0]]
    chosen = near[-NUM_FINALISTS:]
    chosen = [chosen[index] for index in confirmation_order([row.mean_tokens for row in chosen])]
    decision = _decide(chosen, budget, num_prompts)
    row = chosen[decision.nearest if decision.pick is None else decision.pick]
    thinking = merges[-1]
    points, share = 100 * (row.accuracy - thinking.accuracy), row.mean_tokens / thinking.mean_tokens
    gain = f"{points:+.1f} points, {share:.0%} of tokens"
    name = row.name if decision.verdict is Verdict.FEASIBLE else f"({row.name})"
    return f"| {budget:,} | {decision.verdict} | {name} | {100 * row.accuracy:.1f} | {row.mean_tokens:,.0f} | {gain} |"


def _decide(rows: Sequence[Row], budget: float, num_prompts: int) -> Decision:
    reach = Z95 * VARIATION / math.sqrt(num_prompts)
    finalists = [
        Confirmed(row.accuracy, row.mean_tokens, (1 - reach) * row.mean_tokens, (1 + reach) * row.mean_tokens)
        for row in rows
    ]
    unsure = Z95 * math.sqrt(DISAGREEMENT / num_prompts)

    def lower(one: int, other: int) -> float:
        return rows[one].accuracy - rows[other].accuracy - unsure

    return decide(finalists, budget=budget, difference_lower=lower, margin=MARGIN)


if __name__ == "__main__":
    main()
