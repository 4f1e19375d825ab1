"""What the events of a search add up to: its phase, its best merge so far, its tokens and the time left."""

from __future__ import annotations

import time

from autolambda.driver.events import Began, EvaluationEnded, Event, Generated, Generating, Noted, Opened
from autolambda.schedule import Schedule

LEAST_SHARE = 0.05  # of the search must be done before the time left is told


class Watched:
    """The state of a search for its watcher. ``trials`` are by schedule, ``checked`` is the confirmation by title."""

    def __init__(self) -> None:
        self.trials: dict[Schedule, EvaluationEnded] = {}
        self.checked: dict[str, EvaluationEnded] = {}
        self.opened: Opened | None = None
        self.current: Began | None = None
        self._first = 0.0  # share of the search that was done when this run began
        self._num_done = 0  # responses of the current evaluation
        self._running = Generating(0, 0)
        self._num_tokens = 0  # stored by this run
        self._seconds = 0.0  # of generation
        self._started = self._since = self._working_since = time.monotonic()

    def show(self, event: Event) -> None:
        """Takes an event."""
        now = time.monotonic()
        if not (self._num_tokens or isinstance(event, Generated | Generating)):
            self._working_since = now  # the time left excludes the time before the first token
        match event:
            case Noted():
                self._since = now  # the engine sends a note when it is loaded
            case Opened():
                self.opened = event
                self.trials = {each.schedule: each for each in event.earlier}
            case Began():
                if self.is_waiting:  # what is stored already takes no time
                    self._first = event.done
                self.current, self._num_done, self._since = event, 0, now
            case Generating():
                self._running = event
            case Generated():
                self._num_done += event.num_responses
                self._num_tokens += event.num_tokens
                self._running = Generating(0, 0)
                self._seconds, self._since = self._seconds + now - self._since, now
            case EvaluationEnded():
                if event.kind == "trial":  # other kinds see other prompts, so their numbers do not compare
                    self.trials[event.schedule] = event
                elif event.kind != "sweep":
                    self.checked[event.title] = event

    @property
    def budget(self) -> float | None:
        return self.opened.budget if self.opened else None

    @property
    def is_confirming(self) -> bool:
        return self.current is not None and self.current.stage == "confirmation"

    @property
    def is_waiting(self) -> bool:
        """Whether the engine has not generated anything yet, because it is loading."""
        return not (self._num_tokens or self._running.num_tokens)

    @property
    def num_tokens(self) -> int:
        """All tokens of the study, with those that are not stored yet."""
        return (self.opened.num_tokens if self.opened else 0) + self._num_tokens + self._running.num_tokens

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._started

    @property
    def speed(self) -> float | None:
        """Tokens per second of generation, once something is generated."""
        seconds, num_tokens = self._seconds, self._num_tokens
        if self._running.num_tokens:
            seconds, num_tokens = seconds + time.monotonic() - self._since, num_tokens + self._running.num_tokens
        return num_tokens / seconds if seconds else None

    @property
    def done(self) -> float:
        """The finished part of the search, 0 to 1."""
        if self.current is None:
            return 0.0
        within = (self._num_done + self._running.num_responses) / max(self.current.num_responses, 1)
        return min(self.current.done + self.current.share * within, 1.0)

    @property
    def seconds_left(self) -> float | None:
        """At most; the confirmation may end early. ``None`` before enough is done to tell."""
        if (fresh := self.done - self._first) < LEAST_SHARE:
            return None
        return (time.monotonic() - self._working_since) / fresh * (1 - self.done)

    def is_over(self, event: EvaluationEnded) -> bool:
        """Whether the mean tokens of an evaluation are above the budget."""
        budget = self.budget
        return budget is not None and event.measured is not None and event.measured.mean_tokens.value > budget

    @property
    def best(self) -> EvaluationEnded | None:
        """The most accurate merge so far within the budget (any, without a budget), of those checked if there are."""
        for events in (
            [each for each in self.checked.values() if each.kind == "confirm"],
            list(self.trials.values()),
        ):
            within = [
                (each.measured.accuracy.value, each) for each in events if each.measured and not self.is_over(each)
            ]
            if within:
                return max(within, key=lambda pair: pair[0])[1]
        return None


def clock(seconds: float) -> str:
    """Returns minutes and seconds, and hours from one hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
