"""Commands that run a study: ``search`` begins one, ``demo`` searches the bundled pair, ``resume`` continues a study,
``confirm`` re-measures its picks.

Each shows its progress, then prints the answer. After Ctrl-C it prints the command to continue with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from autolambda.api import default_name
from autolambda.cli.arguments import config_of, study_config
from autolambda.cli.options import (
    Tokens,
    budget_option,
    everyday_options,
    json_option,
    log_option,
    model_options,
    quiet_option,
    storage_option,
    study_option,
    verbose_option,
    workers_option,
)
from autolambda.cli.output import INFEASIBLE, end_interrupted, open_console, print_answer, say_bundled, watching_or_not

if TYPE_CHECKING:  # imported by the functions, so that --help stays quick
    from autolambda.config import Config
    from autolambda.driver.events import OnEvent
    from autolambda.report.report import Report


@click.command()
@model_options
@budget_option
@everyday_options
@study_option
@click.option("--trials", type=int, metavar="N", help="Trials in all; a finished study continues with more.")
@click.option("--seed", type=int, metavar="N", help="Seed of proposals and responses.")
@workers_option
@log_option
@storage_option
@click.option("--dry-run", is_flag=True, help="Checks everything and prints the cost, as 'validate' does, then stops.")
@json_option
@quiet_option
@verbose_option
def search(
    budget: float | None,
    study: str | None,
    storage: str | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Finds the best merge for a budget and prints it.

    Run the same command again after a crash or Ctrl-C: it continues where it stopped.

    \b
    autolambda search --budget 4000        the models and tasks of ./autolambda.yaml
    autolambda search INSTRUCT THINKING --task my.jsonl --budget 4k
    autolambda search --config configs/math.yaml --set search.trials=100
    """
    config = config_of(options, budget=budget, quiet=quiet, is_search=True)
    name = default_name(config) if study is None else study
    if dry_run:
        from autolambda.cli.begin import print_inspection

        print_inspection(config, source=name, as_json=as_json)
        return
    from autolambda.study.holder import check_free

    check_free(name, storage)
    _watch(config, name=name, storage=storage, as_json=as_json, quiet=quiet)


@click.command()
@click.option(
    "--budget", type=Tokens(), metavar="TOKENS", default=40.0, show_default="40", help="Mean tokens of a response."
)
@storage_option
@quiet_option
@verbose_option
def demo(budget: float, storage: str | None, quiet: bool) -> None:
    """Searches the bundled pair of tiny models: two minutes.

    \b
    autolambda demo
    autolambda demo --budget 60
    """
    from autolambda.config_file import load_config
    from autolambda.study.holder import check_free

    config = load_config(None, overrides={"budget": budget})
    check_free("bundled", storage)
    _watch(config, name="bundled", storage=storage, quiet=quiet)


@click.command()
@click.argument("name")
@workers_option
@storage_option
@quiet_option
@verbose_option
def resume(name: str, workers: int | None, storage: str | None, quiet: bool) -> None:
    """Continues a study with its stored config.

    \b
    autolambda resume bundled
    """
    _watch(study_config(name, storage, workers), name=name, storage=storage, quiet=quiet, says_bundled=False)


@click.command()
@click.argument("name")
@click.option("--budget", type=Tokens(), metavar="TOKENS", required=True, help="The budget to confirm the picks for.")
@workers_option
@storage_option
@quiet_option
@verbose_option
def confirm(name: str, budget: float, workers: int | None, storage: str | None, quiet: bool) -> None:
    """Measures the picks for another budget on unseen prompts.

    \b
    autolambda confirm bundled --budget 60
    """
    from autolambda.report.read import positive_budget

    config = study_config(name, storage, workers)
    wanted = positive_budget(budget)
    _watch(config, name=name, storage=storage, confirm_for=wanted, quiet=quiet, says_bundled=False)


def _watch(
    config: Config,
    *,
    name: str,
    storage: str | None,
    confirm_for: float | None = None,
    as_json: bool = False,
    quiet: bool = False,
    says_bundled: bool = True,
) -> None:
    """Runs a search, or the confirmation for a budget, with its progress on the screen; prints the answer.

    Ends the process with its exit code if no schedule is feasible, or after Ctrl-C.
    """
    from autolambda.study.places import check_folder

    console = open_console(stderr=as_json)
    check_folder(name, storage)
    try:
        with watching_or_not(console, quiet=quiet) as shown:
            if says_bundled:
                say_bundled(config, shown)
            found = _run(config, name=name, storage=storage, confirm_for=confirm_for, on_event=shown)
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
    from autolambda.statistics.verdict import Verdict

    print_answer(found, storage=storage, as_json=as_json, quiet=quiet)
    if found.verdict is Verdict.INFEASIBLE:
        raise SystemExit(INFEASIBLE)


def _run(config: Config, *, name: str, storage: str | None, confirm_for: float | None, on_event: OnEvent) -> Report:
    """Runs the job, and tells the trackers of the config as well."""
    from autolambda.driver import search as jobs  # slow to import: the display is on the screen meanwhile
    from autolambda.study.places import storage_url
    from autolambda.study_view import StudyView
    from autolambda.tracking.tracking import tracking

    url = storage_url(name, storage)
    with tracking(config, study=name, on_event=on_event) as tracked:
        if confirm_for is None:
            found = jobs.search(config, name=name, storage=url, on_event=tracked)
        else:
            found = jobs.confirm(config, name=name, storage=url, budget=confirm_for, on_event=tracked)
        tracked.finish(found, lambda: StudyView(name, storage, found.budget).page)
    return found
