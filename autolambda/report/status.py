"""The progress of a study, from its database alone, so that another terminal can watch it.

Each look counts trials. It reads responses again only after a trial or a step of the confirmation has ended.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from autolambda.config import parse_config
from autolambda.report.read import build_report
from autolambda.report.report import UNFINISHED
from autolambda.report.sentences import stop_words
from autolambda.report.terminal import progress_view, report_view
from autolambda.study.reader import open_for_reading
from autolambda.study.store import Store
from autolambda.study.trials import Counts, Study, default_storage

SECONDS = 2.0


@dataclass(frozen=True)
class _Answer:
    """The view below the first line, and the first line's numbers."""

    view: RenderableType
    counts: Counts
    stop_reason: str
    is_done: bool


@dataclass(frozen=True)
class _Seen:
    """One look at the study; ``answer`` is ``None`` before the first complete trial, ``view`` is the whole screen.

    ``state`` is what the answer depends on.
    """

    state: tuple[object, ...]
    answer: _Answer | None
    view: RenderableType

    @property
    def is_done(self) -> bool:
        return self.answer is not None and self.answer.is_done


def show_status(name: str, storage: str, *, console: Console, watch: bool, budget: float | None = None) -> None:
    """Prints trials, tokens and the front so far; with ``watch`` every two seconds, until the study is done.

    ``budget`` replaces the study's own budget in the answer, but the study is done when its own budget is decided.
    Ctrl-C ends watching and leaves the last view on the screen. Raises ``StudyError`` if there is no such study.
    """
    with open_for_reading(name, storage, with_texts=False) as reader:
        store, study = reader.store, reader.study
        seen = _look(store, study, storage, budget)
        if not watch:
            console.print(seen.view)
            return
        with Live(seen.view, console=console, auto_refresh=False) as live, suppress(KeyboardInterrupt):
            while not seen.is_done:
                time.sleep(SECONDS)
                seen = _look(store, study, storage, budget, before=seen)
                live.update(seen.view, refresh=True)


def _look(store: Store, study: Study, storage: str, budget: float | None, *, before: _Seen | None = None) -> _Seen:
    """Looks at the study. Keeps the answer of the look ``before`` if the state has not changed."""
    stored = store.study(study.name)
    assert stored is not None
    counts = study.counts()
    num_ended = counts.complete + counts.pruned + counts.failed
    state = (stored, num_ended, store.num_complete(study.name), study.stopped_for)
    config, answer = parse_config(stored.settings), None
    if before and before.state == state:
        answer = before.answer
    elif counts.complete:
        answer = _answer(store, study, storage, own=config.budget, budget=budget)
        counts = answer.counts  # a trial may have ended since the count above
    reason, num_ended = answer.stop_reason if answer else UNFINISHED, counts.complete + counts.pruned
    done = f"{num_ended} of at most {config.search.trials} trials are done"
    if reason != UNFINISHED:
        done = f"the search is over after {num_ended} trials, because {stop_words(reason)}"
    running = ", one under way or interrupted" if counts.running else ""
    line = Text(f"{study.name}: {done}{running}; {store.num_tokens(study.name):,} tokens generated")
    return _Seen(state, answer, Group(line, Text(), answer.view) if answer else line)


def _answer(store: Store, study: Study, storage: str, *, own: float | None, budget: float | None) -> _Answer:
    """Returns the verdict for ``budget`` if the study has decided its ``own`` budget, else only the fronts so far."""
    report = build_report(store, study, budget=own)
    counts, reason, is_done = report.counts, report.stop_reason, report.is_done
    if budget is not None and budget != own:
        report = build_report(store, study, budget=budget)
    where = None if storage == default_storage(study.name) else storage
    view = report_view(report, storage=where) if is_done else progress_view(report)
    return _Answer(view, counts, reason, is_done)
