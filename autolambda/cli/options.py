"""Options, exit codes and output that several commands share, and the end of an interrupted command.

Functions import heavy modules themselves, so that ``--help`` stays quick.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from autolambda.errors import InputError
from autolambda.merging.method import ROUNDINGS

if TYPE_CHECKING:  # imported by the functions
    from rich.console import Console, RenderableType

    from autolambda.config import Config
    from autolambda.driver.events import OnEvent

logger = logging.getLogger(__name__)

INTERRUPTED = 130
INFEASIBLE = 3

Command = Callable[..., Any]

storage_option = click.option(
    "--storage",
    envvar="AUTOLAMBDA_STORAGE",
    metavar="URL",
    help="Database of the study (sqlite:///PATH or postgresql://USER@HOST/DATABASE).  [default: studies/NAME/study.db]",
)
budget_option = click.option("--budget", type=float, metavar="TOKENS", help="Mean tokens that a response may cost.")
workers_option = click.option(
    "--workers", type=int, metavar="N", help="Number of engines that share the work on Ray, each with its own GPUs."
)
log_option = click.option(
    "--log-to",
    "callbacks",
    multiple=True,
    type=click.Choice(["mlflow", "wandb", "tensorboard"]),
    help="Logs trials and the report there as well; repeatable.",
)
study_option = click.option("--study", metavar="NAME", help="The study's name.  [default: the Thinking model's name]")
out_option = click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Writes to a file instead of the terminal.",
)
lambda_option = click.option("--lambda", "lam", type=float, metavar="X", help="One lambda for all parameters, 0 to 1.")
schedule_option = click.option(
    "--schedule", type=click.Path(path_type=Path), metavar="FILE", help="A schedule in a YAML file."
)

rounding_option = click.option(
    "--rounding",
    type=click.Choice(ROUNDINGS),
    help="How weights in bf16 and fp16 are rounded.  [default: the config's, else dithered]",
)


def model_options(command: Command) -> Command:
    """Adds the arguments and options of a command that takes models, tasks and a config."""
    for decorate in (
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="KEY=VALUE",
            help="Sets any config key, as in search.trials=9; repeatable.",
        ),
        click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="A config in YAML."),
        click.option(
            "--task",
            "tasks",
            multiple=True,
            metavar="NAME|FILE",
            help="A benchmark's name, a hub id, or a file or folder with 'question' and 'answer'; repeatable.",
        ),
        click.argument("thinking", required=False),
        click.argument("instruct", required=False),
    ):
        command = decorate(command)
    return command


def open_console(*, stderr: bool = False) -> Console:
    """Returns the console on which a command prints tables and progress."""
    from rich.console import Console

    return Console(stderr=stderr)


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


def say_bundled(config: Config, on_event: OnEvent) -> None:
    """Sends a note if the bundled pair is used because no models were given."""
    from autolambda.driver.events import Noted

    if config.models.bundled:
        task = " and its arithmetic task" if [t.name for t in config.tasks] == ["arithmetic"] else ""
        on_event(Noted(f"no models given: this is the bundled pair of tiny models{task}"))


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
    from autolambda.study.connection import password_hint, shown_storage
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
