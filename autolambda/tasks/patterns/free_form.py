"""The free-form pattern: a question or a whole conversation, and an answer, in columns of any name.

It is used for users' files and for datasets of the hub. The mathematics benchmarks use its prompt ``MATH``.
"""

from __future__ import annotations

from collections.abc import Iterable

from autolambda.errors import one_line
from autolambda.graders.base import any_of
from autolambda.responses import Sample
from autolambda.tasks.base import Item, user_item
from autolambda.tasks.patterns.prompt import filled_in, others
from autolambda.tasks.rows import Row, UnusableRow, is_empty, listed

PLAIN = "{question}"
MATH = "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{}."

_ROLES = ("system", "user", "assistant", "tool")
_SHAREGPT = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant"}
_TEXT_KEYS = ("text", "value", "aliases")  # of an answer that is an object, as in SQuAD and TriviaQA
_GRADERS_OF_TEXT = ("exact", "contains", "regex", "choice")  # to which 3.0 is not 3


def free_form(
    row: Row, *, question: str, answer: str, grader: str = "number", prompt: str = PLAIN, columns: Iterable[str] = ()
) -> Item:
    """Returns the item of a row with a question in one column and its answer in another.

    ``columns`` are those that the prompt names. Rows that differ in them ask different questions.
    """
    asked, more = row.joined(question, key="question"), others(row, columns)
    text = filled_in(prompt, {**more, "question": asked})
    return user_item(row, text, target_of(row, answer, grader), id=row.id, question="\n".join([asked, *more.values()]))


def target_of(row: Row, answer: str, grader: str) -> str:
    """Returns the target of a row: the answer's text, or several of which any is right. Raises ``UnusableRow``.

    Several are a list, a list of texts that is written as JSON, or an object with ``text``, ``value`` or ``aliases``.
    """
    cell = row.cell(answer, key="answer")
    if isinstance(cell, str) and _holds_texts(listed(cell), grader):
        cell = listed(cell)
    if isinstance(cell, dict):
        found = [cell[key] for key in _TEXT_KEYS if key in cell and not is_empty(cell[key])]
        if not found:
            names = one_line(", ".join(map(str, cell)))
            example = f"{answer}.{next(iter(cell), 'KEY')}"
            detail = f", seen {names}; name a field of it, as in answer: {example}"
            raise UnusableRow(row, f"{answer!r} must be a text or a number", detail)
        cell = [text for each in found for text in (each if isinstance(each, list | tuple) else [each])]
    if not isinstance(cell, list | tuple):
        return _answer_text(row, cell, answer, grader)
    texts = [_answer_text(row, each, answer, grader) for each in cell if not is_empty(each)]
    if not texts:
        raise UnusableRow(row, f"{answer!r} is empty", "")
    return any_of(texts)


def _holds_texts(value: object, grader: str) -> bool:
    """Returns whether a list in a text is a list of answers: of texts, since ``[1, 2]`` may be one answer."""
    if not isinstance(value, list) or not value or grader not in ("exact", "contains", "choice", "math", "number"):
        return False
    return all(isinstance(each, str) or (grader == "number" and isinstance(each, int | float)) for each in value)


def _answer_text(row: Row, value: object, answer: str, grader: str) -> str:
    if isinstance(value, float) and value.is_integer() and grader in _GRADERS_OF_TEXT:
        value = int(value)  # integers become floats in a column with an empty cell
    return row.as_text(value, repr(answer))


def conversation(row: Row, *, messages: str, answer: str, grader: str = "number") -> Item:
    """Returns the item of a row with chat messages in one column and the answer in another.

    A last turn of the assistant is left to the model; without an answer column it is the answer. Raises
    ``UnusableRow``.
    """
    turns = [_message(each, row, messages) for each in row.items(messages, key="messages")]
    last = turns.pop()["content"] if turns[-1]["role"] == "assistant" else None
    if not turns or turns[-1]["role"] == "assistant":
        raise UnusableRow(row, f"{messages!r} must end with a question, or with one answer to it", "")
    if last is None or row.has(answer):
        target = target_of(row, answer, grader)
    else:
        target = last.rpartition("</think>")[2].strip()
    question = "\n".join(f"{each['role']}: {each['content']}" for each in turns)
    return Item(Sample(row.id, tuple(turns), target), row.where, question)


def _message(plain: object, row: Row, column: str) -> dict[str, str]:
    """Returns a message: ``role`` and ``content``, or ShareGPT's ``from`` and ``value``."""
    given = plain if isinstance(plain, dict) else {}
    role, content = given.get("role", given.get("from")), given.get("content", given.get("value"))
    role = _SHAREGPT.get(str(role), role)
    if role not in _ROLES:
        known = f"{column!r} must hold messages with 'role' ({', '.join(_ROLES)}) and 'content'"
        raise UnusableRow(row, known, f", seen {str(plain)[:60]!r}")
    if isinstance(content, list) and content and all(isinstance(p, dict) and p.get("type") == "text" for p in content):
        content = "\n".join(row.as_text(part.get("text"), "a message's 'text'") for part in content)
    text = row.as_text(content, "a message's 'content'")
    if not text.strip():
        raise UnusableRow(row, "a message's 'content' is empty", "")
    return {"role": str(role), "content": text}
