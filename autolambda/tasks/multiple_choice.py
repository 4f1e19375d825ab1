"""The multiple-choice pattern: a question, a list of options, and the right one by its letter or its index from 0.

The prompt asks for a last line ``ANSWER: $LETTER``, in the words of OpenAI's simple-evals.
"""

from __future__ import annotations

from string import ascii_uppercase

from autolambda.errors import TaskError, in_short
from autolambda.tasks.base import Item, user_item
from autolambda.tasks.free_form import difficulty_of, filled_in
from autolambda.tasks.rows import Row, as_text

CHOICES = (
    "Answer the following multiple choice question. The last line of your response should be of the following format: "
    "'ANSWER: $LETTER' (without quotes) where LETTER is one of {letters}. Think step by step before answering."
    "\n\n{question}\n\n{choices}"
)


def multiple_choice(row: Row, *, question: str, choices: str, answer: str, prompt: str = CHOICES) -> Item:
    """Returns the item of a row with options in one column and the letter or index of the right one in another."""
    asked = row.filled(question, key="question")
    options = [as_text(each, f"{row.where}: an option in {choices!r}") for each in row.items(choices, key="choices")]
    if not 2 <= len(options) <= len(ascii_uppercase) or len(set(options)) < len(options):
        raise TaskError(f"{row.where}: {choices!r} must hold 2 to 26 different options, seen {str(options)[:60]}")
    right = _option_index(row.cell(answer, key="answer"), len(options))
    if right is None:
        letters = ascii_uppercase[: len(options)]
        raise TaskError(
            f"{row.where}: {answer!r} must be the letter of an option ({letters[0]} to {letters[-1]}) or its index "
            f"from 0, seen {in_short(row.cells[answer])}"
        )
    return choice_item(row, asked, options, right, id=row.id, prompt=prompt, metadata=difficulty_of(row))


def choice_item(
    row: Row,
    question: str,
    options: list[str],
    right: int,
    *,
    id: str,
    prompt: str = CHOICES,
    metadata: dict[str, object] | None = None,
) -> Item:
    """Returns an item with lettered options in the given order."""
    letters = ascii_uppercase[: len(options)]
    listed = "\n".join(f"{letter}) {option}" for letter, option in zip(letters, options, strict=True))
    asked = filled_in(prompt, question=question, choices=listed, letters=letters)
    bare = "\n".join([question, *sorted(options)])  # options in another order make the same question
    return user_item(row, asked, letters[right], id=id, question=bare, metadata=metadata)


def _option_index(answer: object, num_options: int) -> int | None:
    """Returns the index of the right option; ``None`` if the answer names no option."""
    text = str(answer).strip()
    if isinstance(answer, float) and answer.is_integer():  # integers become floats in a column with an empty cell
        text = str(int(answer))
    if isinstance(answer, bool) or not text.isascii():
        return None
    index = int(text) if text.isdigit() and len(text) < 3 else ascii_uppercase.find(text.upper())
    return index if text and (text.isdigit() or len(text) == 1) and 0 <= index < num_options else None
