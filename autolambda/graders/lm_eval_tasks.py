"""Tasks of lm-evaluation-harness by name (the extra ``lm-eval``); its index is built once and a task is loaded once.

Only tasks that generate text can be used: a score of likelihoods has no response to count tokens of.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from typing import Any

from autolambda.errors import TaskError, one_line


@cache
def load_task(name: str, include_path: str | None = None) -> Any:
    """The library's task object, its data loaded. Raises ``TaskError``."""
    if find_spec("lm_eval") is None:
        raise TaskError(f"the task {name!r} needs lm-evaluation-harness; run: pip install 'autolambda[lm-eval]'")
    index = _index_with(name, include_path)
    _check_name(name, index)
    try:
        loaded = index.load([name])["tasks"]
    except OSError as error:  # what datasets raises for a set that it cannot reach or find
        raise TaskError(
            f"the data of the lm-eval task {name!r} cannot be loaded ({one_line(error)}); load it once where there is "
            "a network and bring the cache of datasets along (HF_HOME)"
        ) from error
    except Exception as error:  # a task is anybody's YAML and code
        raise TaskError(
            f"the lm-eval task {name!r} cannot be built ({type(error).__name__}: {one_line(error)})"
        ) from error
    task = loaded[name] if name in loaded else next(iter(loaded.values()))
    if task.OUTPUT_TYPE != "generate_until":
        raise TaskError(
            f"the lm-eval task {name!r} is of type {task.OUTPUT_TYPE}, which has no response to read; take one of type "
            "generate_until"
        )
    return task


def _index_with(name: str, include_path: str | None) -> Any:
    """The user's folder alone where it has the task: to index the library's own 13,000 names takes 10 s."""
    if include_path is not None:
        own = _index(include_path, False)
        if name in own.all_tasks:
            return own
    return _index(include_path, True)


@cache
def _index(include_path: str | None, include_defaults: bool) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=include_path, include_defaults=include_defaults)


def _check_name(name: str, index: Any) -> None:
    if name in index.all_subtasks:
        return
    if name in index.all_tasks:
        raise TaskError(f"{name!r} is a group of lm-eval tasks; give the tasks that you want out of it one by one")
    nearest = get_close_matches(name, index.all_subtasks, n=3)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else "see: lm-eval ls tasks"
    raise TaskError(f"unknown lm-eval task {name!r}; {hint}")
