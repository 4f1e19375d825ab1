"""A pool of processes that grade texts. A thread watches each process and replaces it when it hangs or dies.

Each process has its own pipe and answers in order, so the text that ended it is known and no other text is lost. A few
jobs are sent ahead, so that a process does not wait for a busy main thread. They always fit into the pipe, so that
sending does not wait either.
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

from autolambda.errors import reason
from autolambda.graders.base import ParsedAnswer
from autolambda.graders.process import HELLO, serve

logger = logging.getLogger(__name__)

_NUM_AHEAD = 8  # more would leave other processes without work
_AHEAD_BYTES = 32_768  # of jobs sent ahead to a process; a pipe holds at least 64 KiB
_LOADING_SECONDS = 300.0  # to import packages and load a task
_ENDING_SECONDS = 1.0  # for a process that ends by itself
_NUM_STARTS = 2
_NO_START = "the grading process does not start"
_GUARD = "a script that starts a search does so below if __name__ == '__main__':"
_LOCK = threading.Lock()  # a start polls all children, so two threads at once can lose an exit code


@dataclass
class _Job:
    payload: bytes
    future: Future[ParsedAnswer] = field(default_factory=Future)
    num_deaths: int = 0

    def finish(self, parsed: ParsedAnswer) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(parsed)

    def fail(self, failure: str, *, refused: bool = False) -> None:
        self.finish(ParsedAnswer(None, failure=failure, refused=refused))


_Queue = SimpleQueue[_Job | None]


class Pool:
    """Grades texts in ``num_workers`` processes, within ``seconds`` a text and ``num_bytes`` of memory a process."""

    def __init__(self, graders: Sequence[str], *, num_workers: int, seconds: float, num_bytes: int) -> None:
        self._jobs: _Queue = SimpleQueue()
        self._keepers = [_Keeper(self._jobs, graders, seconds=seconds, num_bytes=num_bytes) for _ in range(num_workers)]
        for keeper in self._keepers:
            keeper.start()

    def submit(self, grader: str, text: str, target: str) -> Future[ParsedAnswer]:
        """Returns the answer in a text, or its failure, as a future."""
        job = _Job(pickle.dumps((grader, text, target), protocol=pickle.HIGHEST_PROTOCOL))
        self._jobs.put(job)
        return job.future

    def close(self) -> None:
        """Ends the processes and cancels the jobs that are not done."""
        for keeper in self._keepers:
            keeper.stop()
        for keeper in self._keepers:
            keeper.join()
        while not self._jobs.empty():
            if job := self._jobs.get():
                job.future.cancel()


class _Keeper(threading.Thread):
    """Sends jobs to one process and replaces it when it ends."""

    def __init__(self, jobs: _Queue, graders: Sequence[str], *, seconds: float, num_bytes: int) -> None:
        super().__init__(name="grading", daemon=True)
        self._jobs, self._seconds, self._num_bytes = jobs, seconds, num_bytes
        self._graders = tuple(graders)  # preloaded by the first process; its replacements load on demand
        self._waiting: deque[_Job] = deque()  # taken from the queue, not sent
        self._sent: deque[_Job] = deque()
        self._since = 0.0  # when the process could begin with the first job sent
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None
        self._closing = False
        self._is_idle = False

    def stop(self) -> None:
        self._closing = True
        self._jobs.put(None)
        if self._process is not None and self._process.pid is not None and not self._is_idle:
            self._process.kill()  # an idle process ends by itself and leaves nothing behind

    def run(self) -> None:
        trouble = self._start()
        while not self._closing:
            job = self._take()
            if job is not None:
                if trouble:
                    job.fail(trouble, refused=True)
                elif not self._send(job):
                    trouble = self._replace()
            elif self._sent and not self._receive():
                trouble = self._replace()
        self._end()
        for job in (*self._sent, *self._waiting):
            job.future.cancel()

    def _start(self) -> str:
        """Starts a process and waits for its hello. Returns why it failed, else an empty text."""
        for _ in range(_NUM_STARTS):
            try:
                self._launch()
            except (OSError, RuntimeError) as error:  # no memory for it, or a script without the guard below
                return f"{_NO_START} ({reason(error, limit=100, with_type=True)}); {_GUARD}"
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
        """Kills the process if it is alive. Returns its exit code."""
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
        """Returns the next message of the process; ``None`` if it died or sent nothing in time."""
        assert self._connection is not None
        try:
            return self._connection.recv() if self._connection.poll(seconds) else None
        except (EOFError, OSError):
            return None

    def _take(self) -> _Job | None:
        """Returns a job to send now: only a small one to a busy process. Waits for a job if the process is idle."""
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
        """Settles the first job with the next answer. Returns whether the answer came in time."""
        parsed = self._hears(self._seconds + _LOADING_SECONDS)
        if not isinstance(parsed, ParsedAnswer):
            return False
        self._sent.popleft().finish(parsed)
        self._since = time.monotonic()
        return True

    def _replace(self) -> str:
        """Settles the job that ended the process, keeps the others, and starts a process. Returns why this failed."""
        if self._closing:
            return ""
        took = time.monotonic() - self._since
        code = self._end()
        first = self._sent.popleft()
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()
        if took >= self._seconds:
            first.fail(f"it took longer than {self._seconds:g} s")
        elif first.num_deaths:
            first.fail(f"its process died (exit code {code})")
        else:  # one death can have another cause, such as the system's memory
            first.num_deaths += 1
            self._waiting.appendleft(first)
        logger.debug("a grading process ended (exit code %s) and is replaced", code)
        return self._start()
