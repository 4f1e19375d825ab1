"""MATH-500 (Hendrycks et al. 2021, the 500 of Lightman et al. 2023): competition problems with five levels."""

from __future__ import annotations

from autolambda.tasks.base import Benchmark, Item, user_item
from autolambda.tasks.free_form import MATH, difficulty_of, filled_in
from autolambda.tasks.rows import Row


def _item(row: Row) -> Item:
    problem, answer = row.filled("problem"), row.filled("answer")
    return user_item(
        row,
        filled_in(MATH, question=problem),
        answer,
        id=row.text("unique_id") if "unique_id" in row.cells else row.id,
        question=problem,
        metadata=difficulty_of(row, "level"),
    )


BENCHMARK = Benchmark(
    name="math500",
    hub="HuggingFaceH4/MATH-500",
    split="test",
    item=_item,
    grader="math",
    test_splits=("test",),
    instead="search on the 12,000 training problems (hub: hiyouga/math12k) and confirm on it (confirm_on: math500)",
)
