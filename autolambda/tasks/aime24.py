"""AIME 2024: 30 competition problems with integer answers from 0 to 999, each asked several times by default."""

from __future__ import annotations

from autolambda.errors import TaskError
from autolambda.tasks.base import Benchmark, Item, user_item
from autolambda.tasks.free_form import MATH, filled_in
from autolambda.tasks.rows import Row

REPEATS = 8  # 30 prompts say little, and a half of them less


def aime_item(row: Row) -> Item:
    """A problem in the column ``problem`` or ``question`` with its integer answer."""
    problem = row.filled("question" if "problem" not in row.cells and "question" in row.cells else "problem")
    answer = row.text("answer").strip().removesuffix(".0")
    if not answer.isascii() or not answer.isdigit() or len(answer) > 3:
        raise TaskError(f"{row.where}: 'answer' must be an integer from 0 to 999, seen {answer[:60]!r}")
    return user_item(row, filled_in(MATH, question=problem), str(int(answer)), id=row.id, question=problem)


BENCHMARK = Benchmark(
    name="aime24",
    hub="HuggingFaceH4/aime_2024",
    split="train",
    item=aime_item,
    grader="math",
    repeats=REPEATS,
    test_splits=("train",),
    instead="confirm on another year (confirm_on: aime25), and report that",
)
