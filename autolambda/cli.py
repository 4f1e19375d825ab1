"""The command line: parse, call one function, print. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autolambda import __version__
from autolambda.arguments import (
    ablation_names,
    config_of,
    config_of_study,
    default_name,
    method_of,
    positive_budget,
    report_of,
    schedule_of,
    storage_url,
    stored_config,
    with_workers,
)
from autolambda.errors import (
    AutolambdaError,
    ConfigError,
    InputError,
    PairError,
    StorageError,
    StudyError,
    hide_secrets,
    printable,
)

if TYPE_CHECKING:  # the types of what the commands import on their own, so that --help stays quick
    from rich.console import Console

    from autolambda.config import Config
    from autolambda.events import OnEvent
    from autolambda.report import Report

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
budget_option = click.option(
    "--budget", type=float, metavar="TOKENS", help="Mean generated tokens a response may cost."
)

workers_option = click.option(
    "--workers", type=int, metavar="N", help="Engines that share the work, each with GPUs of its own, on Ray."
)


def model_options(command: Command) -> Command:
    """What the commands that can start from a config file share."""
    for decorate in (
        click.option(
            "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any config key, dotted; repeatable."
        ),
        click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="A YAML config."),
        click.option(
            "--task",
            "tasks",
            multiple=True,
            metavar="NAME|FILE",
            help="A benchmark's name, or a file or folder with 'question' and 'answer'; repeatable.",
        ),
        click.argument("thinking", required=False),
        click.argument("instruct", required=False),
    ):
        command = decorate(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="autolambda")
def cli() -> None:
    """Finds the best merge of an Instruct and a Thinking model for your token budget.

    \b
    autolambda search --budget 40                          on the bundled pair, a few minutes on a laptop
    autolambda search INSTRUCT THINKING --task my.jsonl --budget 4000
    autolambda export NAME OUT --budget 4000               the pick as a checkpoint folder
    """


@cli.command()
@model_options
@budget_option
@click.option("--study", metavar="NAME", help="The study's name.  [default: the Thinking model's name]")
@click.option("--trials", type=int, metavar="N", help="Trials in all; a finished study goes on with more.")
@click.option("--seed", type=int, metavar="N", help="Seed of proposals and responses.")
@workers_option
@storage_option
def search(study: str | None, storage: str | None, **options: Any) -> None:
    """Creates or resumes a study and prints its verdict.

    Run the same command again after a crash or Ctrl-C: it goes on where it was.

    \b
    autolambda search --budget 40                          the bundled pair
    autolambda search INSTRUCT THINKING --task my.jsonl --budget 4000
    autolambda search --config configs/math.yaml --set search.trials=100
    """
    config = config_of(options)
    _watch(config, name=default_name(config) if study is None else study, storage=storage)


@cli.command()
@click.argument("name")
@workers_option
@storage_option
def resume(name: str, workers: int | None, storage: str | None) -> None:
    """Goes on with a study's own stored config.

    \b
    autolambda resume bundled
    """
    _watch(with_workers(stored_config(name, storage), workers), name=name, storage=storage)


@cli.command()
@click.argument("name")
@click.option("--budget", type=float, metavar="TOKENS", required=True, help="The budget to confirm the picks for.")
@workers_option
@storage_option
def confirm(name: str, budget: float, workers: int | None, storage: str | None) -> None:
    """Re-measures the picks for another budget on unseen prompts.

    \b
    autolambda confirm bundled --budget 60
    """
    config = with_workers(stored_config(name, storage), workers)
    _watch(config, name=name, storage=storage, confirm_for=positive_budget(budget))


@cli.command("list")
@storage_option
def list_studies(storage: str | None) -> None:
    """Lists the studies of this folder, or of one database.

    \b
    autolambda list
    autolambda list --storage postgresql://me@host/studies
    """
    from autolambda.databases.base import shown_storage, storage_errors
    from autolambda.store import Store
    from autolambda.study import studies_under

    urls = [url for _, url in studies_under(Path("studies"))] if storage is None else [storage]
    found = 0
    for url in urls:
        try:
            with storage_errors(), closing(Store(url, must_exist=True)) as store:
                for name in store.names():
                    stored = store.study(name)
                    found += 1
                    click.echo(f"{name:<32} {stored.created_at if stored else '':<28} {shown_storage(url)}")
        except (StudyError, StorageError) as error:
            if storage is not None:
                raise
            click.echo(_line(error), err=True)  # one database that cannot be read does not hide the others
    if not found:
        click.echo("no studies here; start one with: autolambda search --budget 40")


@cli.command()
@click.argument("name")
@click.option("--watch", is_flag=True, help="Refreshes until the study is done.")
@storage_option
def status(name: str, watch: bool, storage: str | None) -> None:
    """Shows a study's progress.

    \b
    autolambda status bundled --watch
    """
    from autolambda.status import show_status

    show_status(name, storage_url(name, storage), console=_console(), watch=watch)


@cli.command()
@click.argument("name")
@budget_option
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "csv", "html"]), default="table", show_default=True
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Writes a file instead.")
@click.option("--watch", is_flag=True, help="Refreshes the table until the study is done.")
@storage_option
def report(name: str, budget: float | None, form: str, out: Path | None, watch: bool, storage: str | None) -> None:
    """Prints front, stages and verdict of a study, running or done, for any budget.

    --format html writes one page to open in a browser, with figures and responses to read.

    \b
    autolambda report bundled --budget 60
    autolambda report bundled --format html --out report.html
    """
    if watch:
        if form != "table" or out:
            raise ConfigError("--watch refreshes the table on the screen; leave out --format and --out")
        from autolambda.status import show_status

        wanted = None if budget is None else positive_budget(budget)
        show_status(name, storage_url(name, storage), console=_console(), watch=True, budget=wanted)
    elif form == "html":
        from autolambda.formats import write_text
        from autolambda.opened import open_study

        write_text(open_study(name, storage=storage, budget=budget).page, out=out, console=_console())
    else:
        from autolambda.formats import write_report

        write_report(report_of(name, storage, budget), form=form, out=out, console=_console(), storage=storage)


@cli.command()
@click.argument("name")
@click.argument("out", type=click.Path(path_type=Path))
@budget_option
@click.option("--trial", type=int, metavar="N", help="Exports this trial instead of the pick.")
@click.option("--max-shard-size", default="5GB", show_default=True, metavar="SIZE")
@click.option("--push-to-hub", metavar="REPO", help="Uploads the folder too; a new repository is private.")
@storage_option
def export(
    name: str,
    out: Path,
    budget: float | None,
    trial: int | None,
    max_shard_size: str,
    push_to_hub: str | None,
    storage: str | None,
) -> None:
    """Writes the pick of a study as a checkpoint folder.

    \b
    autolambda export NAME OUT --budget 4000
    autolambda export NAME OUT --trial 12 --push-to-hub OWNER/REPO
    """
    from autolambda.export import export as write
    from autolambda.hub import check_repository, push
    from autolambda.measurement import Measurement
    from autolambda.models import open_models
    from autolambda.progress import writing
    from autolambda.shards import parse_size

    shard_size = parse_size(max_shard_size)
    if push_to_hub is not None:
        check_repository(push_to_hub)
    found = report_of(name, storage, budget)
    measurement = Measurement.of(found, trial=trial)
    entry, models = measurement.entry, open_models(found.config)
    with writing(_console(), total=models.pair.num_bytes) as on_bytes:
        write(models, entry.schedule, out, max_shard_size=shard_size, measurement=measurement, on_bytes=on_bytes)
    click.echo(f"{out}: {entry.schedule}" + ("" if entry.confirmed else " (not confirmed)"))
    if push_to_hub is not None:
        click.echo(f"{out}: {push(out, push_to_hub)}")


@cli.command()
@click.argument("instruct")
@click.argument("thinking")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--lambda", "lam", type=float, metavar="X", help="One lambda for all parameters, 0 to 1.")
@click.option("--schedule", type=click.Path(path_type=Path), metavar="FILE", help="A schedule as YAML.")
@click.option(
    "--method",
    type=click.Choice(["linear", "task_arithmetic", "ties", "slerp"]),
    default="linear",
    show_default=True,
    help="linear and slerp take a lambda or a schedule, the others a base model.",
)
@click.option("--base", metavar="MODEL", help="The base model of both, for task_arithmetic and ties.")
@click.option("--max-shard-size", default="5GB", show_default=True, metavar="SIZE")
def merge(
    instruct: str,
    thinking: str,
    out: Path,
    lam: float | None,
    schedule: Path | None,
    method: str,
    base: str | None,
    max_shard_size: str,
) -> None:
    """Writes one merge as a checkpoint folder, without a study.

    \b
    autolambda merge INSTRUCT THINKING OUT --lambda 0.6
    autolambda merge INSTRUCT THINKING OUT --method ties --base BASE
    """
    from autolambda.export import export as write
    from autolambda.models import open_models
    from autolambda.progress import writing
    from autolambda.shards import parse_size

    chosen, shard_size = method_of(method, lam, schedule, base), parse_size(max_shard_size)
    models = open_models(config_of({"instruct": instruct, "thinking": thinking}))
    with writing(_console(), total=models.pair.num_bytes) as on_bytes:
        write(models, chosen, out, max_shard_size=shard_size, on_bytes=on_bytes)
    click.echo(f"{out}: {chosen}")


@cli.command()
@model_options
@click.option("--lambda", "lam", type=float, metavar="X", help="One lambda for all parameters, 0 to 1.")
@click.option("--schedule", type=click.Path(path_type=Path), metavar="FILE", help="A schedule as YAML.")
@workers_option
def evaluate(lam: float | None, schedule: Path | None, **options: Any) -> None:
    """Measures one schedule on the search slice.

    \b
    autolambda evaluate --lambda 0.6                       of the bundled pair
    autolambda evaluate INSTRUCT THINKING --task my.jsonl --schedule schedule.yaml
    """
    from autolambda.progress import watching
    from autolambda.search import evaluate as run
    from autolambda.tables import measured_view

    chosen = schedule_of(lam, schedule)
    config = config_of(options)
    console = _console()
    with watching(console) as on_event:
        measured = run(config, chosen, on_event=on_event)
    console.print(measured_view(chosen, measured))


@cli.command()
@model_options
@click.option("--only", metavar="NAME,...", help="Some of uniform, layers, modules, decoding, backbones, methods.")
@click.option("--study", metavar="NAME", help="The study's name.  [default: the Thinking model's name]")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Writes a file instead.")
@storage_option
def ablate(
    only: str | None, study: str | None, form: str, out: Path | None, storage: str | None, **options: Any
) -> None:
    """Runs the paper's studies on a pair and prints their tables.

    With nothing but --study NAME, on the pair and the prompts of that study. Run the same command again after a crash
    or Ctrl-C: it goes on where it was, and what is done is printed at once.

    \b
    autolambda ablate                                      of the bundled pair
    autolambda ablate --study bundled --only layers,modules
    """
    names = ablation_names(only)
    config = config_of_study(options, study=study, storage=storage)
    name = default_name(config) if study is None else study
    url = storage_url(name, storage)
    from autolambda.ablation_tables import write_ablations
    from autolambda.progress import watching

    try:
        with watching(_console(stderr=form != "table" and out is None)) as on_event:
            _say_bundled(config, on_event)
            from autolambda import search as jobs  # slow to import: the display is on the screen meanwhile

            found = jobs.ablate(config, name=name, storage=url, only=names, on_event=on_event)
    except KeyboardInterrupt:
        click.echo("interrupted; nothing is lost. Go on with: the same command", err=True)
        raise SystemExit(INTERRUPTED) from None
    write_ablations(found, form=form, out=out, console=_console())


@cli.command()
@click.argument("curve", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def stages(curve: Path, form: str) -> None:
    """Finds the three stages in a sweep that you already have.

    CURVE is a CSV with the columns lambda,think_ratio[,num_responses][,accuracy,mean_tokens], shares from 0 to 1. With
    the last two it says where the sweet spot is, and where more tokens stop buying accuracy.

    \b
    autolambda stages sweep.csv
    """
    from autolambda.curve import read_curve
    from autolambda.formats import curve_json
    from autolambda.returns import worth_of_curve

    found = worth_of_curve(read_curve(curve))
    click.echo(curve_json(found) if form == "json" else "\n".join(found.sentences()))


@cli.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="CONFIG|FOLDER")
def validate(path: Path) -> None:
    """Checks a config before a GPU is touched, or an exported folder against its hashes.

    \b
    autolambda validate configs/qwen3-4b.yaml
    autolambda validate my-merge
    """
    if path.is_dir():
        from autolambda.export import check_export

        click.echo(f"{path}: intact, {check_export(path)}")
        return
    from autolambda.config import load_config
    from autolambda.job import validate as check

    *found, verdict = check(load_config(path, overrides={}))
    click.echo("\n".join(map(printable, [*found, f"{path}: {verdict}"])))


def _watch(config: Config, *, name: str, storage: str | None, confirm_for: float | None = None) -> None:
    """Runs a search or a confirmation with its progress on the screen, prints the answer and exits with its code."""
    from autolambda.progress import watching

    console, url = _console(), storage_url(name, storage)
    try:
        with watching(console) as on_event:
            found = _run(config, name=name, url=url, confirm_for=confirm_for, on_event=on_event)
    except KeyboardInterrupt:
        _say_interrupted(name, storage)
        raise SystemExit(INTERRUPTED) from None
    from autolambda.pareto import Verdict
    from autolambda.tables import report_view

    console.print(report_view(found, storage=storage))
    if found.verdict is Verdict.INFEASIBLE:
        raise SystemExit(INFEASIBLE)


def _run(config: Config, *, name: str, url: str, confirm_for: float | None, on_event: OnEvent) -> Report:
    _say_bundled(config, on_event)
    from autolambda import search as jobs  # slow to import: the display is on the screen meanwhile

    if confirm_for is None:
        return jobs.search(config, name=name, storage=url, on_event=on_event)
    return jobs.confirm(config, name=name, storage=url, budget=confirm_for, on_event=on_event)


def _say_bundled(config: Config, on_event: OnEvent) -> None:
    from autolambda.events import Noted

    if config.models.bundled:
        task = " and its arithmetic task" if [t.name for t in config.tasks] == ["arithmetic"] else ""
        on_event(Noted(f"no models given: this is the bundled pair of tiny models{task}"))


def _say_interrupted(name: str, storage: str | None) -> None:
    """The front so far, if there is one, and the command to go on with."""
    from autolambda.databases.base import shown_storage

    command = "the same command"
    try:
        stored_config(name, storage)
        where = ["--storage", shown_storage(storage)] if storage else []
        command = shlex.join(["autolambda", "resume", name, *where])
        from autolambda.tables import progress_view

        _console().print(progress_view(report_of(name, storage, None)))
    except InputError as error:
        logger.debug("no front to show: %s", error)  # interrupted before the study began, or before its first trial
    click.echo(f"interrupted; nothing is lost. Go on with: {command}", err=True)


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)


def main() -> None:
    """The entry point: every error of ours is one line (a pair's mismatches one each) and an exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill ends as Ctrl-C does
    try:
        code = cli.main(prog_name="autolambda", standalone_mode=False)
    except AutolambdaError as error:
        click.echo(_line(error), err=True)
        code = error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        code = InputError.exit_code
    except click.ClickException as error:
        click.echo(f"error: {error.format_message()}", err=True)
        code = InputError.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _line(error: AutolambdaError) -> str:
    """An error's message without secrets and control characters, which names from files and models may hold."""
    said = hide_secrets(str(error))
    lines = said.splitlines() if isinstance(error, PairError) else [said]
    lines = [printable(line) for line in lines]
    return "\n".join([f"error: {lines[0]}", *lines[1:]])
