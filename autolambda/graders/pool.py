"""Pool: worker processes that read texts, each kept by a thread that replaces it when it hangs or dies.

A worker has a pipe of its own and answers in order, so the text that ended it is known and no other text suffers. Some
jobs are sent ahead, lest a worker waits for a busy driver; as many as surely fit into the pipe, lest the driver waits.
"""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from queue import Empty, SimpleQueue

from autolambda.graders.process import HELLO, Outcome, describe, serve

logger = logging.getLogger(__name__)

_NUM_AHEAD = 8  # more would leave other workers without work
_AHEAD_BYTES = 32_768  # of jobs that a worker has not begun; a pipe holds at least 64 KiB
_LOADING_SECONDS = 300.0  # to import packages and load a task
_ENDING_SECONDS = 1.0  # for one that ends by itself
_NUM_STARTS = 2
_NO_START = "the grading process does not start"
_GUARD = "a script that starts a search does so below if __name__ == '__main__':"
_LOCK = threading.Lock()  # a start looks after all children, so that an exit code can get lost between two threads


@dataclass
class _Job:
    payload: bytes
    future: Future[Outcome] = field(default_factory=Future)
    num_deaths: int = 0

    def finish(self, outcome: Outcome) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(outcome)


_Queue = SimpleQueue[_Job | None]


class Pool:
    """Reads texts in ``num_workers`` processes, each text in ``seconds``, each process in ``num_bytes`` of memory."""

    def __init__(self, graders: Sequence[str], *, num_workers: int, seconds: float, num_bytes: int) -> None:
        self._jobs: _Queue = SimpleQueue()
        self._keepers = [_Keeper(self._jobs, graders, seconds=seconds, num_bytes=num_bytes) for _ in range(num_workers)]
        for keeper in self._keepers:
            keeper.start()

    def submit(self, grader: str, text: str, target: str) -> Future[Outcome]:
        """The outcome of a text, in time."""
        job = _Job(pickle.dumps((grader, text, target), protocol=pickle.HIGHEST_PROTOCOL))
        self._jobs.put(job)
        return job.future

    def close(self) -> None:
        """Ends the processes; what is not done by now is cancelled."""
        for keeper in self._keepers:
            keeper.stop()
        for keeper in self._keepers:
            keeper.join()
        while not self._jobs.empty():
            if job := self._jobs.get():
                job.future.cancel()


class _Keeper(threading.Thread):
    """Feeds one worker and replaces it."""

    def __init__(self, jobs: _Queue, graders: Sequence[str], *, seconds: float, num_bytes: int) -> None:
        super().__init__(name="grading", daemon=True)
        self._jobs, self._seconds, self._num_bytes = jobs, seconds, num_bytes
        self._graders = tuple(graders)  # loaded ahead by the first worker; one that replaces it loads what it meets
        self._waiting: deque[_Job] = deque()  # taken from the queue, not sent
        self._sent: deque[_Job] = deque()
        self._since = 0.0  # when the worker could begin with the first of them
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None
        self._closing = False
        self._is_idle = False

    def stop(self) -> None:
        self._closing = True
        self._jobs.put(None)
        if self._process is not None and self._process.pid is not None and not self._is_idle:
            self._process.kill()  # an idle one ends by itself, and leaves nothing behind

    def run(self) -> None:
        trouble = self._start()
        while not self._closing:
            job = self._take()
            if job is not None:
                if trouble:
                    job.finish(Outcome(None, trouble, refused=True))
                elif not self._send(job):
                    trouble = self._replace()
            elif self._sent and not self._receive():
                trouble = self._replace()
        self._end()
        for job in (*self._sent, *self._waiting):
            job.future.cancel()

    def _start(self) -> str:
        """Starts a worker and waits for its hello; why there is none, else an empty text."""
        for _ in range(_NUM_STARTS):
            try:
                self._launch()
            except (OSError, RuntimeError) as error:  # no memory for it, or a script without the guard below
                return f"{_NO_START} ({describe(error)[:100]}); {_GUARD}"
            if self._closing or self._hears(_LOADING_SECONDS) == HELLO:
                return ""
            code = self._end()
        return f"{_NO_START} (exit code {code}); {_GUARD}"

    def _launch(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        arguments = (other, self._graders, self._seconds, self._num_bytes)
        self._process = context.Process(target=serve, args=arguments, daemon=True, name="grading")
        self._graders = ()
        try:
            with _LOCK:
                self._process.start()
        finally:
            other.close()

    def _end(self) -> int | None:
        """Kills the worker if it is alive; its exit code."""
        if self._process is None or self._connection is None:
            return None
        self._connection.close()
        if self._process.pid is None:  # never started
            return None
        with _LOCK:
            self._process.join(_ENDING_SECONDS)
            self._process.kill()
            self._process.join()
            return self._process.exitcode

    def _hears(self, seconds: float) -> object:
        """The worker's next message; ``None`` where it died or said nothing."""
        assert self._connection is not None
        try:
            return self._connection.recv() if self._connection.poll(seconds) else None
        except (EOFError, OSError):
            return None

    def _take(self) -> _Job | None:
        """A job that can be sent now: any if the worker is idle (then it waits for one), else a small one."""
        if len(self._sent) > _NUM_AHEAD:
            return None
        if not self._waiting:
            self._is_idle = not self._sent
            try:
                job = self._jobs.get(block=self._is_idle)
            except Empty:
                return None
            self._is_idle = False
            if job is None or job.future.cancelled():
                return None
            self._waiting.append(job)
        ahead = sum(len(job.payload) for job in self._sent) + len(self._waiting[0].payload)
        return None if self._sent and ahead > _AHEAD_BYTES else self._waiting.popleft()

    def _send(self, job: _Job) -> bool:
        assert self._connection is not None
        if not self._sent:
            self._since = time.monotonic()
        self._sent.append(job)
        try:
            self._connection.send_bytes(job.payload)
        except OSError:
            return False
        return True

    def _receive(self) -> bool:
        """Hands out the next answer; whether there was one in time."""
        outcome = self._hears(self._seconds + _LOADING_SECONDS)
        if not isinstance(outcome, Outcome):
            return False
        self._sent.popleft().finish(outcome)
        self._since = time.monotonic()
        return True

    def _replace(self) -> str:
        """Settles the job that ended the worker, keeps the others, and starts anew; why that failed, if it did."""
        if self._closing:
            return ""
        took = time.monotonic() - self._since
        code = self._end()
        first = self._sent.popleft()
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()
        if took >= self._seconds:
            first.finish(Outcome(None, f"it took longer than {self._seconds:g} s"))
        elif first.num_deaths:
            first.finish(Outcome(None, f"its process died (exit code {code})"))
        else:  # once may be somebody else's doing
            first.num_deaths += 1
            self._waiting.appendleft(first)
        logger.debug("a grading process ended (exit code %s) and is replaced", code)
        return self._start()
