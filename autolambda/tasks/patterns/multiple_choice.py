"""The multiple-choice pattern: a question, its options, and the right one.

Options are a list, a list of objects with ``text`` and ``label``, one object with these two lists, an object with an
option for each letter, or several columns (``A, B, C, D``). The right one is named by its label, its letter, its index
from 0, a list with 1 for it and 0 for the others, or its text, also without a label in front (``A) 21``). The prompt
asks for a last line ``ANSWER: $LETTER``, in the words of OpenAI's simple-evals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from autolambda.errors import TaskError, in_short
from autolambda.graders.base import any_of
from autolambda.tasks.base import Item, user_item
from autolambda.tasks.patterns.prompt import filled_in, others
from autolambda.tasks.rows import Row, UnusableRow, is_empty, listed, names_in

CHOICES = (
    "Answer the following multiple choice question. The last line of your response should be of the following format: "
    "'ANSWER: $LETTER' (without quotes) where LETTER is one of {letters}. Think step by step before answering."
    "\n\n{question}\n\n{choices}"
)
_MARKED = re.compile(r"\s*\(?([A-Z])\s?[).:]\s*(\S.*)", re.DOTALL)
_MANY = 20  # answers of which one would be 0
_MARKS = " \t()[]{}.:*"


@dataclass(frozen=True)
class Options:
    """The options of a row as they stand in its cell, their texts, and their labels if they have any."""

    cells: list[object]
    texts: list[str]
    labels: list[str]


def multiple_choice(
    row: Row, *, question: str, choices: str, answer: str, prompt: str = CHOICES, columns: Iterable[str] = ()
) -> Item:
    """Returns the item of a row with options in one or several columns and the right one in another.

    ``columns`` are those that the prompt names. Raises ``UnusableRow``.
    """
    asked, options = row.joined(question, key="question"), options_of(row, choices)
    right = _right_options(row, answer, options)
    return choice_item(row, asked, options.texts, *right, id=row.id, prompt=prompt, more=others(row, columns))


def choice_item(
    row: Row,
    question: str,
    options: list[str],
    *right: int,
    id: str,
    prompt: str = CHOICES,
    more: Mapping[str, str] | None = None,
) -> Item:
    """Returns an item with lettered options in the given order. ``more`` are the texts of columns in the prompt."""
    letters = ascii_uppercase[: len(options)]
    listing = "\n".join(f"{letter}) {option}" for letter, option in zip(letters, options, strict=True))
    asked = filled_in(prompt, {**(more or {}), "question": question, "choices": listing, "letters": letters})
    # options in another order make the same question
    bare = "\n".join([question, *(more or {}).values(), *sorted(options)])
    return user_item(row, asked, any_of([letters[index] for index in right]), id=id, question=bare)


def options_of(row: Row, choices: str) -> Options:
    """Returns the options of a row. Raises ``UnusableRow`` unless they are 2 to 26 different texts."""
    names = names_in(choices)
    labels: list[object] = []
    if len(names) > 1 and choices not in row.cells:
        cells = [row.cell(name, key="choices") for name in names]
        while cells and is_empty(cells[-1]):
            cells.pop()
    else:
        cell = listed(row.cell(choices, key="choices"))
        if not isinstance(cell, dict):
            cells = row.items(choices, key="choices")
        elif isinstance(cell.get("text"), list | tuple):
            cells, labels = list(cell["text"]), list(cell.get("label") or ())
        else:  # a table has an empty cell for each letter that a row does not use
            labels = [key for key, each in cell.items() if not is_empty(each)]
            cells = [cell[key] for key in labels]
    objects = [each for each in cells if isinstance(each, dict) and "text" in each]
    if cells and len(objects) == len(cells):
        labels, cells = [each["label"] for each in objects if "label" in each], [each["text"] for each in objects]
    texts = [row.as_text(each, f"an option in {choices!r}") for each in cells]
    if not 2 <= len(texts) <= len(ascii_uppercase) or len(set(texts)) < len(texts):
        raise UnusableRow(row, f"{choices!r} must hold 2 to 26 different options", f", seen {str(texts)[:60]}")
    return Options(cells, texts, [str(each).strip() for each in labels] if len(labels) == len(texts) else [])


def _right_options(row: Row, answer: str, options: Options) -> list[int]:
    """Returns the indices of the right options, usually one. Raises ``UnusableRow``."""
    cell = row.cell(answer, key="answer")
    given = listed(cell)
    if isinstance(given, list | tuple) and len(given) == len(options.texts) and all(_is_flag(each) for each in given):
        given = [index for index, flag in enumerate(given) if flag]
    found = [_index(row, each, answer, options) for each in (given if isinstance(given, list | tuple) else [cell])]
    if not found or None in found:
        last = ascii_uppercase[len(options.texts) - 1]
        kind = f"{answer!r} must be the letter of an option (A to {last}) or its index from 0, or its text"
        raise UnusableRow(row, kind, f", seen {in_short(cell)}")
    return [index for index in found if index is not None]


def _is_flag(value: object) -> bool:
    """Returns whether a value marks an option as right or wrong, as in TruthfulQA: a list has one for each option."""
    return isinstance(value, int) and value in (0, 1)


def _index(row: Row, answer: object, name: str, options: Options) -> int | None:
    """Returns the index of the option that an answer names; ``None`` if it names none.

    Raises ``UnusableRow`` if it is the letter or the index of one option and the text of another.
    """
    num = len(options.texts)
    if is_empty(answer) or isinstance(answer, list | tuple | dict):
        return None
    if isinstance(answer, float) and answer.is_integer():  # integers become floats in a column with an empty cell
        answer = int(answer)
    text = row.as_text(answer, repr(name)).strip()
    if options.labels.count(text) == 1:
        return options.labels.index(text)
    alike = [i for i, option in enumerate(options.texts) if option.strip() == text]
    alike = alike or [i for i, option in enumerate(options.texts) if option.strip().casefold() == text.casefold()]
    if isinstance(answer, bool) or any(label.isdigit() for label in options.labels):
        return alike[0] if len(alike) == 1 else None
    place = _place(text, num)
    if place is None and not alike:
        bare = text.strip(_MARKS)
        place = _place(bare, num) if bare.isalpha() else None
    marked = [_MARKED.fullmatch(option) for option in options.texts]
    letters = [each[1] for each in marked if each]
    if len(letters) < num or set(letters) != set(ascii_uppercase[:num]):
        letters = []
    if place is None and not alike and letters:
        alike = [i for i, each in enumerate(marked) if each and each[2].strip() == text]
    if place is None:
        return alike[0] if len(alike) == 1 else None
    if letters and text.strip(_MARKS).isalpha() and letters[place] != ascii_uppercase[place]:
        kind = f"{name!r} is the letter of one option and stands before the text of another"
        raise UnusableRow(row, kind, f", seen {in_short(text)}; give the options in the order of their letters")
    is_text = isinstance(answer, str) or (alike and not isinstance(options.cells[alike[0]], str))
    if alike and alike != [place] and is_text:
        kind = f"{name!r} is the letter or the index of one option and the text of another"
        raise UnusableRow(row, kind, f", seen {in_short(text)}")
    return place


def counting_note(rows: Sequence[Row], *, choices: str, answer: str) -> str | None:
    """Returns a note if no answer of many is the index 0. Raises ``TaskError`` if the answers count from 1."""
    indices, past = list[str](), None
    for row in rows:
        try:
            options, cell = options_of(row, choices), row.cell(answer)
            text = row.as_text(int(cell) if isinstance(cell, float) and cell.is_integer() else cell, "").strip()
        except TaskError:
            continue
        if text == "0" or text in (*options.labels, *(option.strip() for option in options.texts)):
            return None
        if text.isascii() and text.isdigit():
            indices.append(text)
            past = row if past is None and int(text) == len(options.texts) else past
    advice = "an index counts from 0, so subtract 1 from each"
    if past is not None and len(set(indices)) > 1:
        raise TaskError(f"{past.place}: {answer!r} seems to count the options from 1 (no answer is 0); {advice}")
    return f"no {answer!r} is 0; if it counts the options from 1: {advice}" if len(indices) >= _MANY else None


def _place(text: str, num_options: int) -> int | None:
    """Returns the index that a letter or a number from 0 stands for; ``None`` for any other text."""
    if not text.isascii():
        return None
    index = int(text) if text.isdigit() and len(text) < 3 else ascii_uppercase.find(text.upper())
    return index if text and (text.isdigit() or len(text) == 1) and 0 <= index < num_options else None
