"""The progress of a study, from its database alone: it can be watched from another terminal."""

from __future__ import annotations

import time
from contextlib import closing, suppress
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from autolambda.arguments import opened_store
from autolambda.config import parse_config
from autolambda.report import UNFINISHED, build_report
from autolambda.store import Store
from autolambda.study import Study, default_storage
from autolambda.tables import progress_view, report_view

SECONDS = 2.0


@dataclass(frozen=True)
class _Seen:
    view: RenderableType
    is_done: bool


def show_status(name: str, storage: str, *, console: Console, watch: bool, budget: float | None = None) -> None:
    """Prints trials, tokens and the front so far; with ``watch`` again every two seconds until the study is done.

    ``budget`` stands in for the study's own; the study is done when its own is decided. Ctrl-C ends watching, and the
    last view stays on the screen. Raises ``StudyError`` where there is no such study.
    """
    with opened_store(name, storage, with_texts=False) as store, closing(Study(store, name=name)) as study:
        seen = _look(store, study, storage, budget)
        if not watch:
            console.print(seen.view)
            return
        with Live(seen.view, console=console, auto_refresh=False) as live, suppress(KeyboardInterrupt):
            while not seen.is_done:
                time.sleep(SECONDS)
                seen = _look(store, study, storage, budget)
                live.update(seen.view, refresh=True)


def _look(store: Store, study: Study, storage: str, budget: float | None) -> _Seen:
    stored = store.study(study.name)
    assert stored is not None
    config, counts = parse_config(stored.config), study.counts()
    report = build_report(store, study, budget=config.budget) if counts.complete else None
    counts = report.counts if report else counts  # a trial may have ended in between
    running = ", one under way or interrupted" if counts.running else ""
    over = f", the search is over ({report.stop_reason})" if report and report.stop_reason != UNFINISHED else ""
    line = Text(
        f"{study.name}: {counts.complete + counts.pruned} of at most {config.search.trials} trials are done"
        f"{running}{over}; {store.num_tokens(study.name):,} tokens generated"
    )
    if report is None:
        return _Seen(line, is_done=False)
    where = None if storage == default_storage(study.name) else storage
    is_done = report.is_done
    if budget is not None and budget != config.budget:
        report = build_report(store, study, budget=budget)
    answer = report_view(report, storage=where) if is_done else progress_view(report)
    return _Seen(Group(line, Text(), answer), is_done)
