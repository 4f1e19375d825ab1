"""Watching: what the live display shows, that it leaves nothing behind, and one line a trial elsewhere."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType
from small_search import finished

from autolambda.cli import progress
from autolambda.cli.progress import MAX_ROWS, watching
from autolambda.driver.events import Began, EvaluationEnded, Event, Generated, Noted
from autolambda.schedule import Schedule
from autolambda.study.store import Kind


class Clock:
    """Stands in for the module's ``time``."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def trial(number: int, *, accuracy: float, tokens: float, kind: Kind = "trial", lam: float = 0.5) -> EvaluationEnded:
    measured = finished().trials[0].measured
    changed = replace(
        measured,
        accuracy=replace(measured.accuracy, value=accuracy),
        mean_tokens=replace(measured.mean_tokens, value=tokens),
    )
    return EvaluationEnded(f"trial {number}", kind, Schedule.uniform(lam), changed)


def shown(view: RenderableType, width: int = 80) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(view)
    return file.getvalue()


def test_a_pipe_gets_a_line_for_each_note_and_each_trial() -> None:
    file = io.StringIO()
    events: list[Event] = [
        Noted("[bold]\x1b[2J" + "x" * 200),
        Began("trial 0", Schedule.uniform(0.5), 16, 0.0, 0.1),
        Generated(16, 200),
        trial(0, accuracy=0.5, tokens=12.5),
    ]
    with watching(Console(file=file, width=80)) as on_event:
        for event in events:
            on_event(event)
    lines = file.getvalue().splitlines()
    assert lines[0] == "note: [bold]\\x1b[2J" + "x" * 200
    assert lines[1:] == ["trial 0          accuracy  50.0%  tokens    12.5  think   0.0%  on    16  lambda 0.5"]


def test_the_display_tells_what_is_done_and_what_is_left(clock: Clock) -> None:
    view = progress._LiveView(Console(file=io.StringIO()))
    clock.now = 3.0
    assert shown(view.render()).strip() == "opening models and tasks, 0:03"
    view.show(Began("trial 0", Schedule.uniform(0.0), 16, 0.0, 0.1))
    clock.now = 5.0
    view.show(Noted("engine: ready"))  # loading it took 2 s, which are not counted as generating
    clock.now = 6.0
    view.show(Generated(16, 300))
    text = shown(view.render())
    assert "trial 0: lambda 0" in text and "10%" in text and "0:06 elapsed" in text and "300 tokens/s" in text
    assert "at most 0:09 left" in text
    view.show(trial(0, accuracy=0.5, tokens=2.0))
    view.show(Began("trial 1", Schedule.uniform(1.0), 16, 0.1, 0.1))
    clock.now = 9.0
    view.show(Generated(8, 300))
    text = shown(view.render())
    assert "trial 1: lambda 1" in text and "15%" in text and "150 tokens/s" in text
    assert "Front so far: 1 of 1 schedules" in text and max(map(len, text.splitlines())) <= 80


def test_a_resumed_search_reckons_with_its_own_share_only(clock: Clock) -> None:
    view = progress._LiveView(Console(file=io.StringIO()))
    view.show(Began("trial 6", Schedule.uniform(0.0), 16, 0.6, 0.1))
    clock.now = 1.0
    view.show(Generated(4, 75))  # too little to tell what is left
    assert " left" not in shown(view.render()) and "62%" in shown(view.render())
    clock.now = 2.0
    view.show(Generated(12, 225))
    assert "at most 0:06 left" in shown(view.render()) and "70%" in shown(view.render())


def test_a_trial_that_was_stopped_in_mid_response_has_a_line_and_no_row(clock: Clock) -> None:
    view = progress._LiveView(Console(file=io.StringIO()))
    view.show(trial(0, accuracy=0.5, tokens=2.0))
    view.show(EvaluationEnded("trial 1", "trial", Schedule.uniform(0.9), None, "over the budget"))
    text = shown(view.render())
    assert "Front so far: 1 of 2 schedules" in text and "trial 1" not in text


def test_the_front_so_far_holds_trials_only_and_few_rows(clock: Clock) -> None:
    view = progress._LiveView(Console(file=io.StringIO()))
    for i in range(20):
        view.show(trial(i, accuracy=i / 20, tokens=1000.0 + i, lam=i / 20))
    view.show(trial(20, accuracy=0.99, tokens=1019.0, lam=19 / 20))  # a schedule measured further is one row
    view.show(trial(21, accuracy=1.0, tokens=1.0, kind="confirm", lam=1.0))
    text = shown(view.render())
    rows = [line for line in text.splitlines() if line.startswith("trial ")]
    assert len(rows) <= MAX_ROWS and rows[-1].startswith("trial 20") and "1,019.0" in rows[-1]
    assert "Front so far: 20 of 20" in text and "trial 21" not in text


def test_the_display_is_gone_at_the_end_and_the_notes_stay() -> None:
    file = io.StringIO()
    console = Console(file=file, width=60, force_terminal=True, legacy_windows=False, _environ={"TERM": "xterm"})
    with watching(console) as on_event:
        on_event(Noted("[bold]a \x1b[31mnote"))
        on_event(Began("trial 0", Schedule.uniform(0.0), 16, 0.0, 0.1))
        on_event(trial(0, accuracy=0.5, tokens=2.0))
    text = file.getvalue()
    assert "[bold]a \\x1b[31mnote" in text and "Front so far" in text
    screen = text.replace("\r", "\n")
    assert "\x1b[2K" in screen  # what the display drew was erased
    last = screen.rpartition("Front so far")[2]
    assert last.count("\x1b[2K") >= 4 and screen.endswith("\x1b[2K")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (61, "1:01"), (3600 * 11 + 62, "11:01:02")])
def test_clock(seconds: float, text: str) -> None:
    assert progress._clock(seconds) == text
