"""Hands the batches of a call to idle workers, and takes in their updates.

A batch ends when its worker is done, fails, is lost, or does not answer. Unfinished prompts then wait for the next idle
worker. Ray restarts lost workers.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from autolambda.engines.base import Fingerprint
from autolambda.engines.workers.batches import CallState, Update, cut
from autolambda.engines.workers.handle import WorkerHandle, replied
from autolambda.engines.workers.worker import Opened
from autolambda.errors import EngineError
from autolambda.merging.method import Method

SILENT_SECONDS = 10.0  # without an update, after which a worker is given up
GONE_SECONDS = 300.0  # without any worker that answers, after which the engine has failed
MAX_DEATHS = 3  # workers that fail over one prompt before the engine fails

OnNote = Callable[[str], None]


class Dispatcher:
    """Shares one call at a time among workers. Reports events of workers to ``on_note``."""

    def __init__(self, workers: Sequence[WorkerHandle], *, batch_size: int | None, on_note: OnNote) -> None:
        self.workers, self._batch_size, self._on_note = workers, batch_size, on_note
        self._call: CallState | None = None
        self._waiting: deque[tuple[int, ...]] = deque()  # the places of each batch
        self._num_batches = 0
        self._answered_at = time.monotonic()

    @property
    def num_usable(self) -> int:
        """The number of workers that answer."""
        return sum(worker.is_usable for worker in self.workers)

    def start(self, call: CallState) -> None:
        """Stops the previous call and starts this one."""
        self.stop()
        self._call, self._answered_at = call, time.monotonic()
        self._enqueue(range(len(call.prompts)), num_workers=self.num_usable)

    def stop(self) -> None:
        """Aborts all running batches and drops the waiting ones."""
        for worker in self.workers:
            worker.abort()
        self._call = None
        self._waiting.clear()

    def is_running(self, call: CallState) -> bool:
        """Whether a worker that answers still has a batch of the call."""
        return any(worker.call is call and worker.is_usable for worker in self.workers)

    def fingerprints(self, method: Method) -> list[Fingerprint]:
        """Returns the fingerprint of every answering worker under a merge. Raises ``EngineError``."""
        return [worker.fingerprint(method) for worker in self.workers if worker.is_usable]

    def step(self) -> None:
        """Hands out waiting batches, and takes in the answers of the next half second.

        Raises ``EngineError`` if ``MAX_DEATHS`` workers failed over one prompt, or if no worker answers any more.
        """
        for worker in self.workers:
            if self._call and self._waiting and worker.is_idle:
                self._num_batches += 1
                worker.give(self._call.batch(self._num_batches, self._waiting.popleft()), self._call)
        for worker in replied(self.workers):
            self._receive(worker)
        for worker in self.workers:
            if not worker.is_silent and worker.silent_seconds > SILENT_SECONDS:
                self._on_note(f"{worker.in_words} does not answer; others do its work")
                worker.is_silent = True
                self._do_again(worker)
        self._check_answering()

    def _receive(self, worker: WorkerHandle) -> None:
        reply = worker.receive()
        if worker.is_silent:
            worker.is_silent = False
            self._on_note(f"{worker.in_words} answers again")
        if isinstance(reply, Opened):
            worker.is_open = True
        elif isinstance(reply, Update):
            assert worker.call and worker.batch
            worker.call.take(worker.batch, reply)
            if reply.is_last:
                self._end_batch(worker)
            elif not worker.call.unfinished(worker.batch):
                worker.abort()  # others did its work
        elif reply.is_lost:
            self._on_note(f"{worker.in_words} is lost: {reply.reason}")
            worker.is_gone = reply.is_final
            self._end_batch(worker, error=reply.reason)
            if not reply.is_final:
                worker.open()
        elif worker.is_open:
            self._end_batch(worker, error=reply.reason)
        else:
            worker.is_gone = True
            self._on_note(f"{worker.in_words} is left out: {reply.reason}")

    def _end_batch(self, worker: WorkerHandle, *, error: str = "") -> None:
        """Ends a worker's batch; ``error`` is the reason if it failed."""
        if error and worker.batch and worker.call and worker.call is self._call:
            num_deaths = worker.call.count_death(worker.batch)
            if num_deaths >= MAX_DEATHS:
                raise EngineError(
                    f"{num_deaths} workers failed over the same prompts; the last, {worker.name}: {error}"
                )
        self._do_again(worker)
        worker.batch = worker.call = None

    def _do_again(self, worker: WorkerHandle) -> None:
        """Queues the unfinished prompts of a worker's batch."""
        if worker.batch and worker.call and worker.call is self._call:
            num_idle = sum(each.is_idle for each in self.workers)
            self._enqueue(worker.call.release(worker.batch), num_workers=num_idle)

    def _enqueue(self, places: Sequence[int], *, num_workers: int) -> None:
        """Puts places at the front of the queue, cut into batches for ``num_workers`` workers."""
        batches = cut(places, num_workers=max(num_workers, 1), batch_size=self._batch_size)
        self._waiting.extendleft(reversed(batches))

    def _check_answering(self) -> None:
        """Raises ``EngineError`` if no worker is left, or if none has answered for ``GONE_SECONDS``."""
        if self.num_usable:
            self._answered_at = time.monotonic()
        elif all(worker.is_gone for worker in self.workers):
            raise EngineError("all workers are lost, and Ray does not start them again")
        elif time.monotonic() - self._answered_at > GONE_SECONDS:
            raise EngineError(f"none of the {len(self.workers)} workers has answered for {GONE_SECONDS:g} seconds")
