"""GSM8K (Cobbe et al. 2021): grade-school word problems; the answer stands after ``####`` in the worked solution."""

from __future__ import annotations

from autolambda.errors import TaskError
from autolambda.tasks.base import Benchmark, Item, user_item
from autolambda.tasks.free_form import MATH, filled_in
from autolambda.tasks.rows import Row


def _item(row: Row) -> Item:
    question, solution = row.filled("question"), row.text("answer")
    _, mark, answer = solution.rpartition("####")
    if not mark or not answer.strip():
        raise TaskError(f"{row.where}: 'answer' must end with #### and the number, seen {solution[-60:]!r}")
    target = answer.strip().replace(",", "")
    return user_item(row, filled_in(MATH, question=question), target, id=row.id, question=question)


BENCHMARK = Benchmark(
    name="gsm8k",
    hub="openai/gsm8k",
    subset="main",
    split="train",
    confirm_split="test",
    item=_item,
    grader="math",
    test_splits=("test",),
    instead="search on its train split and confirm on test, which is what the task does unless split says otherwise",
)
