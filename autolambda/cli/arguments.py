"""Turns the options of a command into values: a config, a merge method, a schedule, the names of ablations.

The functions import heavy modules themselves, so that ``--help`` stays quick.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from autolambda.api import config_overrides
from autolambda.cli.output import say
from autolambda.errors import ConfigError, SwappedError

if TYPE_CHECKING:  # imported by the functions
    from autolambda.config import AblationName, Config
    from autolambda.merging.method import Method, MethodName
    from autolambda.schedule import Schedule
    from autolambda.tasks.config import TaskConfig


KEYS: Mapping[str, tuple[str, ...]] = {
    "trials": ("search.trials",),
    "seed": ("search.seed",),
    "workers": ("engine.workers",),
    "engine": ("engine.name",),
    "max_tokens": ("sampling.max_tokens",),
    "grader": ("tasks.*.grader",),
    "limit": ("tasks.*.limit", "confirm.limit"),
    "rounding": ("merge.rounding",),
    "rounding_seed": ("merge.seed",),
    "vision": ("models.vision",),
    "base": ("models.base",),
    "third": ("models.third",),
}
"""The config keys that each option sets."""


def config_of(
    options: Mapping[str, Any],
    *,
    budget: float | None = None,
    quiet: bool = False,
    checks: bool = True,
    is_search: bool = False,
) -> Config:
    """Returns the config of a command's options: the config file, then options for single keys, then ``--set``.

    A command that takes ``--config`` uses the project file by default, and says so in a note unless ``quiet``. Raises
    ``InputError`` for a file or a folder that is missing, and ``NoModelsError`` if models of the user's own are meant,
    unless ``checks`` is false. A search without models also needs a budget that is a limit for the demo.
    """
    from autolambda.files import project_file
    from autolambda.project.paths import check_paths

    if checks:
        named = options.get("instruct"), options.get("thinking")
        check_paths(named, options.get("tasks") or (), options.get("config"))
    from autolambda.config_file import load_config
    from autolambda.project.checks import check_inputs, check_models_are_meant

    source = options.get("config")
    if source is None and "config" in options and (source := project_file()) and not quiet:
        say(f"config: {os.path.relpath(source)}")
    config = load_config(source, overrides=overrides_of(options, budget), settings=options.get("settings", ()))
    if checks:
        check_inputs(config)
        if options.get("config") is None:
            check_models_are_meant(config, is_search=is_search)
    return config


def overrides_of(options: Mapping[str, Any], budget: float | None = None) -> dict[str, object]:
    """Returns the config keys that the models, the tasks and the single options of a command set."""
    overrides = config_overrides(options.get("instruct"), options.get("thinking"), options.get("tasks"), budget)
    for option, keys in KEYS.items():
        if options.get(option) is not None:
            overrides |= dict.fromkeys(keys, options[option])
    if options.get("callbacks"):
        overrides["search.callbacks"] = list(dict.fromkeys(options["callbacks"]))
    return overrides


def config_of_study(options: Mapping[str, Any], *, study: str | None, storage: str | None) -> Config:
    """Returns the config of a command's options, or of the stored ``study`` if they name no models, tasks or file."""
    from autolambda.config_file import load_config
    from autolambda.errors import StudyError
    from autolambda.study.reader import stored_config

    if study is None or any(options.get(name) for name in ("instruct", "thinking", "tasks", "config")):
        return config_of(options)
    try:
        stored = stored_config(study, storage)
    except StudyError:  # the study is new; opening its database later reports any other problem
        return config_of(options)
    return load_config(stored.model_dump(mode="json"), overrides={}, settings=options.get("settings", ()))


def ablation_names(only: str | None) -> tuple[AblationName, ...]:
    """Returns the ablations that ``--only`` names, by default all. Raises ``ConfigError`` for an unknown name."""
    from autolambda.config import ABLATIONS

    if only is None:
        return ABLATIONS
    wanted = [name.strip() for name in only.split(",")]
    unknown = [name for name in wanted if name not in ABLATIONS]
    if unknown:
        raise ConfigError(f"--only: no study {unknown[0]!r}; there are {', '.join(ABLATIONS)}")
    return tuple(name for name in ABLATIONS if name in wanted)


def study_config(name: str, storage: str | None, workers: int | None) -> Config:
    """Returns the stored config of a study that nobody else runs, with ``workers`` if given. Raises ``StudyError``."""
    from autolambda.study.holder import check_free
    from autolambda.study.places import check_exists

    check_exists(name, storage)
    check_free(name, storage)
    from autolambda.study.reader import stored_config  # slow to import

    return with_workers(stored_config(name, storage), workers)


def with_workers(config: Config, workers: int | None) -> Config:
    """Returns the config with ``workers``, if given. Raises ``ConfigError`` for less than one."""
    from autolambda.config import parse_config

    if workers is None:
        return config
    plain = config.model_dump(mode="json")
    return parse_config({**plain, "engine": {**plain["engine"], "workers": workers}})


def other_tasks(tasks: Sequence[str], grader: str | None) -> tuple[TaskConfig, ...]:
    """Returns the tasks of ``--task`` with the grader of ``--grader``. Raises ``ConfigError`` without any."""
    from autolambda.config_file import load_config
    from autolambda.project.paths import check_paths

    if not tasks:
        raise ConfigError("no other task: give --task NAME or --task FILE")
    check_paths((None, None), tasks, None)
    return load_config(None, overrides=overrides_of({"tasks": tasks, "grader": grader})).tasks


def method_of(name: str, lam: float | None, path: Path | None, base: str | None, third: str | None) -> Method:
    """Returns the merge method of ``--method``. Raises ``ConfigError`` if options are missing or do not fit it."""
    from autolambda.merging.method import Method, reads_schedule

    is_given = lam is not None or path is not None
    schedule = schedule_of(lam, path) if reads_schedule(name, given=is_given) else None
    return Method.of(cast("MethodName", name), schedule, base=base, third=third)


def schedule_of(lam: float | None, path: Path | None) -> Schedule:
    """Returns the schedule of ``--lambda`` or ``--schedule``. Raises ``ConfigError`` unless exactly one is given."""
    from autolambda.schedule import Schedule, read_schedule

    if lam is not None and path is None:
        return Schedule.uniform(lam)
    if path is not None and lam is None:
        return read_schedule(path)
    raise ConfigError("give either --lambda X or --schedule FILE")


def turned(error: SwappedError, words: Sequence[str]) -> SwappedError:
    """Returns the error with the command that exchanges the two models, if the ``words`` of the command name both."""
    given = [os.path.abspath(os.path.expanduser(word)) for word in words]
    places = [
        next((i for i, word in enumerate(words) if source in (word, given[i])), None)
        for source in (error.instruct, error.thinking)
    ]
    if places[0] is None or places[1] is None:
        return error
    exchanged = list(words)
    exchanged[places[0]], exchanged[places[1]] = words[places[1]], words[places[0]]
    command = shlex.join(["autolambda", *exchanged])
    return SwappedError(error.said, instruct=error.instruct, thinking=error.thinking, kept=error.kept, command=command)
