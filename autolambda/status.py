"""The progress of a study, from its database alone: it can be watched from another terminal."""

from __future__ import annotations

import time
from contextlib import closing

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from autolambda.config import parse_config
from autolambda.errors import StudyError
from autolambda.report import build_report
from autolambda.store import Store
from autolambda.study import Study
from autolambda.tables import report_view

SECONDS = 2.0


def show_status(name: str, storage: str, *, console: Console, watch: bool) -> None:
    """Prints trials, tokens and the front so far; with ``watch`` again every two seconds until the trials are done."""
    with closing(Store(storage, must_exist=True)) as store:
        if store.study(name) is None:
            raise StudyError(f"no study '{name}' in this database; it has: {', '.join(store.names()) or 'none'}")
        study = Study(store, name=name, storage=storage)
        if not watch:
            console.print(_view(store, study))
            return
        with Live(_view(store, study), console=console, auto_refresh=False) as live:
            while not _is_done(store, study):
                time.sleep(SECONDS)
                live.update(_view(store, study), refresh=True)


def _is_done(store: Store, study: Study) -> bool:
    stored = store.study(study.name)
    assert stored is not None
    return study.counts().complete >= parse_config(stored.config).search.trials


def _view(store: Store, study: Study) -> RenderableType:
    stored = store.study(study.name)
    assert stored is not None
    config, counts = parse_config(stored.config), study.counts()
    line = Text(
        f"{study.name}: {counts.complete} of {config.search.trials} trials, {counts.failed} failed, "
        f"{counts.running} running, {store.num_tokens(study.name):,} tokens"
    )
    if not counts.complete:
        return line
    return Group(line, Text(), report_view(build_report(store, study, budget=config.budget)))
