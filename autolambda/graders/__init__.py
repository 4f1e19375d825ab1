"""Graders: the text of a response and the target -> what was read and whether it is right. One file a grader.

The answer is read after the last closing think tag; text without the tag is graded whole. A grader reads nothing
(``answer`` is ``None``) rather than guess.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autolambda.graders import contains, exact, number
from autolambda.graders.reading import Reading
from autolambda.responses import Grade, Response

Grader = Callable[[str, str], Reading]

GRADERS: Mapping[str, Grader] = {"exact": exact.read, "number": number.read, "contains": contains.read}


@dataclass(frozen=True)
class Mark:
    """A grade with the answer that it was given for."""

    grade: Grade
    answer: str | None


def grade(response: Response, target: str, *, grader: Grader, think_end: str) -> Mark:
    """The grade of a response: a cut one is ``truncated`` whatever it holds, one without an answer ``unparsed``."""
    reading = grader(response.text.rpartition(think_end)[2], target)
    if response.finish_reason == "length":
        return Mark(Grade.TRUNCATED, reading.answer)
    if reading.answer is None:
        return Mark(Grade.UNPARSED, None)
    return Mark(Grade.CORRECT if reading.correct else Grade.WRONG, reading.answer)
