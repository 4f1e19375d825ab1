"""What commands print: the console, notes, the progress of writing; and the end of an interrupted command.

Functions import heavy modules themselves, so that ``--help`` stays quick.
"""

from __future__ import annotations

import logging
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import click

from autolambda.errors import InputError, printable

if TYPE_CHECKING:  # imported by the functions
    from rich.console import Console, RenderableType

    from autolambda.config import Config
    from autolambda.driver.events import OnEvent
    from autolambda.report.report import Report

logger = logging.getLogger(__name__)

INTERRUPTED = 130
INFEASIBLE = 3


def open_console(*, stderr: bool = False) -> Console:
    """Returns the console on which a command prints tables and progress."""
    from rich.console import Console

    return Console(stderr=stderr)


@contextmanager
def watching_or_not(console: Console, *, quiet: bool) -> Iterator[OnEvent]:
    """Yields the function that shows the events of a run, or with ``quiet`` one that shows nothing."""
    if quiet:
        from autolambda.driver.events import ignore

        yield ignore
        return
    from autolambda.cli.progress import watching

    with watching(console) as on_event:
        yield on_event


def print_answer(found: Report, *, storage: str | None, as_json: bool, quiet: bool) -> None:
    """Prints the report of a search: as JSON, with ``quiet`` its verdict alone, else as a whole."""
    from autolambda.report.json_csv import report_json
    from autolambda.report.sentences import verdict_sentences
    from autolambda.report.terminal import report_view

    if as_json:
        click.echo(report_json(found), nl=False)
    elif quiet:
        click.echo("\n".join(printable(str(sentence)) for sentence in verdict_sentences(found, storage=storage)))
    else:
        open_console().print(report_view(found, storage=storage))


@contextmanager
def writing(console: Console, *, total: int) -> Iterator[Callable[[int], None] | None]:
    """Yields a progress function for bytes written since its last call; ``None`` off a terminal.

    ``total`` is the number of bytes in all.
    """
    from rich import progress

    if not console.is_terminal:
        yield None
        return
    rates = progress.DownloadColumn(), progress.TransferSpeedColumn(), progress.TimeRemainingColumn()
    columns = progress.TextColumn("writing"), progress.BarColumn(), *rates
    with progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("writing", total=total)
        yield lambda num_bytes: bar.advance(task, num_bytes)


def echo_wrapped(line: str) -> None:
    """Prints a line, on a terminal wrapped between words with the rest indented."""
    if sys.stdout.isatty() and len(line) > (width := shutil.get_terminal_size().columns):
        line = click.wrap_text(line, width=width, subsequent_indent="  ")
    click.echo(line)


def say(note: str) -> None:
    """Prints a note on stderr, dim on a terminal."""
    click.secho(f"note: {printable(note)}", dim=True, err=True)


def say_bundled(config: Config, on_event: OnEvent) -> None:
    """Sends a note if the bundled pair is used because no models were given."""
    from autolambda.driver.events import Noted

    if config.models.bundled:
        task = " and its arithmetic task" if [t.name for t in config.tasks] == ["arithmetic"] else ""
        on_event(Noted(f"no models given: this is the demo, the bundled pair of tiny models{task}"))


def end_interrupted(
    command: Sequence[str],
    config: Config,
    *,
    name: str,
    storage: str | None,
    so_far: Callable[[], RenderableType],
    console: Console,
) -> NoReturn:
    """Prints the results ``so_far``, if any, and the command to continue with. Ends the process.

    ``command`` uses the study's stored config, so it is printed only if that equals the interrupted ``config``.
    """
    from autolambda.study.databases.connection import password_hint, shown_storage
    from autolambda.study.reader import stored_config

    go_on, hint = "the same command", ""
    try:
        if stored_config(name, storage).model_dump() == config.model_dump():
            where = ["--storage", shown_storage(storage)] if storage else []
            go_on = shlex.join(["autolambda", *command, *where])
            hint = password_hint(storage) if storage else ""
        console.print(so_far())
    except InputError as error:
        logger.debug("nothing to show: %s", error)  # interrupted before the study began, or before its first trial
    click.echo(f"interrupted; nothing is lost. Go on with{hint}: {go_on}", err=True)
    raise SystemExit(INTERRUPTED) from None
