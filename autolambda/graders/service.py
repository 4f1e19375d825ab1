"""The grading service: takes responses, returns their scores as futures, and grades in processes that can be killed.

A text on which a built-in grader hangs or crashes is ``unparsed``. If a user's function hangs, crashes or raises, the
future raises ``GraderError``, and the caller names the sample. Grading goes on while the engine generates.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from concurrent.futures import Future

from autolambda.errors import GraderError, TaskError
from autolambda.graders.base import ParsedAnswer
from autolambda.graders.grading import Score, answer_part, find_grader, is_custom, score_of
from autolambda.graders.pool import Pool
from autolambda.responses import Response

logger = logging.getLogger(__name__)

LONGEST = 1_000_000  # characters: only the end of a longer text is sent to a process
_MOST_WORKERS = 4
_MAX_CACHED = 16_384  # about 1 kB each


class GradingService:
    """Grades responses in processes that it holds until it is closed.

    ``num_workers`` defaults to the number of cores that this process may use, at most 4. ``seconds`` limits one text,
    ``num_bytes`` the memory of one process. A script that uses it needs the guard ``if __name__ == "__main__":``.
    """

    def __init__(self, *, num_workers: int | None = None, seconds: float = 5.0, num_bytes: int = 4 << 30) -> None:
        self._num_workers = num_workers or max(1, min(_num_cores(), _MOST_WORKERS))
        self._seconds, self._num_bytes = seconds, num_bytes
        self._pool: Pool | None = None
        # A prompt has few distinct answers, which recur in its repeats and under other schedules.
        self._cache: dict[tuple[str, str, str], Future[ParsedAnswer]] = {}

    def start(self, graders: Iterable[str]) -> None:
        """Starts the processes in the background if one of the graders needs them. Raises ``TaskError``."""
        slow = [name for name in graders if not find_grader(name).is_quick]
        if slow and self._pool is None:
            self._pool = Pool(slow, num_workers=self._num_workers, seconds=self._seconds, num_bytes=self._num_bytes)

    def score(self, response: Response, target: str, *, grader: str, think_end: str) -> Future[Score]:
        """Returns the score of a response. The future is done at once if the grader can decide quickly.

        A response cut at ``max_tokens`` is always ``truncated``, so it is never sent to a process.
        """
        text = answer_part(response, think_end=think_end)
        future: Future[Score] = Future()
        parsed = find_grader(grader).quick(text, target)
        if parsed is None and response.finish_reason == "length":
            parsed = ParsedAnswer(None)
        if parsed is not None:
            future.set_result(score_of(parsed, response))
            return future
        pending = self._parsed(grader, text[-LONGEST:], target)
        pending.add_done_callback(lambda done: _settle(future, done, response=response, grader=grader))
        return future

    def _parsed(self, grader: str, text: str, target: str) -> Future[ParsedAnswer]:
        """Returns the answer that a process finds in the text, from the cache if the grader gives a key."""
        self.start([grader])
        assert self._pool is not None
        cache_key = find_grader(grader).cache_key(text)
        if cache_key is None:
            return self._pool.submit(grader, text, target)
        key = (grader, cache_key, target)
        if key not in self._cache:
            if len(self._cache) >= _MAX_CACHED:
                del self._cache[next(iter(self._cache))]
            self._cache[key] = self._pool.submit(*key)
        return self._cache[key]

    def close(self) -> None:
        """Ends the processes and cancels the scores that are still missing."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
            self._cache.clear()


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _settle(future: Future[Score], done: Future[ParsedAnswer], *, response: Response, grader: str) -> None:
    if done.cancelled():
        future.cancel()
    if not future.set_running_or_notify_cancel():
        return
    parsed = done.result()
    if parsed.refused:
        future.set_exception(TaskError(parsed.failure))
    elif parsed.failure and (is_custom(grader) or grader == "lm_eval"):  # an lm-eval task can hold any author's code
        future.set_exception(GraderError(f"grader '{grader}': {parsed.failure}"))
    else:
        if parsed.failure:
            logger.debug("grader '%s' could not grade a response: %s", grader, parsed.failure)
        future.set_result(score_of(parsed, response))
