"""Options and arguments that several commands share, and the types of their values.

This module imports little, so that ``--help`` stays quick.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autolambda.merging.method import ROUNDINGS

Command = Callable[..., Any]

if TYPE_CHECKING:
    _FloatType = click.ParamType[float]
else:  # click 8.1 has no parameter there
    _FloatType = click.ParamType

_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|[\d_]+(?:\.\d+)?")


class Tokens(_FloatType):
    """A number of tokens: ``4000``, ``4k``, ``1.5k`` or ``4,000``."""

    name = "tokens"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Returns the number. Fails for anything else; the config refuses what is not positive."""
        if isinstance(value, int | float):
            return float(value)
        text = str(value).strip().lower()
        number, thousands = (text[:-1].strip(), 1000) if text.endswith("k") else (text, 1)
        try:
            plain = number.replace(",", "").replace("_", "") if _NUMBER.fullmatch(number) else number
            return float(plain) * thousands
        except ValueError:
            self.fail(f"{str(value)!r}: give a number of tokens, for example 4000", param, ctx)


class UserPath(click.Path):
    """A path; ``~`` is the home folder, also where the shell has not replaced it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the path with its ``~`` expanded."""
        return super().convert(os.path.expanduser(value), param, ctx)


storage_option = click.option(
    "--storage",
    envvar="AUTOLAMBDA_STORAGE",
    metavar="URL",
    help="The study's database, sqlite:///PATH or postgresql://USER@HOST/DB.  [default: studies/NAME/study.db]",
)
budget_option = click.option(
    "--budget", type=Tokens(), metavar="TOKENS", help="Mean tokens that a response may cost, such as 4000 or 4k."
)
trial_option = click.option("--trial", type=int, metavar="N", help="This trial instead of the pick.")
workers_option = click.option(
    "--workers", type=int, metavar="N", help="Share the work between N engines, each with its own GPUs (needs Ray)."
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
    "--out", type=UserPath(dir_okay=False), metavar="FILE", help="Writes to a file instead of the terminal."
)
lambda_option = click.option(
    "--lambda", "lam", type=float, metavar="X", help="One lambda for all parameters: 0 is Instruct, 1 Thinking."
)
schedule_option = click.option("--schedule", type=UserPath(), metavar="FILE", help="A schedule in a YAML file.")
rounding_option = click.option(
    "--rounding",
    type=click.Choice(ROUNDINGS),
    help="How weights in bf16 and fp16 are rounded.  [default: the config's, else dithered]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Prints one JSON object instead of text.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Prints the answer alone: no notes, no progress.")


def _set_level(context: click.Context, parameter: click.Parameter, is_verbose: bool) -> None:
    if is_verbose:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("autolambda").setLevel(logging.DEBUG)


verbose_option = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=_set_level,
    help="Logs what happens inside, on stderr.",
)
task_option = click.option(
    "--task",
    "tasks",
    multiple=True,
    metavar="NAME|FILE",
    help="A file or folder with 'question' and 'answer', a benchmark, or a hub id; repeatable.",
)
set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Sets any config key, as in search.trials=9; 'autolambda schema' has them all; repeatable.",
)
config_option = click.option(
    "--config",
    type=UserPath(),
    metavar="FILE",
    help="A config in YAML.  [default: autolambda.yaml here or in the nearest parent]",
)
_CONFIG = (
    set_option,
    config_option,
    task_option,
    click.argument("thinking", required=False),
    click.argument("instruct", required=False),
)
grader_option = click.option(
    "--grader", metavar="NAME", help="How answers are compared, of all tasks: number, math, choice, exact, contains ..."
)
max_tokens_option = click.option(
    "--max-tokens", type=int, metavar="N", help="Most tokens of a response (sampling.max_tokens)."
)
engine_option = click.option("--engine", metavar="NAME", help="auto, transformers or vllm.")
limit_option = click.option(
    "--limit", type=int, metavar="N", help="At most N prompts a task to search, and N to confirm."
)


def model_options(command: Command) -> Command:
    """Adds the arguments and options of a command that takes models, tasks and a config."""
    return _decorated(command, _CONFIG)


def everyday_options(command: Command) -> Command:
    """Adds the options for the config keys that are set most often."""
    return _decorated(command, (engine_option, max_tokens_option, limit_option, grader_option))


def _decorated(command: Command, decorators: tuple[Callable[[Command], Command], ...]) -> Command:
    for decorate in decorators:
        command = decorate(command)
    return command
