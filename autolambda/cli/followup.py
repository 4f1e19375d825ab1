"""Commands that follow a search: ``transfer`` measures its pick on other tasks, ``check`` where it is served."""

from __future__ import annotations

import click

from autolambda.cli.arguments import other_tasks, study_config
from autolambda.cli.options import (
    budget_option,
    grader_option,
    json_option,
    quiet_option,
    storage_option,
    task_option,
    trial_option,
    verbose_option,
    workers_option,
)
from autolambda.cli.output import INTERRUPTED, end_interrupted, open_console, watching_or_not


@click.command()
@click.argument("name")
@task_option
@budget_option
@trial_option
@click.option("--limit", type=int, metavar="N", help="At most N prompts a task.  [default: 200]")
@grader_option
@workers_option
@json_option
@storage_option
@quiet_option
@verbose_option
def transfer(
    name: str,
    tasks: tuple[str, ...],
    budget: float | None,
    trial: int | None,
    limit: int | None,
    grader: str | None,
    workers: int | None,
    as_json: bool,
    storage: str | None,
    quiet: bool,
) -> None:
    """Measures the pick of a study on other tasks, beside both parents.

    Run the same command again after a crash or Ctrl-C: it continues where it stopped.

    \b
    autolambda transfer bundled --task other.jsonl
    autolambda transfer NAME --task gsm8k --task ifeval --limit 100
    """
    from autolambda.report.followup.table import transfers_json, transfers_view
    from autolambda.study.places import storage_url

    config = study_config(name, storage, workers)
    others = other_tasks(tasks, grader)
    console = open_console(stderr=as_json)
    try:
        with watching_or_not(console, quiet=quiet) as on_event:
            from autolambda.driver.followup.transfer import LIMIT
            from autolambda.driver.followup.transfer import transfer as run  # slow to import

            found = run(
                config,
                others,
                name=name,
                storage=storage_url(name, storage),
                budget=config.budget if budget is None else budget,
                trial=trial,
                limit=LIMIT if limit is None else limit,
                on_event=on_event,
            )
    except KeyboardInterrupt:
        from autolambda.report.read import read_report

        chosen = {"budget": budget, "trial": trial, "limit": limit, "grader": grader}
        options = [
            *(f"--task={task}" for task in tasks),
            *(f"--{key}={value}" for key, value in chosen.items() if value is not None),
        ]
        end_interrupted(
            ["transfer", name, *options],
            config,
            name=name,
            storage=storage,
            so_far=lambda: transfers_view(read_report(name, storage, budget).transfers),
            console=console,
        )
    if as_json:
        click.echo(transfers_json(found), nl=False)
    else:
        open_console().print(transfers_view(found))


@click.command()
@click.argument("name")
@click.option(
    "--endpoint", metavar="URL", required=True, help="The server's address, such as http://localhost:8000/v1."
)
@click.option("--model", metavar="NAME", help="The pick's name on the server.  [default: the only one served]")
@click.option("--parents", nargs=2, metavar="INSTRUCT THINKING", help="The parents' names on it, to check them too.")
@click.option("--label", metavar="TEXT", help="How the model is served, such as fp8; another label measures anew.")
@budget_option
@trial_option
@click.option("--limit", type=int, metavar="N", help="At most N responses a model.  [default: as in the confirmation]")
@click.option("--concurrency", type=int, default=32, show_default=True, metavar="N", help="Requests at a time.")
@click.option("--timeout", type=float, default=3600, show_default=True, metavar="SECONDS", help="Of one request.")
@json_option
@storage_option
@quiet_option
@verbose_option
def check(
    name: str,
    endpoint: str,
    model: str | None,
    parents: tuple[str, str] | None,
    label: str | None,
    budget: float | None,
    trial: int | None,
    limit: int | None,
    concurrency: int,
    timeout: float,
    as_json: bool,
    storage: str | None,
    quiet: bool,
) -> None:
    """Measures the pick through an OpenAI-compatible server, beside the study.

    Quantised weights or caches can change a merge. The key of the server comes from OPENAI_API_KEY. Run the same
    command again after a crash or Ctrl-C: it continues where it stopped.

    \b
    autolambda check bundled --endpoint http://localhost:8000/v1
    autolambda check NAME --endpoint URL --model pick-fp8 --label fp8
    """
    from autolambda.report.followup.table import served_json, served_view
    from autolambda.study.places import storage_url

    config = study_config(name, storage, None)
    console = open_console(stderr=as_json)
    try:
        with watching_or_not(console, quiet=quiet) as on_event:
            from autolambda.driver.followup.served import check as run  # slow to import

            found = run(
                config,
                endpoint,
                name=name,
                storage=storage_url(name, storage),
                model=model,
                parents=parents,
                label=label,
                budget=config.budget if budget is None else budget,
                trial=trial,
                limit=limit,
                concurrency=concurrency,
                timeout=timeout,
                on_event=on_event,
            )
    except KeyboardInterrupt:
        click.echo("interrupted; stored responses are kept. Go on with: the same command", err=True)
        raise SystemExit(INTERRUPTED) from None
    if as_json:
        click.echo(served_json(found), nl=False)
    else:
        open_console().print(served_view(found))
