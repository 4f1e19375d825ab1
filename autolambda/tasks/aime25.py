"""AIME 2025: 30 competition problems, as in ``math-ai/aime25`` or in the two halves of ``opencompass/AIME2025``."""

from __future__ import annotations

from autolambda.tasks.aime24 import REPEATS, aime_item
from autolambda.tasks.base import Benchmark

BENCHMARK = Benchmark(
    name="aime25",
    hub="math-ai/aime25",
    split="test",
    item=aime_item,
    grader="math",
    repeats=REPEATS,
    test_splits=("test",),
    instead="search on another year (name: aime24) and confirm on it (confirm_on: aime25)",
)
