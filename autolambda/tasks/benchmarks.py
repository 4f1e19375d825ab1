"""The benchmarks by name, each with its source, its conversion of a row to an item, and its test splits.

Mathematics: GSM8K (Cobbe et al. 2021), MATH-500 (Hendrycks et al. 2021; the 500 of Lightman et al. 2023), AIME 2024 and
2025. Others: GPQA Diamond (Rein et al. 2023; gated on the hub) and IFEval (Zhou et al. 2023).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from autolambda.errors import in_short
from autolambda.tasks.base import Benchmark, Item, user_item
from autolambda.tasks.patterns.free_form import MATH
from autolambda.tasks.patterns.multiple_choice import choice_item
from autolambda.tasks.patterns.prompt import filled_in
from autolambda.tasks.rows import Row, UnusableRow


def _gsm8k_item(row: Row) -> Item:
    question, solution = row.filled("question"), row.text("answer")
    _, mark, answer = solution.rpartition("####")
    if not mark or not answer.strip():
        raise UnusableRow(row, "'answer' must end with #### and the number", f", seen {solution[-60:]!r}")
    target = answer.strip().replace(",", "")
    return user_item(row, filled_in(MATH, {"question": question}), target, id=row.id, question=question)


GSM8K = Benchmark(
    name="gsm8k",
    hub="openai/gsm8k",
    subset="main",
    split="train",
    confirm_split="test",
    item=_gsm8k_item,
    grader="math",
    test_splits=("test",),
    instead="search on its train split and confirm on test, which is the default without split",
)


def _math500_item(row: Row) -> Item:
    problem, answer = row.filled("problem"), row.filled("answer")
    return user_item(
        row,
        filled_in(MATH, {"question": problem}),
        answer,
        id=row.text("unique_id") if "unique_id" in row.cells else row.id,
        question=problem,
        metadata={"difficulty": row.text("level")} if row.cells.get("level") not in (None, "") else {},
    )


MATH500 = Benchmark(
    name="math500",
    hub="HuggingFaceH4/MATH-500",
    split="test",
    item=_math500_item,
    grader="math",
    test_splits=("test",),
    instead="search on the 12,000 training problems (hub: hiyouga/math12k) and confirm on it (confirm_on: math500)",
)


_AIME_REPEATS = 8  # because the set has only 30 prompts


def _aime_item(row: Row) -> Item:
    """Returns the item of a problem, in the column ``problem`` or ``question``, with an integer answer."""
    problem = row.filled("question" if "problem" not in row.cells and "question" in row.cells else "problem")
    answer = row.text("answer").strip().removesuffix(".0")
    if not answer.isascii() or not answer.isdigit() or len(answer) > 3:
        raise UnusableRow(row, "'answer' must be an integer from 0 to 999", f", seen {answer[:60]!r}")
    return user_item(row, filled_in(MATH, {"question": problem}), str(int(answer)), id=row.id, question=problem)


AIME24 = Benchmark(
    name="aime24",
    hub="HuggingFaceH4/aime_2024",
    split="train",
    item=_aime_item,
    grader="math",
    repeats=_AIME_REPEATS,
    test_splits=("train",),
    instead="confirm on another year (confirm_on: aime25), and report that",
)


AIME25 = Benchmark(
    name="aime25",
    hub="math-ai/aime25",
    split="test",
    item=_aime_item,
    grader="math",
    repeats=_AIME_REPEATS,
    test_splits=("test",),
    instead="search on another year (name: aime24) and confirm on it (confirm_on: aime25)",
)


_GPQA_COLUMNS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def _gpqa_item(row: Row) -> Item:
    question, record = row.filled("Question").strip(), row.filled("Record ID")
    options = [row.filled(column).strip() for column in _GPQA_COLUMNS]
    if len(set(options)) < len(options):
        raise UnusableRow(row, "two options are the same", f", seen {options[0][:60]!r}")
    order = sorted(range(len(options)), key=lambda index: hashlib.sha256(f"{record}/{index}".encode()).digest())
    return choice_item(row, question, [options[index] for index in order], order.index(0), id=record)


GPQA_DIAMOND = Benchmark(
    name="gpqa_diamond",
    hub="Idavidrein/gpqa",
    subset="gpqa_diamond",
    split="train",
    item=_gpqa_item,
    grader="choice",
    repeats=4,
    test_splits=("train",),
    instead="search on GPQA's other questions (subset: gpqa_extended) and confirm on it (confirm_on: gpqa_diamond)",
)


def _ifeval_item(row: Row) -> Item:
    prompt, key = row.filled("prompt"), row.text("key")
    instructions = [row.as_text(each, "'instruction_id_list'") for each in row.items("instruction_id_list")]
    arguments = [_ifeval_arguments(each, row) for each in row.items("kwargs")]
    if len(arguments) != len(instructions):
        problem = f"'kwargs' must hold one entry for each of the {len(instructions)} instructions"
        raise UnusableRow(row, problem, f", seen {len(arguments)}")
    target = {"key": key, "prompt": prompt, "instruction_id_list": instructions, "kwargs": arguments}
    return user_item(row, prompt, json.dumps(target, sort_keys=True), id=key)


def _ifeval_arguments(plain: object, row: Row) -> dict[str, object]:
    """Returns the arguments that are set. A table also has empty cells for the arguments of other instructions."""
    if plain is not None and not isinstance(plain, dict):
        raise UnusableRow(row, "'kwargs' must hold keys and values", f", seen {in_short(plain)}")
    return {str(name): value for name, value in (plain or {}).items() if value is not None}


IFEVAL = Benchmark(
    name="ifeval",
    hub="google/IFEval",
    split="train",
    item=_ifeval_item,
    grader="ifeval",
    test_splits=("train",),
    instead="it has no training set; say in a report that one half was searched on and the other confirmed on",
)

BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.name: benchmark for benchmark in (GSM8K, MATH500, AIME24, AIME25, GPQA_DIAMOND, IFEVAL)
}
