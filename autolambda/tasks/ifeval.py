"""IFEval (Zhou et al. 2023): prompts with instructions that a program can check, 25 kinds of them.

The target is JSON with what the checkers take: the key, the prompt, the instructions and their arguments.
"""

from __future__ import annotations

import json

from autolambda.errors import TaskError, in_short
from autolambda.tasks.base import Benchmark, Item, user_item
from autolambda.tasks.rows import Row, as_text


def _item(row: Row) -> Item:
    prompt, key = row.filled("prompt"), row.text("key")
    instructions = [as_text(each, f"{row.where}: 'instruction_id_list'") for each in row.items("instruction_id_list")]
    arguments = [_arguments(each, row) for each in row.items("kwargs")]
    if len(arguments) != len(instructions):
        raise TaskError(
            f"{row.where}: 'kwargs' must hold one entry for each of the {len(instructions)} instructions, "
            f"seen {len(arguments)}"
        )
    target = {"key": key, "prompt": prompt, "instruction_id_list": instructions, "kwargs": arguments}
    return user_item(row, prompt, json.dumps(target, sort_keys=True), id=key)


def _arguments(plain: object, row: Row) -> dict[str, object]:
    """Those that are said: a table has a cell for every argument of any instruction."""
    if plain is not None and not isinstance(plain, dict):
        raise TaskError(f"{row.where}: 'kwargs' must hold keys and values, seen {in_short(plain)}")
    return {str(name): value for name, value in (plain or {}).items() if value is not None}


BENCHMARK = Benchmark(
    name="ifeval",
    hub="google/IFEval",
    split="train",
    item=_item,
    grader="ifeval",
    test_splits=("train",),
    instead="there is no training set of it: report its confirmation, which is on the other half, as what it is",
)
