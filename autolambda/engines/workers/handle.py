"""A worker as the driver knows it: a Ray actor, the piece it was given, and whether it answers.

One question at a time is under way to each: for an open engine, or for news of its piece.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autolambda.engines.base import Fingerprint
from autolambda.engines.workers.batches import News, Rows, WorkBatch
from autolambda.engines.workers.worker import Failure, Opened
from autolambda.errors import EngineError, one_line
from autolambda.merging.method import Method

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Lost:
    """What a worker was asked for will not come; ``for_ever`` where Ray does not start it again."""

    reason: str
    for_ever: bool


class WorkerHandle:
    """One of several workers."""

    def __init__(self, number: int, actor: Any) -> None:
        self.actor = actor
        self.name = f"worker {number + 1}"
        self.host = ""
        self.is_open = self.is_silent = self.is_gone = False
        self.piece: WorkBatch | None = None
        self.rows: Rows | None = None
        self._num_known = 0
        self._is_aborted = False
        self._question: Any = None
        self._asked_at = 0.0

    @property
    def in_words(self) -> str:
        """Its name and where it runs."""
        return f"{self.name} on {self.host}"

    @property
    def is_usable(self) -> bool:
        return self.is_open and not self.is_silent and not self.is_gone

    @property
    def silent_seconds(self) -> float:
        """How long an answer about its piece has been due."""
        return time.monotonic() - self._asked_at if self.is_open and self._question is not None else 0.0

    def open(self) -> None:
        """Asks for an open engine, as often as it is started again."""
        self.is_open = False
        self._ask(self.actor.open.options(max_task_retries=-1).remote())

    def give(self, piece: WorkBatch, rows: Rows) -> None:
        """Hands a piece over and asks for news of it."""
        self.piece, self.rows, self._num_known, self._is_aborted = piece, rows, 0, False
        self._ask(self.actor.work.remote(piece))

    def follow(self) -> None:
        """Asks for more news of its piece."""
        assert self.piece is not None
        self._ask(self.actor.news.remote(self.piece.number, self._num_known))

    def abort(self) -> None:
        """Has its piece ended as it is."""
        if self.piece is not None and not self._is_aborted:
            self._is_aborted = True
            self.actor.abort.remote(self.piece.number)

    def let_go(self) -> None:
        """It has no piece any more."""
        self.piece = self.rows = None

    def fingerprint(self, schedule: Method) -> Fingerprint:
        """That of its weights under a schedule. Raises ``EngineError``."""
        import ray

        try:
            found: Fingerprint = ray.get(self.actor.fingerprint.remote(schedule))
        except ray.exceptions.RayError as error:
            raise EngineError(f"{self.in_words}: {_reason(error)}") from error
        return found

    def answer(self) -> Opened | Failure | News | Lost:
        """What it answers to the question that is under way."""
        import ray

        question, self._question = self._question, None
        try:
            answer: Opened | Failure | News = ray.get(question)
        except ray.exceptions.RayError as error:
            return Lost(_reason(error), isinstance(error, ray.exceptions.ActorDiedError))
        if isinstance(answer, News):
            self._num_known += len(answer.finished)
        return answer

    def _ask(self, question: Any) -> None:
        self._question, self._asked_at = question, time.monotonic()


def answered(members: Sequence[WorkerHandle]) -> list[WorkerHandle]:
    """Those that have answered; waits a moment for the first one."""
    import ray

    asked = {member._question: member for member in members if member._question is not None}
    if not asked:
        return []
    ready, _ = ray.wait(list(asked), num_returns=1, timeout=_POLL_SECONDS)
    if ready:
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=0)
    return [asked[question] for question in ready]


def close(members: Sequence[WorkerHandle], *, seconds: float) -> None:
    """Has all that answer free their engines, then ends all for good."""
    import ray

    closing = [member.actor.close.remote() for member in members if member.is_usable]
    if closing:
        ray.wait(closing, num_returns=len(closing), timeout=seconds)
    for member in members:
        ray.kill(member.actor)


def _reason(error: Exception) -> str:
    """What Ray says, without its advice: the class says most of it."""
    import ray

    words = {
        ray.exceptions.ActorUnavailableError: "its process or its machine is gone",
        ray.exceptions.ActorDiedError: "its process ended for good",
        ray.exceptions.OutOfMemoryError: "its machine was out of memory",
        ray.exceptions.ObjectLostError: "its answer was lost with its machine",
    }
    found = next((text for kind, text in words.items() if isinstance(error, kind)), None)
    return found or f"{type(error).__name__}: {one_line(error)}"
