"""Watching: what the live display shows, that it leaves nothing behind, and one line a trial elsewhere."""

from __future__ import annotations

import io
import re
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console, RenderableType
from small_search import finished

from autolambda.cli import progress, watched
from autolambda.cli.progress import MAX_ROWS, watching
from autolambda.cli.watched import Watched
from autolambda.driver.events import Began, EvaluationEnded, Event, Generated, Generating, Noted, Opened
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
    monkeypatch.setattr(watched, "time", clock)
    return clock


def trial(
    number: int, *, accuracy: float, tokens: float, kind: Kind = "trial", lam: float = 0.5, title: str = ""
) -> EvaluationEnded:
    measured = finished().trials[0].measured
    changed = replace(
        measured,
        accuracy=replace(measured.accuracy, value=accuracy),
        mean_tokens=replace(measured.mean_tokens, value=tokens),
    )
    return EvaluationEnded(title or f"trial {number}", kind, Schedule.uniform(lam), changed)


def shown(view: RenderableType, width: int = 80) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(view)
    return file.getvalue()


def began(number: int, done: float, share: float = 0.1, **more: Any) -> Began:
    return Began(f"trial {number}", Schedule.uniform(number / 10), 16, done, share, **more)


def opened(*earlier: EvaluationEnded, budget: float | None = 40.0, num_tokens: int = 0) -> Opened:
    return Opened("mine", budget, 18, earlier, num_tokens)


def live() -> progress._LiveView:
    return progress._LiveView(Console(file=io.StringIO()))


def test_a_pipe_gets_a_line_with_the_time_for_each_note_and_each_trial() -> None:
    file = io.StringIO()
    events: list[Event] = [
        Noted("[bold]\x1b[2J" + "x" * 200),
        began(0, 0.0),
        Generated(16, 200),
        trial(0, accuracy=0.5, tokens=12.5),
    ]
    with watching(Console(file=file, width=80)) as on_event:
        for event in events:
            on_event(event)
    lines = file.getvalue().splitlines()
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d", line[:8]) for line in lines)
    assert [line[9:] for line in lines] == [
        "note: [bold]\\x1b[2J" + "x" * 200,
        "trial 0          accuracy  50.0%  tokens    12.5  think   0.0%  on    16  lambda 0.5",
    ]


def test_a_pipe_hears_a_heartbeat_between_lines_that_follow_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "HEARTBEAT_SECONDS", 0.05)
    file = io.StringIO()
    with watching(Console(file=file, width=80)) as on_event:
        for _ in range(500):
            on_event(Noted("another"))
            if "opening models and tasks" in file.getvalue():
                break
            time.sleep(0.01)
    assert "opening models and tasks" in file.getvalue()


def test_a_pipe_hears_a_heartbeat_while_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "HEARTBEAT_SECONDS", 0.02)
    file, best = io.StringIO(), trial(0, accuracy=0.5, tokens=12.5)
    with watching(Console(file=file, width=80)) as on_event:
        on_event(opened(best, num_tokens=100))
        on_event(began(1, 0.2, stage="search", allowance=5000.0))
        on_event(Generating(12, 300))
        for _ in range(250):
            if "search 28%" in file.getvalue():
                break
            time.sleep(0.02)
    beats = [line[9:] for line in file.getvalue().splitlines() if "search 28%" in line]
    assert beats and re.fullmatch(
        r"search 28%, trial 1, 400 of 5,000 tokens, at most \d:\d\d left, "
        r"best within 40 so far: 50.0% at 12.5 tokens \(trial 0\)",
        beats[0],
    )
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


def test_a_heartbeat_before_anything_is_known() -> None:
    state = Watched()
    assert progress._heartbeat(state) == "opening models and tasks, 0:00 so far"
    state.show(began(0, 0.0))
    assert (
        progress._heartbeat(state) == "measuring 0%, trial 0, 0 tokens, waiting for the first responses, no merge yet"
    )


def test_the_display_tells_what_is_done_and_what_is_left(clock: Clock) -> None:
    view = live()
    clock.now = 3.0
    assert shown(view.render()).strip() == "opening models and tasks, 0:03"
    view.show(opened())
    view.show(began(0, 0.0, stage="first sweep"))
    assert "(waiting for its first responses)" in shown(view.render())
    clock.now = 5.0
    view.show(Noted("engine: ready"))  # loading it took 2 s, which are not counted as generating
    clock.now = 6.0
    view.show(Generated(16, 300))
    text = shown(view.render())
    assert "mine  first sweep  budget 40 tokens a response" in text and "No merge within 40 yet" in text
    assert "trial 0 of at most 18: lambda 0" in text and "10%" in text and "0:06 elapsed" in text
    assert "300 tokens generated, 300 tokens/s" in text and "at most 0:09 left" in text
    view.show(trial(0, accuracy=0.5, tokens=2.0))
    view.show(began(1, 0.1, stage="search", allowance=5000.0))
    clock.now = 9.0
    view.show(Generated(8, 300))
    view.show(Generating(4, 60))  # of which nothing is stored yet
    text = shown(view.render())
    assert "mine  search" in text and "trial 1 of at most 18" in text and "18%" in text
    assert "660 of 5,000 tokens generated, 165 tokens/s" in text and max(map(len, text.splitlines())) <= 80


def test_a_resumed_search_shows_earlier_trials_and_reckons_with_its_own_share_only(clock: Clock) -> None:
    view = live()
    view.show(opened(trial(2, accuracy=0.9, tokens=30.0, lam=0.2), num_tokens=1000))
    view.show(began(6, 0.6, stage="search", allowance=2000.0))
    clock.now = 1.0
    view.show(Generated(4, 75))  # too little to tell what is left
    text = shown(view.render())
    assert " left" not in text and "62%" in text and "1,075 of 2,000 tokens" in text
    assert "Best within 40 so far: 90.0% at 30.0 tokens (trial 2)" in text and "The best 1 of 1 merges" in text
    clock.now = 2.0
    view.show(Generated(12, 225))
    assert "at most 0:06 left" in shown(view.render()) and "70%" in shown(view.render())


def test_the_best_within_the_budget_is_green_and_what_is_over_it_grey(clock: Clock) -> None:
    view = live()
    events = [
        trial(0, accuracy=0.5, tokens=10.0, lam=0.1),
        trial(1, accuracy=0.8, tokens=39.0, lam=0.2),
        trial(2, accuracy=0.9, tokens=41.0, lam=0.3),
    ]
    for event in (opened(), began(0, 0.0, stage="search"), *events):
        view.show(event)
    assert [progress._style(view._state, event) for event in events] == ["", "bold green", "dim"]
    assert "Best within 40 so far: 80.0% at 39.0 tokens (trial 1)" in shown(view.render())
    view.show(opened(*events, budget=None))
    assert [progress._style(view._state, event) for event in events] == ["", "", "bold green"]
    assert "Best so far: 90.0%" in shown(view.render())


def test_the_confirmation_shows_its_own_numbers_and_what_is_left_to_check(clock: Clock) -> None:
    view = live()
    view.show(opened(trial(3, accuracy=0.99, tokens=30.0)))
    view.show(Began("confirm trial 3", Schedule.uniform(0.5), 64, 0.6, 0.1, "confirmation", 9000.0, 2))
    view.show(trial(8, accuracy=0.7, tokens=80.0, kind="parent", title="thinking as is"))
    text = shown(view.render())
    assert "mine  confirmation on new prompts, at most 2 more merges to check" in text and "99.0" in text
    assert "Checked on new prompts" in text and "70.0 (" in text and "The best 1" not in text
    view.show(trial(3, accuracy=0.9, tokens=31.0, kind="confirm", title="confirm trial 3"))
    text = shown(view.render())
    assert "Best within 40 checked: 90.0% at 31.0 tokens (confirm trial 3)" in text and "99.0" not in text
    assert max(map(len, text.splitlines())) <= 80
    view.show(Began("confirm trial 4", Schedule.uniform(0.6), 64, 0.9, 0.1, "confirmation", 9000.0, 0))
    assert "on new prompts, the last merge to check" in shown(view.render())


def test_what_was_stored_before_takes_no_time(clock: Clock) -> None:
    view = live()
    view.show(opened(num_tokens=9000))
    for number in (0, 1):
        view.show(began(number, 0.4 * number, 0.4, stage="confirmation", allowance=9000.0))
        view.show(trial(number, accuracy=0.5, tokens=2.0, kind="confirm"))
    view.show(began(2, 0.8, 0.2, stage="confirmation", allowance=9000.0))
    clock.now = 1.0
    assert " left" not in shown(view.render()).replace("left to", "")
    view.show(Generated(8, 100))
    clock.now = 11.0
    text = shown(view.render())
    assert "at most 0:11 left" in text and "9,100 tokens generated" in text  # more than the allowance


def test_a_trial_that_was_stopped_in_mid_response_has_a_line_and_no_row(clock: Clock) -> None:
    view = live()
    view.show(began(0, 0.0))
    view.show(trial(0, accuracy=0.5, tokens=2.0))
    view.show(EvaluationEnded("trial 1", "trial", Schedule.uniform(0.9), None, "over the budget"))
    text = shown(view.render())
    assert "The best 1 of 2 merges so far" in text and "trial 1" not in text


def test_the_front_so_far_holds_trials_only_and_few_rows(clock: Clock) -> None:
    view = live()
    view.show(began(0, 0.0))
    for i in range(20):
        view.show(trial(i, accuracy=i / 20, tokens=1000.0 + i, lam=i / 20))
    view.show(trial(20, accuracy=0.99, tokens=1019.0, lam=19 / 20))  # a schedule measured further is one row
    view.show(trial(21, accuracy=1.0, tokens=1.0, kind="confirm", lam=1.0))
    text = shown(view.render())
    rows = [line for line in text.splitlines() if line.startswith("trial ") and "lambda 0 (" not in line]
    assert len(rows) <= MAX_ROWS and rows[-1].startswith("trial 20") and "1,019.0" in rows[-1]
    assert "The best 20 of 20 merges" in text and "trial 21" not in text


def test_the_display_is_gone_at_the_end_and_the_notes_stay() -> None:
    file = io.StringIO()
    console = Console(file=file, width=60, force_terminal=True, legacy_windows=False, _environ={"TERM": "xterm"})
    with watching(console) as on_event:
        on_event(Noted("[bold]a \x1b[31mnote"))
        on_event(began(0, 0.0))
        on_event(trial(0, accuracy=0.5, tokens=2.0))
    text = file.getvalue()
    assert "[bold]a \\x1b[31mnote" in text and "merges so far" in text
    screen = text.replace("\r", "\n")
    assert "\x1b[2K" in screen  # what the display drew was erased
    last = screen.rpartition("merges so far")[2]
    assert last.count("\x1b[2K") >= 4 and screen.endswith("\x1b[2K")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (61, "1:01"), (3600 * 11 + 62, "11:01:02")])
def test_clock(seconds: float, text: str) -> None:
    assert watched.clock(seconds) == text
