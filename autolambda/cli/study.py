"""Commands that only read studies: list them, show the progress of one, print its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autolambda.cli.options import (
    budget_option,
    json_option,
    out_option,
    storage_option,
    verbose_option,
)
from autolambda.cli.output import open_console, say
from autolambda.errors import StorageError, StudyError, error_line, printable

if TYPE_CHECKING:  # imported by the functions, so that --help stays quick
    from autolambda.study.holder import Holder
    from autolambda.study.overview import Overview


@click.command("list")
@json_option
@storage_option
@verbose_option
def list_studies(as_json: bool, storage: str | None) -> None:
    """Lists the studies here with their state and verdict.

    \b
    autolambda list
    autolambda list --storage postgresql://me@host/studies
    """
    from autolambda.study.places import studies_folder, studies_under

    urls = [url for _, url in studies_under(studies_folder())] if storage is None else [storage]
    found = [each for url in urls for each in _studies_in(url, is_only=storage is not None)]
    if as_json:
        click.echo(json.dumps([each.to_dict() for each in found], indent=2))
    elif found:
        _print_table(found)
    else:
        where = "" if storage else f" ({studies_folder().absolute()})"
        click.echo(f"no studies here{where}; start one with: autolambda demo")


def _studies_in(url: str, *, is_only: bool) -> list[Overview]:
    """Returns the studies of a database; one of several that is broken is named on stderr instead."""
    from autolambda.study.databases.connection import storage_errors
    from autolambda.study.overview import overviews

    try:
        with storage_errors():
            return list(overviews(url))
    except (StudyError, StorageError) as error:
        if is_only:
            raise
        click.echo(error_line(error), err=True)  # a broken database does not hide the others
        return []


def _print_table(found: list[Overview]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("study", "state", "models", "on", "budget", "trials", "verdict"):
        is_number = name in ("budget", "trials")
        table.add_column(
            name,
            justify="right" if is_number else "left",
            no_wrap=is_number or name == "state",
            overflow="fold",
        )
    for each in found:
        best = each.answer.get("best") if each.answer else None
        verdict = each.verdict or ""
        if verdict and best:
            verdict += f"\n{best['accuracy']:.1%} at {best['mean_tokens']:,.1f}"
        budget = "" if each.budget is None else f"{each.budget:,g}"
        models, tasks = ("\n".join(map(printable, texts)) for texts in (each.models, each.tasks))
        trials = f"{each.num_trials} of {each.most_trials}"
        table.add_row(*map(Text, (each.stored.name, each.state, models, tasks, budget, trials, verdict)))
    open_console().print(table)


@click.command()
@click.argument("name")
@click.option("--watch", is_flag=True, help="Refreshes until the study is done, and shows its front.")
@budget_option
@json_option
@storage_option
@verbose_option
def status(name: str, watch: bool, budget: float | None, as_json: bool, storage: str | None) -> None:
    """Shows how far a study is, and its answer so far.

    \b
    autolambda status bundled --watch
    autolambda status bundled --watch --budget 60
    """
    from autolambda.study.places import check_exists, storage_url

    check_exists(name, storage)
    from autolambda.report.read import positive_budget
    from autolambda.report.status import show_status, status_json

    wanted, url = None if budget is None else positive_budget(budget), storage_url(name, storage)
    if as_json:
        click.echo(status_json(name, url, budget=wanted), nl=False)
    else:
        show_status(name, url, console=open_console(), watch=watch, budget=wanted)


@click.command()
@click.argument("name")
@budget_option
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "csv", "html"]), default="table", show_default=True
)
@out_option
@storage_option
@verbose_option
def report(name: str, budget: float | None, form: str, out: Path | None, storage: str | None) -> None:
    """Prints fronts, stages and verdict, for any budget.

    The study may still be running. --format html prints one page for a browser, with figures and responses.

    \b
    autolambda report bundled --budget 60
    autolambda report bundled --format html --out report.html
    """
    from autolambda.study.holder import holder_of
    from autolambda.study.places import check_exists, storage_url

    check_exists(name, storage)
    holder = holder_of(storage_url(name, storage), name)
    _write(name, budget, form, out, storage, holder=holder)
    if out is not None:
        say(f"{out} is written" + ("; open it in a browser" if form == "html" else ""))
    if holder is not None:
        say(f"study '{name}' is still running ({holder}); watch it: autolambda status {name} --watch")


def _write(
    name: str, budget: float | None, form: str, out: Path | None, storage: str | None, *, holder: Holder | None
) -> None:
    """Writes a report. Of a study that runs, a table without a verdict advises no command, which would be refused."""
    if form == "html":
        from autolambda import open_study
        from autolambda.report.json_csv import write_text

        page = open_study(name, storage=storage, budget=budget).page
        if out is None:
            click.echo(page.encode("utf-8"), nl=False)  # as the page says, whatever the terminal's encoding
        else:
            write_text(page, out=out, console=open_console())
        return
    from autolambda.report.json_csv import write_report
    from autolambda.report.read import read_report
    from autolambda.report.terminal import progress_view

    found = read_report(name, storage, budget)
    if holder is not None and form == "table" and out is None and found.verdict is None:
        open_console().print(progress_view(found))
    else:
        write_report(found, form=form, out=out, console=open_console(), storage=storage)
