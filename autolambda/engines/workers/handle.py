"""A worker as the driver sees it: a Ray actor, the batch it works on, and whether it answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autolambda.engines.base import Fingerprint
from autolambda.engines.workers.batches import CallState, Update, WorkBatch
from autolambda.engines.workers.worker import Opened
from autolambda.errors import AutolambdaError, EngineError, reason
from autolambda.merging.method import Method

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Failure:
    """The reason why a worker will not answer.

    ``is_input``: the user can correct it. ``is_lost``: the worker's process ended, or its answer is lost. ``is_final``:
    Ray does not restart the worker.
    """

    reason: str
    is_input: bool = False
    is_lost: bool = False
    is_final: bool = False


class WorkerHandle:
    """One of several workers. At most one request is pending: to open its engine, or to generate a batch."""

    def __init__(self, number: int, actor: Any) -> None:
        self.actor = actor
        self.name = f"worker {number + 1}"
        self.host = ""
        self.is_open = self.is_silent = self.is_gone = False
        self.batch: WorkBatch | None = None
        self.call: CallState | None = None
        self._pending: Any = None  # an ObjectRef, or a generator of ObjectRefs
        self._heard_at = 0.0

    @property
    def in_words(self) -> str:
        """The worker's name and where it runs."""
        return f"{self.name} on {self.host}"

    @property
    def is_usable(self) -> bool:
        return self.is_open and not self.is_silent and not self.is_gone

    @property
    def is_idle(self) -> bool:
        return self.is_usable and self.batch is None

    @property
    def silent_seconds(self) -> float:
        """The time since the last update, while a request is pending."""
        return time.monotonic() - self._heard_at if self.is_open and self._pending is not None else 0.0

    def open(self) -> None:
        """Asks the worker to open its engine. Ray repeats the request whenever it restarts the worker."""
        self.is_open = False
        self._pending = self.actor.open.options(max_task_retries=-1).remote()

    def give(self, batch: WorkBatch, call: CallState) -> None:
        """Sends the worker a batch of a call."""
        self.batch, self.call, self._heard_at = batch, call, time.monotonic()
        self._pending = self.actor.work.options(num_returns="streaming").remote(batch)

    def abort(self) -> None:
        """Aborts the unfinished responses of the batch."""
        if self.batch:
            self.actor.abort.remote(self.batch.number)

    def fingerprint(self, method: Method) -> Fingerprint:
        """Returns the fingerprint of the worker's weights under a merge. Raises ``EngineError``."""
        import ray

        try:
            found: Fingerprint = ray.get(self.actor.fingerprint.remote(method))
        except ray.exceptions.RayError as error:
            raise EngineError(f"{self.in_words}: {_failure(error).reason}") from error
        return found

    def receive(self) -> Opened | Update | Failure:
        """Returns the answer of a worker that ``replied`` has listed."""
        import ray

        pending, self._pending, self._heard_at = self._pending, None, time.monotonic()
        try:
            is_stream = isinstance(pending, ray.ObjectRefGenerator)
            reply: Opened | Update = ray.get(next(pending) if is_stream else pending)
        except ray.exceptions.RayError as error:
            return _failure(error)
        if isinstance(reply, Update) and not reply.is_last:
            self._pending = pending
        return reply


def replied(workers: Sequence[WorkerHandle]) -> list[WorkerHandle]:
    """Returns the workers that have answered, after waiting a moment for the first one."""
    import ray

    pending = {worker._pending: worker for worker in workers if worker._pending is not None}
    if not pending:
        return []
    ready, _ = ray.wait(list(pending), num_returns=1, timeout=_POLL_SECONDS)
    if ready:
        ready, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0)
    return [pending[ref] for ref in ready]


def close(workers: Sequence[WorkerHandle], *, seconds: float) -> None:
    """Asks every answering worker to free its engine within ``seconds``, then ends all processes."""
    import ray

    closing = [worker.actor.close.remote() for worker in workers if worker.is_usable]
    if closing:
        ray.wait(closing, num_returns=len(closing), timeout=seconds)
    for worker in workers:
        ray.kill(worker.actor)


def _failure(error: Exception) -> Failure:
    """Classifies an error: the engine's own, or one of Ray's by class. Advice in Ray's texts does not apply here."""
    from ray import exceptions

    if isinstance(error, exceptions.RayTaskError):
        cause = error.cause
        if isinstance(cause, AutolambdaError):
            return Failure(str(cause), is_input=cause.exit_code == 2)
        return Failure(reason(cause, with_type=True))
    reasons = {
        exceptions.ActorUnavailableError: "its process or its machine is gone",
        exceptions.ActorDiedError: "its process ended for good",
        exceptions.OutOfMemoryError: "its machine was out of memory",
        exceptions.ObjectLostError: "its answer was lost with its machine",
    }
    found = next((text for kind, text in reasons.items() if isinstance(error, kind)), None)
    return Failure(
        found or reason(error, with_type=True), is_lost=True, is_final=isinstance(error, exceptions.ActorDiedError)
    )
