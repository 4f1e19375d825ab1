"""GPQA Diamond (Rein et al. 2023): 198 multiple-choice questions of the sciences; the set is gated on the hub.

The order of a question's options follows from its id alone, so every schedule and every study sees the same one.
"""

from __future__ import annotations

import hashlib

from autolambda.errors import TaskError
from autolambda.tasks.base import Benchmark, Item
from autolambda.tasks.multiple_choice import choice_item
from autolambda.tasks.rows import Row

_COLUMNS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def _item(row: Row) -> Item:
    question, record = row.filled("Question").strip(), row.filled("Record ID")
    options = [row.filled(column).strip() for column in _COLUMNS]
    if len(set(options)) < len(options):
        raise TaskError(f"{row.where}: two options are the same, seen {options[0][:60]!r}")
    order = sorted(range(len(options)), key=lambda place: hashlib.sha256(f"{record}/{place}".encode()).digest())
    return choice_item(row, question, [options[place] for place in order], order.index(0), id=record)


BENCHMARK = Benchmark(
    name="gpqa_diamond",
    hub="Idavidrein/gpqa",
    subset="gpqa_diamond",
    split="train",
    item=_item,
    grader="choice",
    repeats=4,
    test_splits=("train",),
    instead="search on GPQA's other questions (subset: gpqa_extended) and confirm on it (confirm_on: gpqa_diamond)",
)
