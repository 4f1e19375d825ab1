"""Shows the events of a search: a live display on a terminal, elsewhere one line for each evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autolambda.driver.events import Began, EvaluationEnded, Event, Generated, Noted, OnEvent
from autolambda.errors import printable
from autolambda.report.terminal import MAX_ROWS, in_lines, thinned
from autolambda.schedule import Schedule
from autolambda.statistics.estimates import number
from autolambda.statistics.pareto import Objectives, front

BAR_WIDTH = 24  # columns
LEAST_SHARE = 0.05  # of the search must be done before the display shows the time left


@contextmanager
def watching(console: Console) -> Iterator[OnEvent]:
    """Yields the function that shows events: a live display, or lines if the console is not a terminal."""
    if not console.is_terminal:
        yield _lines(console)
        return
    view = _LiveView(console)
    with Live(get_renderable=view.render, console=console, refresh_per_second=4, transient=True):
        yield view.show


def _lines(console: Console) -> Callable[[Event], None]:
    def show(event: Event) -> None:
        if isinstance(event, Noted):
            console.out(f"note: {printable(event.text)}", highlight=False)
        elif isinstance(event, EvaluationEnded):
            console.out(printable(trial_line(event)), highlight=False)

    return show


def trial_line(event: EvaluationEnded) -> str:
    """Returns a line about a finished evaluation."""
    if event.measured is None:
        return f"{event.title:<16} stopped: {event.stopped}  {event.schedule}"
    accuracy, tokens, think = event.measured.accuracy, event.measured.mean_tokens, event.measured.think_ratio
    stopped = f"  (stopped: {event.stopped})" if event.stopped else ""
    return (
        f"{event.title:<16} accuracy {accuracy.value:6.1%}  tokens {number(tokens.value):>7}  "
        f"think {think.value:6.1%}  on {event.measured.num_responses:>5}  {event.schedule}{stopped}"
    )


class _LiveView:
    """The display: the front of the trials so far, the current evaluation, tokens per second, and the time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._trials: dict[Schedule, EvaluationEnded] = {}
        self._current: Began | None = None
        self._first = 0.0  # share of the search that was done when this run began
        self._num_done = 0  # responses of the current evaluation
        self._num_tokens = 0
        self._seconds = 0.0  # of generation
        self._started = self._since = self._working_since = time.monotonic()

    def show(self, event: Event) -> None:
        """Records an event. The display calls ``render`` by itself."""
        now = time.monotonic()
        if not (self._num_tokens or isinstance(event, Generated)):
            self._working_since = now  # the time left excludes the time before the first token
        match event:
            case Noted():
                self._since = now  # the engine sends a note when it is loaded
                self._console.print(f"[dim]note:[/dim] {escape(printable(event.text))}", highlight=False)
            case Began():
                if self._current is None:
                    self._first = event.done
                self._current, self._num_done, self._since = event, 0, now
            case Generated():
                self._num_done += event.num_responses
                self._num_tokens += event.num_tokens
                self._seconds, self._since = self._seconds + now - self._since, now
            case EvaluationEnded():
                if event.kind == "trial":  # other kinds see other prompts, so their numbers do not compare
                    self._trials[event.schedule] = event

    def render(self) -> Group:
        """Returns the current screen."""
        return Group(*([self._front()] if self._trials else []), *self._status())

    def _front(self) -> Table:
        """Returns the front of the trials, thinned evenly to MAX_ROWS. Keeps the member with the most tokens."""
        measured = [(event, event.measured) for event in self._trials.values() if event.measured is not None]
        members = front(measured, key=lambda pair: Objectives(pair[1].accuracy.value, pair[1].mean_tokens.value))
        table = Table(
            title=f"Front so far: {len(members)} of {len(self._trials)} schedules, unconfirmed",
            box=None,
            title_style="bold",
            title_justify="left",
            header_style="dim",
            pad_edge=False,
        )
        for name in ("", "schedule", "accuracy %", "tokens", "think %"):
            table.add_column(name, justify="left" if name in ("", "schedule") else "right", no_wrap=name != "schedule")
        for event, numbers_of in thinned(members, MAX_ROWS):
            numbers = (
                100 * numbers_of.accuracy.value,
                numbers_of.mean_tokens.value,
                100 * numbers_of.think_ratio.value,
            )
            cells = [f"{value:,.{places}f}" for value, places in zip(numbers, (1, 1, 0), strict=True)]
            table.add_row(event.title, in_lines(event.schedule), *cells)
        return table

    def _status(self) -> list[Text | Table]:
        event, now = self._current, time.monotonic()
        if event is None:
            return [Text(f"opening models and tasks, {_clock(now - self._started)}")]
        within = self._num_done / max(event.num_responses, 1)
        done = min(event.done + event.share * within, 1.0)
        waiting = "" if self._num_tokens else " (waiting for its first responses)"  # the engine is loading
        title = Text(f"{printable(event.title)}: {event.schedule}{waiting}", no_wrap=True, overflow="ellipsis")
        bar = Table.grid(padding=(0, 2))
        cells = [f"{done:4.0%}", f"{_clock(now - self._started)} elapsed"]
        if self._seconds:
            cells.append(f"{self._num_tokens / self._seconds:,.0f} tokens/s")
        if (fresh := done - self._first) >= LEAST_SHARE:
            cells.append(f"at most {_clock((now - self._working_since) / fresh * (1 - done))} left")
        bar.add_row(ProgressBar(total=1.0, completed=done, width=BAR_WIDTH), *cells)
        return [title, bar]


def _clock(seconds: float) -> str:
    """Returns minutes and seconds, and hours from one hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
