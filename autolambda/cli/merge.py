"""Commands that write a merge as a checkpoint folder, from a study or without one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from autolambda.cli.arguments import config_of, method_of
from autolambda.cli.options import (
    UserPath,
    budget_option,
    lambda_option,
    rounding_option,
    schedule_option,
    storage_option,
    trial_option,
)
from autolambda.cli.output import open_console, writing
from autolambda.errors import printable
from autolambda.merging.method import METHODS, ROLES

shard_size_option = click.option(
    "--max-shard-size", default="5GB", show_default=True, metavar="SIZE", help="Largest size of a weight file."
)


@click.command()
@click.argument("name")
@click.argument("out", type=UserPath())
@budget_option
@trial_option
@shard_size_option
@click.option("--push-to-hub", metavar="REPO", help="Uploads the folder as well; a new repository is private.")
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
    from autolambda.driver.models import open_models
    from autolambda.export.export import export as write
    from autolambda.export.hub import check_repository, push
    from autolambda.export.provenance import Provenance
    from autolambda.merging.shards import parse_size
    from autolambda.report.read import read_report

    shard_size = parse_size(max_shard_size)
    if push_to_hub is not None:
        check_repository(push_to_hub)
    found = read_report(name, storage, budget)
    measurement = Provenance.of(found, trial=trial)
    entry = measurement.entry
    models = open_models(found.config, further=entry.schedule.further)
    with writing(open_console(), total=models.pair.num_bytes) as on_bytes:
        notes = write(
            models, entry.schedule, out, max_shard_size=shard_size, measurement=measurement, on_bytes=on_bytes
        )
    _say(notes)
    click.echo(f"{out}: {entry.schedule}" + ("" if entry.confirmed else " (not confirmed)"))
    if push_to_hub is not None:
        click.echo(f"{out}: {push(out, push_to_hub)}")


@click.command()
@click.argument("instruct")
@click.argument("thinking")
@click.argument("out", type=UserPath())
@lambda_option
@schedule_option
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="linear",
    show_default=True,
    help="linear and slerp take --lambda or --schedule, the others --base.",
)
@click.option("--base", metavar="MODEL", help="The base model of both: for task_arithmetic, ties, and a scale.")
@click.option("--third", metavar="MODEL", help="The third parent of a schedule with one.")
@rounding_option
@click.option(
    "--vision",
    type=click.Choice(ROLES),
    help="The parent whose vision part is kept, of models that have one.  [default: thinking]",
)
@click.option("--rounding-seed", type=int, metavar="N", help="Seed of dithered rounding.  [default: 0]")
@shard_size_option
def merge(
    instruct: str,
    thinking: str,
    out: Path,
    lam: float | None,
    schedule: Path | None,
    method: str,
    base: str | None,
    third: str | None,
    rounding: str | None,
    rounding_seed: int | None,
    vision: str | None,
    max_shard_size: str,
) -> None:
    """Writes one merge as a checkpoint folder, without a study.

    \b
    autolambda merge INSTRUCT THINKING OUT --lambda 0.6
    autolambda merge INSTRUCT THINKING OUT --method ties --base BASE
    autolambda merge INSTRUCT THINKING OUT --schedule FILE --base BASE --third CODER
    """
    from autolambda.driver.models import open_models
    from autolambda.export.export import export as write
    from autolambda.merging.shards import parse_size

    chosen, shard_size = method_of(method, lam, schedule, base, third), parse_size(max_shard_size)
    sources = {"instruct": instruct, "thinking": thinking, "base": base, "third": third}
    read = {role: sources[role] for role in ("instruct", "thinking", *chosen.further)}  # a method opens its own base
    settings = {**read, "vision": vision, "rounding": rounding, "rounding_seed": rounding_seed}
    models = open_models(config_of(settings), further=chosen.further)
    with writing(open_console(), total=models.pair.num_bytes) as on_bytes:
        notes = write(models, chosen, out, max_shard_size=shard_size, on_bytes=on_bytes)
    _say(notes)
    click.echo(f"{out}: {chosen}")


def _say(notes: Sequence[str]) -> None:
    for note in notes:
        click.echo(f"note: {printable(note)}", err=True)
