"""Commands that run a study: ``search`` begins one, ``resume`` continues it, ``confirm`` re-measures its picks.

Each shows its progress, then prints the answer. After Ctrl-C it prints the command to continue with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from autolambda.api import default_name
from autolambda.cli.arguments import (
    config_of,
    with_workers,
)
from autolambda.cli.options import (
    INFEASIBLE,
    budget_option,
    end_interrupted,
    log_option,
    model_options,
    open_console,
    say_bundled,
    storage_option,
    study_option,
    workers_option,
)

if TYPE_CHECKING:  # imported by the functions, so that --help stays quick
    from autolambda.config import Config


@click.command()
@model_options
@budget_option
@study_option
@click.option("--trials", type=int, metavar="N", help="Trials in all; a finished study continues with more.")
@click.option("--seed", type=int, metavar="N", help="Seed of proposals and responses.")
@workers_option
@log_option
@storage_option
def search(budget: float | None, study: str | None, storage: str | None, **options: Any) -> None:
    """Creates or resumes a study and prints its verdict.

    Run the same command again after a crash or Ctrl-C: it continues where it stopped.

    \b
    autolambda search --budget 40                          the bundled pair
    autolambda search INSTRUCT THINKING --task my.jsonl --budget 4000
    autolambda search --config configs/math.yaml --set search.trials=100
    """
    config = config_of(options, budget=budget)
    _watch(config, name=default_name(config) if study is None else study, storage=storage)


@click.command()
@click.argument("name")
@workers_option
@storage_option
def resume(name: str, workers: int | None, storage: str | None) -> None:
    """Continues a study with its stored config.

    \b
    autolambda resume bundled
    """
    from autolambda.study.reader import stored_config

    _watch(with_workers(stored_config(name, storage), workers), name=name, storage=storage)


@click.command()
@click.argument("name")
@click.option("--budget", type=float, metavar="TOKENS", required=True, help="The budget to confirm the picks for.")
@workers_option
@storage_option
def confirm(name: str, budget: float, workers: int | None, storage: str | None) -> None:
    """Re-measures the picks for another budget on unseen prompts.

    \b
    autolambda confirm bundled --budget 60
    """
    from autolambda.report.read import positive_budget
    from autolambda.study.reader import stored_config

    config = with_workers(stored_config(name, storage), workers)
    _watch(config, name=name, storage=storage, confirm_for=positive_budget(budget))


def _watch(config: Config, *, name: str, storage: str | None, confirm_for: float | None = None) -> None:
    """Runs a search, or the confirmation for a budget, with its progress on the screen; prints the answer.

    Ends the process with its exit code if no schedule is feasible, or after Ctrl-C.
    """
    from autolambda.cli.progress import watching
    from autolambda.study.reader import storage_url

    console, url = open_console(), storage_url(name, storage)
    try:
        with watching(console) as shown:
            say_bundled(config, shown)
            from autolambda.driver import search as jobs  # slow to import: the display is on the screen meanwhile
            from autolambda.study_view import StudyView
            from autolambda.tracking.tracking import tracking

            with tracking(config, study=name, on_event=shown) as on_event:
                if confirm_for is None:
                    found = jobs.search(config, name=name, storage=url, on_event=on_event)
                else:
                    found = jobs.confirm(config, name=name, storage=url, budget=confirm_for, on_event=on_event)
                on_event.finish(found, lambda: StudyView(name, storage, found.budget).page)
    except KeyboardInterrupt:
        from autolambda.report.read import read_report
        from autolambda.report.terminal import progress_view

        go_on = ["resume", name] if confirm_for is None else ["confirm", name, "--budget", f"{confirm_for:.12g}"]
        end_interrupted(
            go_on,
            config,
            name=name,
            storage=storage,
            so_far=lambda: progress_view(read_report(name, storage, None)),
            console=console,
        )
    from autolambda.report.terminal import report_view
    from autolambda.statistics.verdict import Verdict

    console.print(report_view(found, storage=storage))
    if found.verdict is Verdict.INFEASIBLE:
        raise SystemExit(INFEASIBLE)
