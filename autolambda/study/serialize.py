"""Converts responses and configs to columns of the database, and back."""

from __future__ import annotations

import zlib
from typing import Any

from autolambda.errors import StorageError, StudyError, in_short, one_line
from autolambda.files import load_json
from autolambda.responses import Grade, Graded, Response

OUTCOME = ("task", "sample_id", "repeat", "num_tokens", "finish_reason", "grade", "thought", "answer")
"""The columns of a response except its text, in the order in which ``graded_from`` takes them."""

_GRADES = {grade.value: grade for grade in Grade}


def row_of(evaluation: int, graded: Graded) -> dict[str, Any]:
    """Returns the columns of a response that belongs to the evaluation with this id."""
    return {
        "evaluation": evaluation,
        "task": graded.task,
        "sample_id": graded.sample_id,
        "repeat": graded.repeat,
        "text": _packed(graded.response.text),
        "num_tokens": graded.response.num_tokens,
        "finish_reason": graded.response.finish_reason,
        "grade": graded.grade.value,
        "answer": None if graded.answer is None else _packed(graded.answer),
        "thought": graded.thought,
    }


def graded_from(row: Any) -> Graded:
    """Returns the response of a row with the columns ``OUTCOME`` and, if it was read, the text.

    Takes columns by position for speed, because a study has 100,000 rows. Raises ``StorageError`` for a damaged text.
    """
    task, sample_id, repeat, num_tokens, finish_reason, grade, thought, answer, *text = row
    response = Response(_unpacked(text[0]) if text else "", num_tokens, finish_reason)
    answer = None if answer is None else _unpacked(answer)
    return Graded(task, sample_id, repeat, response, _GRADES[grade], answer, thought)


def object_from(text: str, study: str) -> dict[str, Any]:
    """Returns a stored JSON object. Raises ``StudyError`` for anything else, which is never stored."""
    try:
        value = load_json(text)
    except ValueError as error:
        raise StudyError(
            f"study '{study}': its stored config is damaged ({one_line(error)}); restore a copy"
        ) from error
    if not isinstance(value, dict):
        raise StudyError(f"study '{study}': its config is damaged ({in_short(value)}); restore a copy")
    return value


def _packed(text: str) -> bytes:
    """Compresses a text as bytes, because a model's text may hold lone surrogates, which no text column accepts."""
    return zlib.compress(text.encode("utf-8", "surrogatepass"))


def _unpacked(data: bytes) -> str:
    try:
        return zlib.decompress(data).decode("utf-8", "surrogatepass")
    except (zlib.error, ValueError) as error:
        raise StorageError(f"the study's database holds a damaged response ({error}); restore a copy") from error
