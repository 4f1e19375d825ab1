"""Tasks of lm-evaluation-harness: prompts as chat messages, and documents as targets for the grader ``lm_eval``.

Few-shot examples are drawn by a fixed seed in the order of the documents, so each document always has the same prompt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from autolambda.errors import TaskError, reason
from autolambda.graders.lm_eval import load_task
from autolambda.responses import Sample
from autolambda.tasks.base import Item

_SEED = 1234  # the harness's default for few-shot examples


def read_items(name: str, *, include_path: str | None = None, num_fewshot: int | None = None) -> list[Item]:
    """Returns the documents of the task's test split, else of its validation split. Raises ``TaskError``."""
    task = load_task(name, include_path)
    where = f"lm-eval task '{name}'"
    shots = int(task.config.num_fewshot or 0) if num_fewshot is None else num_fewshot
    if not (task.has_test_docs() or task.has_validation_docs()):
        raise TaskError(f"{where} has neither test nor validation documents")
    task.set_fewshot_seed(_SEED)
    metric = {"task": name, "include_path": include_path, "metric": None}
    items = []
    for number, doc in enumerate(task.eval_docs, start=1):
        place = f"{where}, document {number}"
        try:
            target = json.dumps({**metric, "doc": doc}, sort_keys=True)
        except (TypeError, ValueError) as error:
            raise TaskError(f"{place} cannot be written as JSON ({reason(error)}); take another task") from error
        if task.doc_to_prefix(doc):
            raise TaskError(f"{where} opens the model's own turn (gen_prefix); take a task without it")
        messages = _messages(task, doc, shots, place)
        items.append(Item(Sample(str(number), messages, target), place, str(task.doc_to_text(doc))))
    return items


def _messages(task: Any, doc: Mapping[str, object], num_fewshot: int, place: str) -> tuple[dict[str, str], ...]:
    """Returns the task's prompt. The harness passes its messages to a chat template; ours writes them as JSON."""
    try:
        text = task.fewshot_context(
            doc, num_fewshot, apply_chat_template=True, fewshot_as_multiturn=True, chat_template=_as_json
        )
    except Exception as error:  # templates and functions by any author may raise anything
        raise TaskError(f"{place}: its prompt cannot be made: {reason(error, with_type=True)}") from error
    if not isinstance(text, str):
        raise TaskError(f"{place} has several prompts, one for each option; take a task that generates")
    return tuple({"role": str(each["role"]), "content": str(each["content"])} for each in json.loads(text))


def _as_json(messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
    return json.dumps(messages)
