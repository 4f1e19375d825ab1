"""The free-form pattern: a question or a whole conversation, and an answer, in columns of any name.

It is used for users' files and for datasets of the hub. The mathematics benchmarks use its prompt ``MATH``.
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
    """Returns the template with ``{name}`` replaced by each value. Other braces, as in ``\\boxed{}``, stay."""
    pieces = [prompt]
    for name, value in values.items():
        pieces = [each for piece in pieces for each in _around(piece, f"{{{name}}}", value)]
    return "".join(str(piece) for piece in pieces)


class _Value(str):
    """A value that was filled in. Nothing is replaced inside it."""


def _around(piece: str, name: str, value: str) -> list[str]:
    if isinstance(piece, _Value):
        return [piece]
    first, *others = piece.split(name)
    return [first, *(part for other in others for part in (_Value(value), other))]


def free_form(row: Row, *, question: str, answer: str, prompt: str = PLAIN) -> Item:
    """Returns the item of a row with a question in one column and its answer in another."""
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
    """Returns the item of a row with chat messages in one column and the answer in another.

    Raises ``TaskError`` if the last message is the assistant's.
    """
    turns = [_message(each, row, messages) for each in row.items(messages, key="messages")]
    if turns[-1]["role"] == "assistant":
        raise TaskError(f"{row.where}: {messages!r} ends with the assistant's turn; leave that turn to the model")
    target = row.text(answer, key="answer")
    question = "\n".join(f"{each['role']}: {each['content']}" for each in turns)
    return Item(Sample(row.id, tuple(turns), target, difficulty_of(row)), row.where, question)


def difficulty_of(row: Row, column: str = "difficulty") -> dict[str, object]:
    """Returns the metadata by which slices are stratified; empty if the row has none."""
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
