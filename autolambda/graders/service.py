"""Marking: responses in, marks out as futures; what takes a parser is read in processes that can be killed.

A text that one of our graders hangs or dies on is ``unparsed``. One that a grader of the user's own hangs, dies or
raises on is a ``GraderError``, for the caller to name the sample. Grading goes on while the engine generates.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from concurrent.futures import Future
from types import TracebackType

from autolambda.errors import GraderError, TaskError
from autolambda.graders.base import ParsedAnswer
from autolambda.graders.grading import Mark, answer_part, find_grader, is_own, mark_of
from autolambda.graders.pool import Pool
from autolambda.graders.process import Outcome
from autolambda.responses import Response

logger = logging.getLogger(__name__)

LONGEST = 1_000_000  # characters that are sent to a worker, the last ones of a text
_MOST_WORKERS = 4
_MOST_KNOWN = 16_384  # about 1 kB each


class GradingService:
    """Grades responses; a context manager, since it holds processes.

    ``num_workers`` is by default the number of cores that this process may use, at most 4. ``seconds`` limits one text,
    ``num_bytes`` one process. A script that uses it needs the guard ``if __name__ == "__main__":``.
    """

    def __init__(self, *, num_workers: int | None = None, seconds: float = 5.0, num_bytes: int = 4 << 30) -> None:
        self._num_workers = num_workers or max(1, min(_num_cores(), _MOST_WORKERS))
        self._seconds, self._num_bytes = seconds, num_bytes
        self._pool: Pool | None = None
        # A prompt has few answers: its repeats under all schedules bring them again and again.
        self._known: dict[tuple[str, str, str], Future[Outcome]] = {}

    def __enter__(self) -> GradingService:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, graders: Iterable[str]) -> None:
        """Starts the processes, in the background, if one of the graders needs them. Raises ``TaskError``."""
        slow = [name for name in graders if not find_grader(name).is_quick]
        if slow and self._pool is None:
            self._pool = Pool(slow, num_workers=self._num_workers, seconds=self._seconds, num_bytes=self._num_bytes)

    def mark(self, response: Response, target: str, *, grader: str, think_end: str) -> Future[Mark]:
        """The mark of a response: at once where a glance tells it, later where it takes a read.

        A cut response is ``truncated`` whatever a read would find, so a glance is all that it gets.
        """
        text = answer_part(response, think_end=think_end)
        future: Future[Mark] = Future()
        reading = find_grader(grader).glance(text, target)
        if reading is None and response.finish_reason == "length":
            reading = ParsedAnswer(None)
        if reading is not None:
            future.set_result(mark_of(reading, response))
            return future
        outcome = self._outcome(grader, text[-LONGEST:], target)
        outcome.add_done_callback(lambda done: _settle(future, done, response=response, grader=grader))
        return future

    def _outcome(self, grader: str, text: str, target: str) -> Future[Outcome]:
        """What a worker makes of the text; what one made of its like before, where the grader knows likeness."""
        self.start([grader])
        assert self._pool is not None
        essence = find_grader(grader).essence
        if essence is None:
            return self._pool.submit(grader, text, target)
        key = (grader, essence(text), target)
        if key not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[key] = self._pool.submit(*key)
        return self._known[key]

    def close(self) -> None:
        """Ends the processes; marks that are still owed are cancelled."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
            self._known.clear()


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _settle(future: Future[Mark], done: Future[Outcome], *, response: Response, grader: str) -> None:
    if done.cancelled():
        future.cancel()
    if not future.set_running_or_notify_cancel():
        return
    outcome = done.result()
    if outcome.refused:
        future.set_exception(TaskError(outcome.failure))
    elif outcome.reading is not None:
        future.set_result(mark_of(outcome.reading, response))
    elif is_own(grader) or grader == "lm_eval":  # a task of lm-eval is anybody's code as well
        future.set_exception(GraderError(f"grader '{grader}': {outcome.failure}"))
    else:
        logger.debug("grader '%s' could not read a response: %s", grader, outcome.failure)
        future.set_result(mark_of(ParsedAnswer(None), response))
