"""Commands to begin with: ``init`` writes the project file, ``validate`` checks a config, ``schema`` describes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autolambda.cli.arguments import config_of, overrides_of
from autolambda.cli.options import (
    budget_option,
    config_option,
    everyday_options,
    json_option,
    set_option,
    task_option,
    verbose_option,
)
from autolambda.cli.output import echo_wrapped
from autolambda.errors import InputError, printable

if TYPE_CHECKING:  # imported by the functions, so that --help stays quick
    from autolambda.config import Config
    from autolambda.project.inspection import Inspection


@click.command()
@click.argument("instruct")
@click.argument("thinking")
@task_option
@everyday_options
@budget_option
@click.option("--force", is_flag=True, help="Replaces an autolambda.yaml that is here.")
@verbose_option
def init(instruct: str, thinking: str, tasks: tuple[str, ...], budget: float | None, force: bool, **keys: Any) -> None:
    """Writes ./autolambda.yaml after a look at models and data.

    \b
    autolambda init INSTRUCT THINKING --task my.jsonl
    autolambda search --budget 4000        is the whole command from then on
    """
    from autolambda.errors import ConfigError
    from autolambda.files import PROJECT_FILE
    from autolambda.project.paths import check_paths, check_writable

    if not tasks:
        raise ConfigError("--task: give the file that holds a question and an answer in each row: --task my.jsonl")
    check_paths((instruct, thinking), tasks, None)
    check_writable(Path(PROJECT_FILE), force=force)
    from autolambda.config_file import load_config
    from autolambda.project.checks import check_inputs

    limit, grader = keys.pop("limit"), keys.pop("grader")
    settings = overrides_of(keys, budget)
    config = load_config(None, overrides=overrides_of({"instruct": instruct, "thinking": thinking}) | settings)
    check_inputs(config, tasks)
    from autolambda.project.begin import look_at  # slow to import
    from autolambda.project.write import write_project

    if limit is not None:
        settings["confirm.limit"] = limit
    project = look_at(config, tasks, grader=grader, limit=limit, settings=settings)
    path = write_project(project.text(), Path(), force=force)
    for line in project.found_lines():
        echo_wrapped(printable(f"found: {line}"))
    if project.asked:
        click.echo("\n".join(f"to do: {printable(each)}" for each in project.asked))
        raise ConfigError(
            f"{path} is written, but not complete: fill in what it marks with TO DO, then: autolambda search"
        )
    from autolambda.project.inspection import inspect

    is_here = project.models.models is not None
    found = inspect(load_config(path, overrides={}), with_models=is_here, with_difference=False)
    _print(found, source=f"{path}, written")
    click.echo(f"Next: autolambda search{'' if budget is not None else ' --budget 4000'}")


@click.command()
@click.argument("paths", nargs=-1, metavar="[CONFIG|FOLDER] [INSTRUCT THINKING]")
@config_option
@set_option
@task_option
@budget_option
@everyday_options
@json_option
@verbose_option
def validate(paths: tuple[str, ...], budget: float | None, as_json: bool, **options: Any) -> None:
    """Checks a config, or an exported folder by its hashes.

    It needs no GPU, no vLLM and no network. It lists all problems, and what is known of prompts, tokens, memory and
    disk. Without arguments it checks ./autolambda.yaml.

    \b
    autolambda validate configs/qwen3-4b.yaml
    autolambda validate INSTRUCT THINKING --task my.jsonl
    autolambda validate my-merge           an exported folder
    """
    first = Path(paths[0]).expanduser() if len(paths) in (1, 3) else None
    if len(paths) == 1 and first and first.is_dir():
        from autolambda.export.export import check_export

        intact = check_export(first)
        click.echo(json.dumps({"source": str(first), "valid": True, "schedule": str(intact)}, indent=2) if as_json
                   else f"{first}: intact, {intact}")  # fmt: skip
        return
    config, source = _config_to_check(paths, first, options, budget, quiet=as_json)
    print_inspection(config, source=source, as_json=as_json)


def _config_to_check(
    paths: tuple[str, ...], first: Path | None, options: dict[str, Any], budget: float | None, *, quiet: bool
) -> tuple[Config, str]:
    """Returns the config that ``validate`` is asked about, and its name. Raises ``ConfigError``."""
    from autolambda.errors import ConfigError
    from autolambda.files import PROJECT_FILE, project_file

    if len(paths) > 3:
        raise ConfigError(f"give a config or a folder, and two models; seen {len(paths)} arguments")
    if first is not None:
        options = options | {"config": first}
    instruct, thinking = paths[-2:] if len(paths) > 1 else (None, None)
    if not paths and options["config"] is None and not options["tasks"] and project_file() is None:
        raise ConfigError(f"no {PROJECT_FILE} here: give a config, a folder, or INSTRUCT THINKING --task FILE")
    named = options | {"instruct": instruct, "thinking": thinking}
    source = str(options["config"] or (f"{instruct} and {thinking}" if instruct else PROJECT_FILE))
    return config_of(named, budget=budget, quiet=quiet, checks=False), source


def print_inspection(config: Config, *, source: str, as_json: bool) -> None:
    """Prints what an inspection of a config finds. Ends the process with the exit code of bad input for a problem."""
    from autolambda.project.inspection import inspect

    found = inspect(config)
    if as_json:
        click.echo(json.dumps(found.to_dict(source), indent=2))
        if not found.is_valid:
            raise SystemExit(InputError.exit_code)
        return
    _print(found, source=source)


def _print(found: Inspection, *, source: str) -> None:
    """Prints notes and lines, then problems on stderr, then the verdict. Ends the process if there is a problem."""
    for line in (*(f"note: {note}" for note in found.notes), *found.lines):
        echo_wrapped(printable(line))
    for problem in found.problems:
        click.echo(f"error: {printable(problem, keep=chr(10))}", err=True)
    echo_wrapped(printable(f"{source}: {found.verdict}"))
    if not found.is_valid:
        raise SystemExit(InputError.exit_code)


@click.command()
def schema() -> None:
    """Prints the JSON schema of the config, for editors.

    \b
    autolambda schema > autolambda.schema.json
    """
    from autolambda.project.schema import schema_json

    click.echo(schema_json(), nl=False)
