"""Commands that only read studies: list them, show the progress of one, print its report."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from autolambda.cli.options import budget_option, open_console, out_option, storage_option
from autolambda.errors import StorageError, StudyError, error_line


@click.command("list")
@storage_option
def list_studies(storage: str | None) -> None:
    """Lists the studies under ./studies, or in one database.

    \b
    autolambda list
    autolambda list --storage postgresql://me@host/studies
    """
    from autolambda.study.connection import shown_storage, storage_errors
    from autolambda.study.store import Store
    from autolambda.study.trials import studies_under

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
            click.echo(error_line(error), err=True)  # a broken database does not hide the others
    if not found:
        click.echo("no studies here; start one with: autolambda search --budget 40")


@click.command()
@click.argument("name")
@click.option("--watch", is_flag=True, help="Refreshes until the study is done.")
@budget_option
@storage_option
def status(name: str, watch: bool, budget: float | None, storage: str | None) -> None:
    """Shows a study's progress and its front so far.

    \b
    autolambda status bundled --watch
    autolambda status bundled --watch --budget 60
    """
    from autolambda.report.read import positive_budget
    from autolambda.report.status import show_status
    from autolambda.study.reader import storage_url

    wanted = None if budget is None else positive_budget(budget)
    show_status(name, storage_url(name, storage), console=open_console(), watch=watch, budget=wanted)


@click.command()
@click.argument("name")
@budget_option
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "csv", "html"]), default="table", show_default=True
)
@out_option
@storage_option
def report(name: str, budget: float | None, form: str, out: Path | None, storage: str | None) -> None:
    """Prints a study's front, stages and verdict for any budget.

    The study may still be running. --format html prints one page for a browser, with figures and responses.

    \b
    autolambda report bundled --budget 60
    autolambda report bundled --format html --out report.html
    """
    if form == "html":
        from autolambda import open_study
        from autolambda.report.json_csv import write_text

        page = open_study(name, storage=storage, budget=budget).page
        if out is None:
            click.echo(page.encode("utf-8"), nl=False)  # as the page says, whatever the terminal's encoding
        else:
            write_text(page, out=out, console=open_console())
    else:
        from autolambda.report.json_csv import write_report
        from autolambda.report.read import read_report

        write_report(read_report(name, storage, budget), form=form, out=out, console=open_console(), storage=storage)
