"""Takes responses from an engine while it generates, has them graded and stored in order, and times the engine."""

from __future__ import annotations

import itertools
import operator
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType

from autolambda.driver.events import Generating, OnEvent
from autolambda.engines.base import Progress
from autolambda.graders.grading import Score
from autolambda.responses import Graded, Key, Response
from autolambda.statistics.pace import CallTime, Window, time_call
from autolambda.tasks.requests import Request

TELL_SECONDS = 1.0  # between two events about a running call
STORE_SECONDS = 1.0  # between two commits while an engine streams, because a commit waits for the disk
WINDOW_SECONDS = 0.1  # the shortest window in which the pace of an engine is measured
WINDOW_STEPS = 64  # as short, because an engine may tell several tokens of a response at once

OnGraded = Callable[[Sequence[Graded]], None]


class Intake:
    """Grades responses and stores them in groups, in the order in which they came.

    A slow grade does not delay the engine: a later call stores its group.
    """

    def __init__(
        self,
        score: Callable[[Request, Response], Future[Score]],
        graded: Callable[[Request, Response, Future[Score]], Graded],
        store: OnGraded,
    ) -> None:
        """``score`` starts grading a response, ``graded`` builds its ``Graded``, and ``store`` takes each group."""
        self._score, self._graded, self._store = score, graded, store
        self._groups: deque[list[tuple[Request, Response, Future[Score]]]] = deque()

    @property
    def is_waiting(self) -> bool:
        """Whether some grades are still missing."""
        return bool(self._groups)

    def take(self, group: Sequence[tuple[Request, Response]]) -> None:
        """Takes a group of responses, which is stored in one transaction."""
        self._groups.append([(request, response, self._score(request, response)) for request, response in group])
        self.settle()

    def settle(self, *, wait: bool = False) -> None:
        """Stores the first groups whose grades are complete, or with ``wait`` all groups. Raises ``GraderError``."""
        while self._groups and (wait or all(future.done() for _, _, future in self._groups[0])):
            self._store([self._graded(*each) for each in self._groups.popleft()])


class EngineCall:
    """One call of ``Engine.generate``: passes each response to the intake once, in groups."""

    def __init__(
        self,
        batch: Sequence[Request],
        intake: Intake,
        *,
        streams: bool,
        max_tokens: float,
        on_event: OnEvent,
        num_given: int = 0,
    ) -> None:
        """``streams`` is a property of the engine. Above ``max_tokens`` weighted tokens the call is aborted.

        The first ``num_given`` tokens of each response are not generated.
        """
        self.taken: dict[Key, Response] = {}
        self._batch, self._intake, self._on_event = batch, intake, on_event
        self._streams, self._max_tokens = streams, max_tokens
        self._weights = [request.weight for request in batch]
        self._stored_at = self._told_at = time.monotonic()
        self._num_given, self._clock = num_given, CallClock()

    def watch(self, progress: Progress) -> bool:
        """Takes the responses before the first unfinished one, at most every ``STORE_SECONDS``.

        Taking all finished responses would be biased towards short ones: after a crash only long ones would be drawn
        again. Returns ``False`` once there are too many tokens.
        """
        self._clock.look(self._generated(progress.num_tokens), progress.responses)
        if sum(map(operator.mul, self._weights, progress.num_tokens)) > self._max_tokens:
            return False
        if self._streams and time.monotonic() - self._stored_at >= STORE_SECONDS:
            self.take(list(itertools.takewhile(lambda response: response is not None, progress.responses)))
        self._intake.settle()
        self._tell(progress)
        return True

    def take(self, responses: Sequence[Response | None]) -> None:
        """Takes the new responses, given in the order of the call's prompts."""
        pairs = zip(self._batch, responses, strict=False)  # shorter while some still run
        fresh = [(request, each) for request, each in pairs if each is not None and request.key not in self.taken]
        if fresh:
            self.taken |= {request.key: response for request, response in fresh}
            self._intake.take(fresh)
            self._stored_at = time.monotonic()

    def time(self, responses: Sequence[Response]) -> CallTime:
        """Returns the time of the call, which has just returned these responses."""
        return self._clock.end(self._generated([response.num_tokens for response in responses]))

    def settle(self) -> None:
        """Waits for the grades of all responses that were taken, and stores them."""
        self._intake.settle(wait=True)

    def _tell(self, progress: Progress) -> None:
        """Sends how much of the call is generated but not yet taken, at most every ``TELL_SECONDS``."""
        if time.monotonic() - self._told_at < TELL_SECONDS:
            return
        taken = self._generated([response.num_tokens for response in self.taken.values()])
        num_tokens = sum(self._generated(progress.num_tokens)) - sum(taken)
        num_finished = sum(response is not None for response in progress.responses) - len(self.taken)
        self._on_event(Generating(num_finished, num_tokens))
        self._told_at = time.monotonic()

    def _generated(self, num_tokens: Sequence[int]) -> Sequence[int]:
        return [max(num - self._num_given, 0) for num in num_tokens] if self._num_given else num_tokens


class CallClock:
    """Cuts a call into windows: how long each took, its tokens, and how many responses ran."""

    def __init__(self) -> None:
        self._windows: list[Window] = []
        self._num_tokens = self._num_running = 0
        self._since = time.monotonic()

    def look(self, num_tokens: Sequence[int], responses: Sequence[Response | None]) -> None:
        """Ends a window if it is long enough, given the tokens of each response so far and the finished ones."""
        if time.monotonic() - self._since < WINDOW_SECONDS:
            return
        num_running = sum(each is None and num > 0 for num, each in zip(num_tokens, responses, strict=True))
        if (total := sum(num_tokens)) - self._num_tokens >= WINDOW_STEPS * max(num_running, 1):
            self._cut(total, num_running)

    def end(self, lengths: Sequence[int]) -> CallTime:
        """Returns the time of the call, whose responses have these lengths."""
        self._cut(sum(lengths), 0)
        return time_call(lengths, self._windows)

    def _cut(self, num_tokens: int, num_running: int) -> None:
        now = time.monotonic()
        fresh, running = num_tokens - self._num_tokens, (self._num_running or num_running) + num_running
        self._windows.append(Window(now - self._since, fresh, running / 2))
        self._num_tokens, self._num_running, self._since = num_tokens, num_running, now


class Stopwatch:
    """Counts the seconds inside its ``with`` blocks."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._since: float | None = None

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._seconds, self._since = self.take(), None

    def take(self) -> float:
        """Returns the seconds since the last call, and begins anew."""
        now = time.monotonic()
        taken, self._seconds = self._seconds + (now - self._since if self._since is not None else 0.0), 0.0
        self._since = None if self._since is None else now
        return taken
