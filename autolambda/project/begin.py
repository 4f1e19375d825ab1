"""A look at two models and some tasks, from which a project begins."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from autolambda.config import Config
from autolambda.project.look import look_at_task
from autolambda.project.models import look_at_models
from autolambda.project.write import Project


def look_at(
    config: Config,
    tasks: Sequence[str],
    *,
    grader: str | None = None,
    limit: int | None = None,
    settings: Mapping[str, object],
) -> Project:
    """Returns what a project file says of the models of a config and of task files.

    ``settings`` are the dotted keys that the user gave. Raises ``InputError`` for models that do not fit together, or
    for a file that cannot be read.
    """
    found = [look_at_task(os.path.expanduser(task), grader=grader) for task in tasks]
    for task in found:
        task.keys.update({} if limit is None else {"limit": limit})
    return Project(look_at_models(config), found, config.budget, settings)
