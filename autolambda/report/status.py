"""The progress of a study, from its database alone, so that another terminal can watch it.

Each look counts trials. It reads responses again only after a trial or a step of the confirmation has ended.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from autolambda.errors import printable
from autolambda.report.read import build_report
from autolambda.report.report import UNFINISHED, Report
from autolambda.report.results import ScheduleResult
from autolambda.report.sentences import stop_words, verdict_sentences
from autolambda.report.terminal import progress_view
from autolambda.study.overview import Overview, overview
from autolambda.study.places import default_storage, sqlite_path
from autolambda.study.reader import open_for_reading
from autolambda.study.store import Store
from autolambda.study.trials import Counts, Study

SECONDS = 2.0


@dataclass(frozen=True)
class _Answer:
    """The report for the asked budget, and whether the study has decided its own."""

    report: Report
    is_done: bool


@dataclass(frozen=True)
class _Seen:
    """One look at the study; ``answer`` is ``None`` before the first complete trial.

    ``state`` is what the answer depends on.
    """

    state: tuple[object, ...]
    short: Overview
    counts: Counts
    num_tokens: int
    answer: _Answer | None

    @property
    def is_done(self) -> bool:
        return self.answer is not None and self.answer.is_done

    @property
    def is_running(self) -> bool:
        return self.short.holder is not None


def show_status(name: str, storage: str, *, console: Console, watch: bool, budget: float | None = None) -> None:
    """Prints how far a study is and what it found; with ``watch`` every two seconds, with its front, until it is done.

    ``budget`` replaces the study's own budget in the answer, but the study is done when its own budget is decided.
    Ctrl-C ends watching and leaves the last view on the screen. Raises ``StudyError`` if there is no such study.
    """
    with open_for_reading(name, storage, with_texts=False) as reader:
        store, study = reader.store, reader.study
        seen = _look(store, study, storage, budget)
        if not watch:
            console.print(_view(seen, storage))
            return
        view = _view(seen, storage, with_front=True)
        with Live(view, console=console, auto_refresh=False) as live, suppress(KeyboardInterrupt):
            while not seen.is_done:
                time.sleep(SECONDS)
                seen = _look(store, study, storage, budget, before=seen)
                live.update(_view(seen, storage, with_front=True), refresh=True)


def status_json(name: str, storage: str, *, budget: float | None = None) -> str:
    """Returns how far a study is and what it found as one JSON object, with the keys of cli/README.md."""
    with open_for_reading(name, storage, with_texts=False) as reader:
        seen = _look(reader.store, reader.study, storage, budget)
    report = seen.answer.report if seen.answer else None
    plain = seen.short.to_dict()
    plain["trials"] |= {key: getattr(seen.counts, key) for key in ("complete", "pruned", "failed", "running")}
    plain["tokens_generated"] = seen.num_tokens
    plain["is_done"] = seen.is_done
    if report is not None:
        verdict = report.verdict if seen.is_done else None
        own = {"budget": report.budget, "verdict": verdict, "stop_reason": report.stop_reason}
        plain |= own | {"best": report.best.to_dict() if report.best else None}
    return json.dumps(plain, indent=2) + "\n"


def in_short(report: Report) -> dict[str, Any]:
    """Returns the answer of a finished search as the study keeps it for lists."""
    return {
        "budget": report.budget,
        "verdict": None if report.verdict is None else str(report.verdict),
        "best": None if report.best is None else _numbers(report.best),
    }


def _numbers(result: ScheduleResult) -> dict[str, Any]:
    numbers = {"accuracy": result.score.accuracy, "mean_tokens": result.score.mean_tokens}
    return {"trial": result.trial, "parent": result.parent, "schedule": str(result.schedule), **numbers}


def _look(store: Store, study: Study, storage: str, budget: float | None, *, before: _Seen | None = None) -> _Seen:
    """Looks at the study. Keeps the answer of the look ``before`` if the state has not changed."""
    short = overview(store, study.name, storage)
    assert short is not None
    counts = study.counts()
    num_ended = counts.complete + counts.pruned + counts.failed
    state = (short.stored, num_ended, store.num_complete(study.name), study.stopped_for)
    answer = None
    if before and before.state == state:
        answer = before.answer
    elif counts.complete:
        answer = _answer(store, study, own=short.budget, budget=budget)
        counts = answer.report.counts  # a trial may have ended since the count above
    return _Seen(state, short, counts, store.num_tokens(study.name), answer)


def _answer(store: Store, study: Study, *, own: float | None, budget: float | None) -> _Answer:
    """Returns the report for ``budget``, by default the study's ``own``, and whether its own budget is decided."""
    report = build_report(store, study, budget=own)
    is_done = report.is_done
    if budget is not None and budget != own:
        report = build_report(store, study, budget=budget)
    return _Answer(report, is_done)


def _view(seen: _Seen, storage: str, *, with_front: bool = False) -> RenderableType:
    """Returns the whole screen: how far the study is, what it is about, and the answer or the best so far."""
    short = seen.short
    models = " and ".join(short.models)
    budget = "no budget" if short.budget is None else f"budget {short.budget:,g} tokens"
    about = f"{models}, on {', '.join(short.tasks) or 'no task'}, {budget}"
    lines = [Text(_progress(seen)), Text(printable(about), style="dim")]
    if seen.answer is None:
        return Group(*lines, *_next_command(seen, storage))
    report = seen.answer.report
    if with_front and not seen.is_done:
        return Group(*lines, Text(), progress_view(report), *_next_command(seen, storage))
    return Group(*lines, Text(), *_found(seen, report, storage), *_next_command(seen, storage))


def _progress(seen: _Seen) -> str:
    """Returns the state of a study, its trials and its tokens in one line."""
    name, counts, short = seen.short.stored.name, seen.counts, seen.short
    reason = seen.answer.report.stop_reason if seen.answer else UNFINISHED
    trials = f"{counts.complete + counts.pruned} of at most {short.most_trials} trials are done"
    tokens = f"; {seen.num_tokens:,} tokens generated"
    if counts.running:
        is_told = sqlite_path(short.storage) is not None  # a server does not name the driver
        ended = "one was interrupted" if is_told else "one under way or interrupted"
        trials += ", one under way" if seen.is_running else f", {ended}"
    over = "" if reason == UNFINISHED else f", the search is over: {stop_words(reason)}"
    running = f"running ({short.holder}), " if seen.is_running else ""
    return f"{name}: {running}{trials}{over}{tokens}"


def _found(seen: _Seen, report: Report, storage: str) -> Iterator[Text]:
    """Yields the answer as the report tells it, or the best of the search so far."""
    where = None if storage == default_storage(report.study) else storage
    if seen.is_done:
        for sentence in verdict_sentences(report, storage=where):
            command: tuple[str | tuple[str, str], ...] = (": ", (sentence.command, "bold")) if sentence.command else ()
            yield Text.assemble(*sentence.parts, *command)
    elif report.budget is not None and report.best is None:
        yield Text(f"Nothing is surely within {report.budget:,g} tokens so far.")
    elif report.best is not None:
        best = report.best
        within = "" if report.budget is None else f" within {report.budget:,g} tokens"
        numbers = f"{best.score.accuracy:.1%} at {best.score.mean_tokens:,.1f} tokens"
        yield Text(f"Best so far{within}, not confirmed: {numbers}, {best.schedule} (trial {best.trial})")


def _next_command(seen: _Seen, storage: str) -> Iterator[Text]:
    """Yields the command to look on with."""
    name = seen.short.stored.name
    where = "" if storage == default_storage(name) else f" --storage {seen.short.to_dict()['storage']}"
    if seen.is_running:
        yield Text(f"Watch it: autolambda status {name} --watch{where}", style="dim")
    elif seen.is_done:
        yield Text(f"Fronts, stages and all numbers: autolambda report {name}{where}", style="dim")
    else:
        yield Text(f"Continue with: autolambda resume {name}{where}", style="dim")
