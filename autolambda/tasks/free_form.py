"""The free-form pattern: a question, or a whole conversation, and an answer, in columns of any name.

It serves a user's file and any other set of the hub; benchmarks of mathematics share its prompt.
"""

from __future__ import annotations

from autolambda.errors import TaskError, in_short
from autolambda.responses import Sample
from autolambda.tasks.base import Item, user_item
from autolambda.tasks.rows import Row, as_text

PLAIN = "{question}"
MATH = "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{}."

_ROLES = ("system", "user", "assistant", "tool")


def filled_in(prompt: str, **values: str) -> str:
    """The template with ``{question}`` and the like replaced; other braces, as of ``\\boxed{}``, stay as they are."""
    pieces = [prompt]
    for name, value in values.items():
        pieces = [each for piece in pieces for each in _around(piece, f"{{{name}}}", value)]
    return "".join(str(piece) for piece in pieces)


class _Value(str):
    """A text that was put in, in which nothing more is replaced."""


def _around(piece: str, name: str, value: str) -> list[str]:
    if isinstance(piece, _Value):
        return [piece]
    first, *others = piece.split(name)
    return [first, *(part for other in others for part in (_Value(value), other))]


def free_form(row: Row, *, question: str, answer: str, prompt: str = PLAIN) -> Item:
    """A question in a column and its answer in another."""
    asked, target = row.filled(question, key="question"), row.text(answer, key="answer")
    return user_item(
        row,
        filled_in(prompt, question=asked),
        target,
        id=row.id,
        question=asked,
        metadata=difficulty_of(row),
    )


def conversation(row: Row, *, messages: str, answer: str) -> Item:
    """Chat messages in a column, the last of them not the assistant's, and the answer in another."""
    said = [_message(each, row, messages) for each in row.items(messages, key="messages")]
    if said[-1]["role"] == "assistant":
        raise TaskError(f"{row.where}: {messages!r} ends with the assistant's turn; it must leave that to the model")
    target = row.text(answer, key="answer")
    question = "\n".join(f"{each['role']}: {each['content']}" for each in said)
    return Item(Sample(row.id, tuple(said), target, difficulty_of(row)), row.where, question)


def difficulty_of(row: Row, column: str = "difficulty") -> dict[str, object]:
    """The metadata by which slices are stratified, where the row has it."""
    value = row.cells.get(column)
    return {} if value is None or value == "" else {"difficulty": as_text(value, f"{row.where}: {column!r}")}


def _message(plain: object, row: Row, column: str) -> dict[str, str]:
    if not isinstance(plain, dict) or plain.get("role") not in _ROLES:
        raise TaskError(
            f"{row.where}: {column!r} must hold messages with 'role' ({', '.join(_ROLES)}) and 'content', "
            f"seen {in_short(plain)}"
        )
    content = as_text(plain.get("content"), f"{row.where}: a message's 'content'")
    if not content.strip():
        raise TaskError(f"{row.where}: a message's 'content' is empty")
    return {"role": str(plain["role"]), "content": content}
