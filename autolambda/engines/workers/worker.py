"""A worker: one engine in a separate thread, which generates batches and reports its progress.

While a batch runs, an update comes every ``UPDATE_SECONDS``, however long the engine computes. A worker without updates
is therefore not running.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from autolambda.engines.base import Engine, Fingerprint, Progress, Watch
from autolambda.engines.workers.batches import Update, WorkBatch
from autolambda.merging.method import Method

logger = logging.getLogger(__name__)

UPDATE_SECONDS = 0.25


@dataclass(frozen=True)
class WorkerAddress:
    """Where a worker runs."""

    host: str
    pid: int


@dataclass(frozen=True)
class Opened:
    """What the driver needs to know about a worker's engine."""

    in_words: str
    streams: bool


class Worker:
    """Holds an engine, which is opened at its first use and used by one thread only.

    Batch numbers increase, so an abort also covers earlier batches that arrive after it. Errors of the engine are
    raised in the calling process.
    """

    def __init__(self, opening: Callable[[], Engine]) -> None:
        self._opening = opening
        self._engine: Engine | None = None
        self._method: Method | None = None  # what the engine has merged
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._newest = self._aborted = 0  # numbers of batches

    def address(self) -> WorkerAddress:
        """Returns where the worker runs."""
        return WorkerAddress(socket.gethostname(), os.getpid())

    def open(self) -> Opened:
        """Opens the engine, unless it is open. Aborts batches of a driver that lost its connection."""
        self.abort(self._newest)
        engine = self._thread.submit(self._open).result()
        return Opened(engine.in_words, engine.streams)

    def work(self, batch: WorkBatch) -> Iterator[Update]:
        """Generates a batch and yields updates, the first one at once."""
        self._newest = batch.number
        progress = Progress((), ())

        def watch(latest: Progress) -> bool:
            nonlocal progress
            progress = latest
            return batch.number > self._aborted

        end = self._thread.submit(self._generate, batch, watch)
        told: set[int] = set()
        is_last = False
        while not is_last:
            is_last = end.done()
            latest = end.result() if is_last else progress
            finished = {i: each for i, each in enumerate(latest.responses) if each is not None and i not in told}
            told |= finished.keys()
            yield Update(list(latest.num_tokens), finished, is_last)
            wait([end], timeout=UPDATE_SECONDS)

    def abort(self, number: int) -> None:
        """Ends all batches up to this number: responses that still run are ``aborted``."""
        self._aborted = max(number, self._aborted)

    def fingerprint(self, method: Method) -> Fingerprint:
        """Returns the fingerprint of the engine's weights under a merge."""
        return self._thread.submit(lambda: self._merged(method).fingerprint()).result()

    def close(self) -> None:
        """Aborts the running batch and frees the engine; the worker cannot be used afterwards."""
        self.abort(self._newest)
        self._thread.submit(self._close)
        self._thread.shutdown()

    def _open(self) -> Engine:
        if self._engine is None:
            self._engine, self._method = self._opening(), None
        return self._engine

    def _close(self) -> None:
        engine, self._engine = self._engine, None
        if engine:
            engine.close()

    def _merged(self, method: Method) -> Engine:
        engine = self._open()
        if method != self._method:
            self._method = None  # until it is merged
            engine.set_merge(method)
            self._method = method
        return engine

    def _generate(self, batch: WorkBatch, watch: Watch) -> Progress:
        """Generates a batch. An engine that failed is closed; the next batch opens another."""
        try:
            engine = self._merged(batch.method)
            if batch.number <= self._aborted:
                return Progress((), ())
            responses = engine.generate(batch.prompts, batch.sampling, watch=watch)
        except Exception:
            logger.exception("a batch failed")
            self._close()
            raise
        return Progress([response.num_tokens for response in responses], responses)
