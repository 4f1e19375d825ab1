"""Watching a search: a live display on a terminal, one line a trial elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from autolambda.events import Began, Ended, Event, Generated, Noted, OnEvent
from autolambda.metrics import Measured
from autolambda.pareto import Score, front
from autolambda.schedule import Schedule
from autolambda.tables import trial_line

NUM_ROWS = 8


@contextmanager
def watching(console: Console) -> Iterator[OnEvent]:
    """The watcher that suits the console."""
    if console.is_terminal:
        with _LiveView(console) as view:
            yield view.show
    else:
        yield _lines(console)


def _lines(console: Console) -> Callable[[Event], None]:
    def show(event: Event) -> None:
        if isinstance(event, Noted):
            console.print(f"note: {event.text}", markup=False, soft_wrap=True)
        elif isinstance(event, Ended):
            console.print(
                trial_line(event.title, event.schedule, event.measured), markup=False, highlight=False, soft_wrap=True
            )

    return show


class _LiveView:
    """The front so far, the evaluation under way, tokens a second, time left."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._progress = Progress(
            *columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console
        )
        self._search = self._progress.add_task("search", total=None, note="")
        self._evaluation = self._progress.add_task("loading", total=None, note="")
        self._measured: list[tuple[str, Schedule, Measured]] = []
        self._num_tokens, self._seconds, self._since = 0, 0.0, time.monotonic()
        self._live = Live(self._view(), console=console, refresh_per_second=8, transient=True)
        self._console = console

    def __enter__(self) -> _LiveView:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def show(self, event: Event) -> None:
        match event:
            case Noted():
                self._console.print(f"[dim]note:[/dim] {escape(event.text)}")
            case Began():
                self._progress.update(self._search, total=event.num_steps, completed=event.step - 1)
                description = f"{event.title}: {event.schedule}"
                self._progress.reset(self._evaluation, total=event.num_responses, description=escape(description))
                self._since = time.monotonic()
            case Generated():
                self._num_tokens += event.num_tokens
                now = time.monotonic()
                self._seconds, self._since = self._seconds + now - self._since, now
                self._progress.advance(self._evaluation, event.num_responses)
                rate = f"{self._num_tokens / max(self._seconds, 1e-9):,.0f} tokens/s"
                self._progress.update(self._search, note=rate)
            case Ended():
                self._measured.append((event.title, event.schedule, event.measured))
                self._progress.advance(self._search)
        self._live.update(self._view())

    def _view(self) -> Group:
        return Group(*([self._table()] if self._measured else []), self._progress)

    def _table(self) -> Table:
        """The front of what was measured so far, at most NUM_ROWS of it."""
        members = front(self._measured, key=lambda m: Score(m[2].accuracy.value, m[2].mean_tokens.value))
        step = max(1, -(-len(members) // NUM_ROWS))
        table = Table(
            title=f"front so far, {len(members)} of {len(self._measured)}",
            box=None,
            title_style="bold",
            title_justify="left",
            pad_edge=False,
        )
        for name in ("", "schedule", "accuracy %", "tokens", "think %"):
            table.add_column(name, justify="left" if name in ("", "schedule") else "right")
        for title, schedule, measured in members[::-1][::step][::-1]:
            table.add_row(
                title,
                str(schedule),
                f"{100 * measured.accuracy.value:.1f}",
                f"{measured.mean_tokens.value:.1f}",
                f"{100 * measured.think_ratio.value:.0f}",
            )
        return table
