"""Commands that measure without a search: one schedule, the paper's studies, a sweep in a CSV file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autolambda.api import default_name
from autolambda.cli.arguments import (
    ablation_names,
    config_of,
    config_of_study,
    schedule_of,
)
from autolambda.cli.options import (
    UserPath,
    everyday_options,
    lambda_option,
    model_options,
    out_option,
    quiet_option,
    rounding_option,
    schedule_option,
    storage_option,
    study_option,
    verbose_option,
    workers_option,
)
from autolambda.cli.output import end_interrupted, open_console, say_bundled, watching_or_not

if TYPE_CHECKING:  # imported by the functions, so that --help stays quick
    from autolambda.ablation.results import Ablation
    from autolambda.config import AblationName


@click.command()
@model_options
@lambda_option
@schedule_option
@rounding_option
@everyday_options
@workers_option
@quiet_option
@verbose_option
def evaluate(lam: float | None, schedule: Path | None, quiet: bool, **options: Any) -> None:
    """Measures one schedule on the search slice.

    \b
    autolambda evaluate --lambda 0.6                       the bundled pair
    autolambda evaluate INSTRUCT THINKING --task my.jsonl --schedule s.yaml
    """
    chosen = schedule_of(lam, schedule)
    config = config_of(options, quiet=quiet)
    console = open_console()
    with watching_or_not(console, quiet=quiet) as on_event:
        from autolambda.driver.search import evaluate as run  # slow to import: the display is on the screen meanwhile

        measured = run(config, chosen, on_event=on_event)
    from autolambda.report.terminal import measured_view

    console.print(measured_view(chosen, measured))


@click.command()
@model_options
@click.option(
    "--only", metavar="NAME,...", help="Only these of uniform, layers, modules, decoding, backbones, methods."
)
@study_option
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@out_option
@storage_option
def ablate(
    only: str | None, study: str | None, form: str, out: Path | None, storage: str | None, **options: Any
) -> None:
    """Runs the paper's studies on a pair and prints their tables.

    With --study NAME alone it takes the pair and the prompts of that study. Run the same command again after a crash
    or Ctrl-C: it continues where it stopped. A finished one prints its tables at once.

    \b
    autolambda ablate                                      the bundled pair
    autolambda ablate --study bundled --only layers,modules
    """
    names = ablation_names(only)
    config = config_of_study(options, study=study, storage=storage)
    name = default_name(config) if study is None else study
    from autolambda.ablation.table import ablations_view, write_ablations
    from autolambda.cli.progress import watching
    from autolambda.study.places import storage_url

    url = storage_url(name, storage)
    console = open_console(stderr=form != "table" and out is None)
    try:
        with watching(console) as on_event:
            say_bundled(config, on_event)
            from autolambda.ablation.run import ablate as run  # slow to import: the display is on the screen meanwhile

            found = run(config, name=name, storage=url, only=names, on_event=on_event)
    except KeyboardInterrupt:
        chosen = {"only": only, "format": None if form == "table" else form, "out": out}
        go_on = ["ablate", f"--study={name}", *(f"--{key}={value}" for key, value in chosen.items() if value)]
        end_interrupted(
            go_on,
            config,
            name=name,
            storage=storage,
            so_far=lambda: ablations_view(_measured(name, storage, names)),
            console=console,
        )
    write_ablations(found, form=form, out=out, console=open_console())


@click.command()
@click.argument("curve", type=UserPath())
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def stages(curve: Path, form: str) -> None:
    """Finds the three stages in a sweep that was measured before.

    CURVE is a CSV file with the columns lambda,think_ratio[,num_responses][,accuracy,mean_tokens]; ratios go from 0 to
    1. The last two columns add the sweet spot, and the lambda from which more tokens stop buying accuracy.

    \b
    autolambda stages sweep.csv
    """
    from autolambda.report.json_csv import curve_json
    from autolambda.statistics.curve import read_curve
    from autolambda.statistics.token_value import curve_insights

    found = curve_insights(read_curve(curve))
    click.echo(curve_json(found) if form == "json" else "\n".join(found.sentences()))


def _measured(name: str, storage: str | None, only: Sequence[AblationName]) -> tuple[Ablation, ...]:
    from autolambda.ablation.results import read_ablations
    from autolambda.study.reader import open_for_reading

    with open_for_reading(name, storage, with_texts=False) as reader:
        return read_ablations(reader, only=only)
