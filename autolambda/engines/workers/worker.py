"""A worker: one engine in a thread of its own, which is asked for pieces from outside and tells how far it is.

Whoever asks for news names how much is known already, so that an answer that was lost on its way is given again. It
answers at least every ``NEWS_SECONDS``, however long the engine computes: who does not answer is not running.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from autolambda.engines.base import Engine, Fingerprint, Progress
from autolambda.engines.workers.batches import Finished, News, State, WorkBatch
from autolambda.errors import AutolambdaError, one_line
from autolambda.merging.method import Method

logger = logging.getLogger(__name__)

NEWS_SECONDS = 0.5  # between two answers where nothing ends
REST_SECONDS = 0.1  # between two answers where rows end all the time

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class WorkerAddress:
    """Where a worker runs."""

    host: str
    pid: int


@dataclass(frozen=True)
class Opened:
    """What there is to know of a worker's engine."""

    in_words: str
    streams: bool


@dataclass(frozen=True)
class Failure:
    """Why a worker has no engine; ``is_input``: the user can put it right."""

    reason: str
    is_input: bool


class Worker:
    """Holds an engine, opened when first asked for. All methods but the engine's own work answer at once or soon."""

    def __init__(self, opening: Callable[[], Engine]) -> None:
        self._opening = opening
        self._engine: Engine | None = None
        self._schedule: Method | None = None
        self._task: _Task | None = None
        self._changed = threading.Condition()
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True, name="engine")
        self._thread.start()

    def place(self) -> WorkerAddress:
        """Where it runs."""
        return WorkerAddress(socket.gethostname(), os.getpid())

    def open(self) -> Opened | Failure:
        """Opens the engine, unless it is open; what was running for somebody who lost the thread is dropped."""
        self.abort()
        try:
            engine = self._in_thread(self._open)
        except Exception as error:  # whatever it is, whoever asks is to know it
            logger.exception("the engine cannot be opened")
            return Failure(_reason(error), isinstance(error, AutolambdaError) and error.exit_code == 2)
        return Opened(engine.in_words, engine.streams)

    def work(self, piece: WorkBatch) -> News:
        """Begins a piece; the first news of it."""
        with self._changed:
            task = self._task = _Task(piece)
        self._orders.put(lambda: self._do(task))
        return self.news(piece.number, 0)

    def news(self, number: int, num_known: int) -> News:
        """What is new of a piece beyond the first ``num_known`` of its finished rows."""
        with self._changed:
            task = self._task
            if task is None or task.piece.number != number:
                return News((), (), "failed", "it was started again")
            self._changed.wait_for(lambda: task.is_over or len(task.finished) > num_known, timeout=NEWS_SECONDS)
            rest = task.told_at + REST_SECONDS - time.monotonic()
            self._changed.wait_for(lambda: task.is_over, timeout=max(rest, 0.0))
            task.told_at = time.monotonic()
            return task.news(num_known)

    def abort(self, number: int | None = None) -> None:
        """Ends a piece as it is, or (``None``) whatever runs."""
        with self._changed:
            if self._task and number in (None, self._task.piece.number):
                self._task.is_aborted = True

    def fingerprint(self, schedule: Method) -> Fingerprint:
        """The engine's, under a schedule."""

        def read() -> Fingerprint:
            return self._under(schedule).fingerprint()

        return self._in_thread(read)

    def close(self) -> None:
        """Ends what runs and frees the engine; the worker cannot be used afterwards."""
        self.abort()
        self._orders.put(self._close)
        self._orders.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (order := self._orders.get()) is not None:
            order()

    def _in_thread(self, ask: Callable[[], Answer]) -> Answer:
        """What the engine's thread answers: engines may hold on to the thread that opened them."""
        answer: Future[Answer] = Future()

        def run() -> None:
            try:
                answer.set_result(ask())
            except BaseException as error:
                answer.set_exception(error)

        self._orders.put(run)
        return answer.result()

    def _open(self) -> Engine:
        if self._engine is None:
            self._engine, self._schedule = self._opening(), None
        return self._engine

    def _close(self) -> None:
        engine, self._engine = self._engine, None
        if engine:
            engine.close()

    def _under(self, schedule: Method) -> Engine:
        """The engine with this schedule merged."""
        engine = self._open()
        if schedule != self._schedule:
            self._schedule = None  # until it is merged
            engine.set_merge(schedule)
            self._schedule = schedule
        return engine

    def _do(self, task: _Task) -> None:
        """Generates a piece. An engine that failed is closed; the next piece opens another."""
        try:
            engine = self._under(task.piece.schedule)

            def watch(progress: Progress) -> bool:
                with self._changed:
                    task.follow(progress, with_tokens=not engine.streams)
                    self._changed.notify_all()
                    return not task.is_aborted

            piece, is_wanted = task.piece, not task.is_aborted
            responses = engine.generate(piece.prompts, piece.sampling, watch=watch) if is_wanted else []
            with self._changed:
                task.end(Progress([each.num_tokens for each in responses], responses), with_tokens=not engine.streams)
                self._changed.notify_all()
        except Exception as error:  # whatever it is, whoever asked for the piece is to know it
            logger.exception("a piece failed")
            with self._changed:
                task.error = _reason(error)
                self._changed.notify_all()
            self._close()


class _Task:
    """A piece under way: read and written under the worker's lock."""

    def __init__(self, piece: WorkBatch) -> None:
        self.piece = piece
        self.finished: list[Finished] = []
        self.is_aborted = False
        self.error = ""
        self.told_at = time.monotonic()
        self._is_done = False
        self._num_tokens: Sequence[int] = ()
        self._tokens: Sequence[Sequence[int]] = ()
        self._ended: set[int] = set()

    @property
    def is_over(self) -> bool:
        return self._is_done or bool(self.error)

    def follow(self, progress: Progress, *, with_tokens: bool) -> None:
        """Takes in how far the engine is; with the tokens of the rows that have ended."""
        self._num_tokens = array("q", progress.num_tokens)
        self._tokens = progress.tokens or self._tokens
        for place, response in enumerate(progress.responses):
            if response is not None and place not in self._ended:
                self._ended.add(place)
                kept = array("i", self._tokens[place]) if with_tokens and self._tokens else None
                self.finished.append(Finished(place, response, kept))

    def end(self, progress: Progress, *, with_tokens: bool) -> None:
        """Takes in the last rows, those that were aborted too."""
        self.follow(progress, with_tokens=with_tokens)
        self._is_done = True

    def news(self, num_known: int) -> News:
        """What is new beyond the first ``num_known`` finished rows."""
        state: State = "failed" if self.error else "done" if self._is_done else "running"
        return News(self._num_tokens, self.finished[num_known:], state, self.error)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, AutolambdaError) else f"{type(error).__name__}: {one_line(error)}"
