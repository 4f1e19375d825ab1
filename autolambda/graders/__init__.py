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

Read = Callable[[str, str], Reading]


@dataclass(frozen=True)
class Grader:
    """A way to grade.

    ``read`` takes a text and a target. It may be slow, hang or die on what a model wrote, and then runs in a process of
    its own; ``glance`` tells at once what can be told safely, ``None`` where it takes a ``read``.
    """

    read: Read
    glance: Callable[[str, str], Reading | None]


def _quick(read: Read) -> Grader:
    return Grader(read, read)


GRADERS: Mapping[str, Grader] = {
    "exact": _quick(exact.read),
    "number": _quick(number.read),
    "contains": _quick(contains.read),
}


@dataclass(frozen=True)
class Mark:
    """A grade with the answer that it was given for."""

    grade: Grade
    answer: str | None


def answer_part(response: Response, *, think_end: str) -> str:
    """What a grader reads of a response: the text after the last closing think tag."""
    return response.text.rpartition(think_end)[2]


def mark_of(reading: Reading, response: Response) -> Mark:
    """The grade of a response: a cut one is ``truncated`` whatever it holds, one without an answer ``unparsed``."""
    if response.finish_reason == "length":
        return Mark(Grade.TRUNCATED, reading.answer)
    if reading.answer is None:
        return Mark(Grade.UNPARSED, None)
    return Mark(Grade.CORRECT if reading.correct else Grade.WRONG, reading.answer)


def grade(response: Response, target: str, *, grader: Grader, think_end: str) -> Mark:
    """The grade of a response by ``read`` itself, in this process."""
    return mark_of(grader.read(answer_part(response, think_end=think_end), target), response)
