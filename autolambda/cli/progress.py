"""Shows the events of a search: a live display on a terminal; elsewhere lines with the time of day and a heartbeat."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autolambda.cli.watched import Watched, clock
from autolambda.driver.events import EvaluationEnded, Event, Noted, OnEvent
from autolambda.errors import printable
from autolambda.report.terminal import MAX_ROWS, in_lines, thinned
from autolambda.statistics.estimates import Estimate, number
from autolambda.statistics.pareto import Objectives, front

BAR_WIDTH = 20  # columns
HEARTBEAT_SECONDS = 30.0  # between two lines that say how far a search is, where there is no terminal


@contextmanager
def watching(console: Console) -> Iterator[OnEvent]:
    """Yields the function that shows events: a live display, or lines if the console is not a terminal."""
    if not console.is_terminal:
        lines, ended = _Lines(console), threading.Event()
        beats = threading.Thread(target=lines.beat, args=(ended,), daemon=True, name="heartbeat")
        beats.start()
        try:
            yield lines.show
        finally:
            ended.set()
            beats.join()
        return
    view = _LiveView(console)
    with Live(get_renderable=view.render, console=console, refresh_per_second=4, transient=True):
        yield view.show


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


class _Lines:
    """Prints a line for each note and each finished evaluation, and between them one that says how far it is."""

    def __init__(self, console: Console) -> None:
        self._console, self._state, self._lock = console, Watched(), threading.Lock()

    def show(self, event: Event) -> None:
        with self._lock:
            self._state.show(event)
            if isinstance(event, Noted):
                self._say(f"note: {event.text}")
            elif isinstance(event, EvaluationEnded):
                self._say(trial_line(event))

    def beat(self, ended: threading.Event) -> None:
        """Prints how far the search is, every ``HEARTBEAT_SECONDS``."""
        while not ended.wait(HEARTBEAT_SECONDS):
            with self._lock:
                self._say(_heartbeat(self._state))

    def _say(self, text: str) -> None:
        self._console.out(f"{time.strftime('%H:%M:%S')} {printable(text)}", highlight=False)


def _heartbeat(state: Watched) -> str:
    """Returns phase, share done, tokens of the allowance, time left and the best merge so far, in one line."""
    if state.current is None:
        return f"opening models and tasks, {clock(state.elapsed)} so far"
    parts = [f"{_phase(state)} {state.done:.0%}", state.current.title, _tokens(state)]
    if state.is_waiting:
        parts.append("waiting for the first responses")
    if (left := state.seconds_left) is not None:
        parts.append(f"at most {clock(left)} left")
    return ", ".join([*parts, _best(state)])


def _phase(state: Watched) -> str:
    stage = state.current.stage if state.current else None
    return stage or "measuring"


def _tokens(state: Watched) -> str:
    """Returns the tokens of the study so far, of its allowance if that is known."""
    allowance = state.current.allowance if state.current else None
    of = f" of {allowance:,.0f}" if allowance and state.num_tokens <= allowance else ""
    return f"{state.num_tokens:,}{of} tokens"


def _best(state: Watched) -> str:
    """Returns the best merge so far as a phrase."""
    within, best = "" if state.budget is None else f" within {state.budget:g}", state.best
    if best is None or best.measured is None:
        return f"no merge{within} yet"
    accuracy, tokens = best.measured.accuracy.value, best.measured.mean_tokens.value
    checked = "checked" if best.kind == "confirm" else "so far"
    return f"best{within} {checked}: {accuracy:.1%} at {number(tokens)} tokens ({best.title})"


class _LiveView:
    """The display: what is sought and found, the merges so far, the current evaluation, tokens and the time left."""

    def __init__(self, console: Console) -> None:
        self._console, self._state = console, Watched()

    def show(self, event: Event) -> None:
        """Records an event. The display calls ``render`` by itself."""
        self._state.show(event)
        if isinstance(event, Noted):
            self._console.print(f"[dim]note:[/dim] {escape(printable(event.text))}", highlight=False)

    def render(self) -> Group:
        """Returns the current screen."""
        state = self._state
        if state.current is None:
            return Group(_line(f"opening models and tasks, {clock(state.elapsed)}"))
        table = _checked(state) if state.is_confirming else _front(state) if state.trials else None
        shown: list[RenderableType] = [Text(), *_head(state), Text()]
        if table:
            shown += [table, Text()]
        return Group(*shown, *_status(state))


def _head(state: Watched) -> list[Text]:
    """Returns what is sought, and the best so far."""
    study = f"{state.opened.study}  " if state.opened else ""
    budget = "" if state.budget is None else f"  budget {state.budget:g} tokens a response"
    phase = _phase(state)
    if state.is_confirming and state.current:
        left = state.current.num_left
        more = f"at most {left} more merge{'' if left == 1 else 's'} to check" if left else "the last merge to check"
        phase += f" on new prompts, {more}"
    lines = [Text.assemble((study, "bold"), (phase, "bold cyan"), budget, no_wrap=True, overflow="ellipsis")]
    if state.opened:
        best = _best(state)
        lines.append(_line(best[0].upper() + best[1:], style="green" if state.best else "yellow"))
    return lines


def _front(state: Watched) -> Table:
    """Returns the front of the trials, thinned evenly to MAX_ROWS. Keeps the member with the most tokens."""
    measured = [(event, event.measured) for event in state.trials.values() if event.measured is not None]
    members = front(measured, key=lambda pair: Objectives(pair[1].accuracy.value, pair[1].mean_tokens.value))
    table = _table(f"The best {len(members)} of {len(state.trials)} merges so far, not checked yet")
    for event, numbers in thinned(members, MAX_ROWS):
        cells = (f"{100 * numbers.accuracy.value:.1f}", f"{numbers.mean_tokens.value:,.1f}")
        think = f"{100 * numbers.think_ratio.value:.0f}"
        table.add_row(event.title, in_lines(event.schedule), *cells, think, style=_style(state, event))
    return table


def _checked(state: Watched) -> Table:
    """Returns the parents and merges of the confirmation, with 95 % intervals."""
    table = _table("Checked on new prompts (95 % intervals)")
    for event in state.checked.values():
        if event.measured is not None:
            of = event.measured
            cells = _interval(of.accuracy, 100.0), _interval(of.mean_tokens, 1.0)
            title, think = event.title.removeprefix("confirm "), f"{100 * of.think_ratio.value:.0f}"
            table.add_row(title, in_lines(event.schedule), *cells, think, style=_style(state, event))
    return table


def _style(state: Watched, event: EvaluationEnded) -> str:
    """Green is the best within the budget, grey is over it."""
    return "bold green" if event is state.best else "dim" if state.is_over(event) else ""


def _interval(estimate: Estimate, factor: float) -> str:
    value, low, high = (factor * each for each in (estimate.value, estimate.low, estimate.high))
    return f"{value:,.1f} ({low:,.1f} to {high:,.1f})"


def _table(title: str) -> Table:
    table = Table(title=title, box=None, title_style="bold", title_justify="left", header_style="dim", pad_edge=False)
    for name in ("", "merge", "accuracy %", "tokens", "think %"):
        table.add_column(name, justify="left" if name in ("", "merge") else "right", no_wrap=name != "merge")
    return table


def _status(state: Watched) -> list[Text | Table]:
    assert state.current is not None
    waiting = " (waiting for its first responses)" if state.is_waiting else ""  # the engine is loading
    most = f" of at most {state.opened.num_trials}" if state.opened and not state.is_confirming else ""
    title = _line(f"{state.current.title}{most}: {state.current.schedule}{waiting}")
    bar = Table.grid(padding=(0, 2))
    cells = [f"{state.done:4.0%}", f"{clock(state.elapsed)} elapsed"]
    if (left := state.seconds_left) is not None:
        cells.append(f"at most {clock(left)} left")
    bar.add_row(ProgressBar(total=1.0, completed=state.done, width=BAR_WIDTH), *cells)
    speed = f", {state.speed:,.0f} tokens/s" if state.speed else ""
    return [title, bar, _line(f"{_tokens(state)} generated{speed}", style="dim")]


def _line(text: str, *, style: str = "") -> Text:
    """Returns one line that is cut off at the edge of the screen."""
    return Text(printable(text), style=style, no_wrap=True, overflow="ellipsis")
