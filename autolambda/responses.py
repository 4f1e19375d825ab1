"""The values that pass from a task through an engine and a grader into the database."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

Key = tuple[str, str, int]  # task, sample id, repeat: unique in an evaluation
FinishReason = Literal["stop", "length", "aborted"]


class Grade(StrEnum):
    """The four outcomes of a response. They are recorded apart and never merged silently."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSED = "unparsed"
    TRUNCATED = "truncated"


@dataclass(frozen=True)
class Sample:
    """One prompt of a task: chat messages ``{"role", "content"}`` and the target for its grader."""

    id: str
    messages: tuple[Mapping[str, str], ...]
    target: str
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """One generation.

    ``num_tokens`` counts generated tokens, with thinking and the end-of-sequence token: both are paid for.
    ``finish_reason`` is ``stop`` (an end token or stop string), ``length`` (cut at ``max_tokens``) or ``aborted``. An
    aborted response was cut because its evaluation took too many tokens. Its ``num_tokens`` is a lower bound, and it is
    not graded.
    """

    text: str
    num_tokens: int
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)  # a study has very many
class Graded:
    """A response with its key in the evaluation and its grade.

    ``answer`` is what the grader found, ``None`` if it found none. ``thought`` says whether the text holds the closing
    think tag.
    """

    task: str
    sample_id: str
    repeat: int
    response: Response
    grade: Grade
    answer: str | None
    thought: bool

    @property
    def key(self) -> Key:
        return (self.task, self.sample_id, self.repeat)


def is_aborted(graded: Sequence[Graded]) -> bool:
    """Returns whether an evaluation was aborted. Its tokens are then a lower bound."""
    return any(each.response.finish_reason == "aborted" for each in graded)


def sha256_of(*parts: object) -> bytes:
    """Returns the SHA-256 digest (32 bytes) of the parts as text, for keys and seeds."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
