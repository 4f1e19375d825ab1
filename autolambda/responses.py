"""The values that pass from a task through an engine and a grader into the database."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

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


@dataclass(frozen=True)
class Capped:
    """What an evaluation with a cap on thinking measures: ``tokens``, then ``closing`` as ``num_forced`` tokens.

    ``of`` names the evaluation without the cap: ``thinking`` for the parent under its own template, or the key of a
    schedule. The cap is measured on its first ``num_responses``. Only the responses that it changes are stored.
    """

    of: str
    phase: Literal["search", "confirm"]
    tokens: int
    closing: str
    num_forced: int
    num_responses: int

    @property
    def key(self) -> str:
        """The key of the evaluation."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_key(cls, key: str) -> Capped:
        """Returns what ``key`` was made of."""
        plain: dict[str, Any] = json.loads(key)
        return cls(**plain)

    def num_new(self, num_tokens: int) -> int:
        """Returns how many tokens of a stored response were generated for it: those of its answer."""
        return max(num_tokens - self.tokens - self.num_forced, 0)


def with_cut(whole: Sequence[Graded], cut: Sequence[Graded]) -> list[Graded]:
    """Returns the responses with a cap: those that it changes, ``cut``, in the place of the whole ones."""
    changed = {each.key: each for each in cut}
    return [changed.get(each.key, each) for each in whole]


def is_aborted(graded: Sequence[Graded]) -> bool:
    """Returns whether an evaluation was aborted. Its tokens are then a lower bound."""
    return any(each.response.finish_reason == "aborted" for each in graded)


def sha256_of(*parts: object) -> bytes:
    """Returns the SHA-256 digest (32 bytes) of the parts as text, for keys and seeds."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
