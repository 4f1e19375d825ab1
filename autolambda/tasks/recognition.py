"""Columns under their usual names: what a source means although its config does not name them.

Only a source that leaves the keys out is changed, only if the rows fit, and every change is a note.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from autolambda.errors import TaskError
from autolambda.tasks.config import SourceConfig
from autolambda.tasks.patterns.multiple_choice import CHOICES, multiple_choice, options_of
from autolambda.tasks.rows import Row, listed

_NUM_TRIED = 50  # rows
_CHATS = ("messages", "conversations", "conversation", "prompt")
_CHOICES = ("choices", "options", "A, B, C, D, E", "A, B, C, D")


def recognised(source: SourceConfig, rows: Sequence[Row], columns: Collection[str]) -> tuple[SourceConfig, list[str]]:
    """Returns the source with the keys that its ``columns`` tell, and a note for each."""
    source, notes = _questions(source, rows, columns)
    if source.messages is None and source.choices is None and source.grader in (None, "choice"):
        for choices in _CHOICES:
            known = all(name in columns for name in choices.split(", "))
            if known and "{choices}" in (source.prompt or CHOICES) and _fit(source, choices, rows):
                source = source.model_copy(update={"choices": choices})
                notes.append(f"multiple choice with the options in {_named(choices)}; grader exact asks without them")
                break
    if source.messages is not None and source.answer not in columns and not any(row.has(source.answer) for row in rows):
        notes.append(f"the last turn of {source.messages!r}, the assistant's, is the answer")
    return source, notes


def _questions(source: SourceConfig, rows: Sequence[Row], columns: Collection[str]) -> tuple[SourceConfig, list[str]]:
    """Returns the source with the columns of its questions and answers."""
    default = SourceConfig.model_fields
    update: dict[str, str] = {}
    is_default = source.question == default["question"].default and source.messages is None
    if is_default and "question" not in columns:
        chats = [name for name in _CHATS if name in columns and _are_chats(name, rows)]
        if chats and source.choices is None and source.prompt is None:
            update["messages"] = chats[0]
        elif "instruction" in columns:
            update["question"] = "instruction, input" if "input" in columns else "instruction"
    if source.answer == default["answer"].default and source.answer not in columns:
        if "question" in update and "output" in columns:
            update["answer"] = "output"
        elif update and all(row.has("reward_model.ground_truth") for row in rows[:_NUM_TRIED]):
            update["answer"] = "reward_model.ground_truth"
    extra = [name for name in ("system", "history") if update and any(row.cells.get(name) for row in rows[:_NUM_TRIED])]
    notes = [f"{key} is read from {_named(column)}" for key, column in update.items()]
    if extra:
        notes.append(f"{_named(', '.join(extra))}: not asked; prompt or question names the columns that are")
    return source.model_copy(update=update), notes


def _are_chats(name: str, rows: Sequence[Row]) -> bool:
    chats = [listed(row.cells.get(name)) for row in rows[:_NUM_TRIED]]
    return all(isinstance(chat, list) and bool(chat) and isinstance(chat[0], dict) for chat in chats)


def _fit(source: SourceConfig, choices: str, rows: Sequence[Row]) -> bool:
    """Returns whether most of the rows name one of their options, which do not stand in the question already."""
    tried = rows[:_NUM_TRIED]
    num_fitting = 0
    for row in tried:
        try:
            item = multiple_choice(row, question=source.question, choices=choices, answer=source.answer)
            texts = options_of(row, choices).texts
        except TaskError:
            continue
        asked = row.joined(source.question, key="question")
        num_fitting += bool(item.sample.target) and not all(text in asked for text in texts)
    return num_fitting > len(tried) / 2


def _named(columns: str) -> str:
    return repr(columns) if "," not in columns else ", ".join(map(repr, columns.split(", ")))
