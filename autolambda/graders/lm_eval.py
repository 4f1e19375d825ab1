"""The grader ``lm_eval``: the lm-evaluation-harness task that a prompt came from scores the response.

The target is JSON with the ``task``, its ``include_path``, the ``doc`` and the ``metric``. The task's stop strings cut
the text, then its first filter and its ``process_results`` score it. A text is correct if the metric is at least 1. The
answer is JSON with all metrics that are numbers.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from typing import Any

from autolambda.errors import TaskError, one_line, reason
from autolambda.graders.base import Grader, ParsedAnswer


@cache
def load_task(name: str, include_path: str | None = None) -> Any:
    """Returns the library's task object with its data loaded. Raises ``TaskError``."""
    if find_spec("lm_eval") is None:
        raise TaskError(f"the task {name!r} needs lm-evaluation-harness; run: pip install 'autolambda[lm-eval]'")
    index = _index_with(name, include_path)
    _check_name(name, index)
    try:
        loaded = index.load([name])["tasks"]
    except OSError as error:  # datasets raises it for a set that it cannot reach or find
        raise TaskError(
            f"the data of the lm-eval task {name!r} cannot be loaded ({one_line(error)}); load it once on a "
            "machine with a network and copy the cache of datasets from there (HF_HOME)"
        ) from error
    except Exception as error:  # a task is YAML and code by any author
        raise TaskError(f"the lm-eval task {name!r} cannot be built ({reason(error, with_type=True)})") from error
    task = loaded[name] if name in loaded else next(iter(loaded.values()))
    if task.OUTPUT_TYPE != "generate_until":
        raise TaskError(
            f"the lm-eval task {name!r} is of type {task.OUTPUT_TYPE}, which has no response to read; take one of type "
            "generate_until"
        )
    return task


def _index_with(name: str, include_path: str | None) -> Any:
    """Returns an index with the task. Tries the user's folder first, because the library's 13,000 tasks take 10 s."""
    if include_path is not None:
        index = _index(include_path, False)
        if name in index.all_tasks:
            return index
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


_PREFERRED = ("exact_match", "acc", "pass@1", "f1")


class LMEval(Grader):
    """The metrics are the answer."""

    def grade(self, text: str, target: str) -> ParsedAnswer:
        """Returns the task's metrics. Raises ``ValueError`` if the metric that counts is missing."""
        if not text.strip():
            return ParsedAnswer(None)
        given = json.loads(target)
        task = load_task(given["task"], given.get("include_path"))
        metrics = _numbers(task.process_results(given["doc"], [_filtered(task, _cut(text, task), given["doc"])]))
        metric = given.get("metric") or choose_metric(task)
        if metric not in metrics:
            raise ValueError(
                f"the task {given['task']!r} gives no number {metric!r}; it gives {', '.join(metrics) or 'none'}"
            )
        return ParsedAnswer(json.dumps(metrics, separators=(",", ":")), metrics[metric] >= 1)

    def check_target(self, target: str) -> None:
        """Raises ``ValueError`` unless the JSON names a task and holds a doc."""
        try:
            given = json.loads(target)
        except ValueError as error:
            raise ValueError("it is not JSON") from error
        is_complete = isinstance(given, dict) and isinstance(given.get("task"), str)
        if not is_complete or not isinstance(given.get("doc"), dict):
            raise ValueError("it lacks the task's name or the doc")

    def preload(self, target: str | None) -> None:
        """Loads the library, and the task of a target with its data."""
        if target is None:
            importlib.import_module("lm_eval.api.instance")
        else:
            given = json.loads(target)
            load_task(given["task"], given.get("include_path"))


def choose_metric(task: Any) -> str:
    """Returns the metric that counts by default: a customary one if the task has it, else the task's first."""
    names = [str(name) for name in task.higher_is_better()]
    return next((name for name in _PREFERRED if name in names), names[0])


def stop_strings(task: Any) -> tuple[str, ...]:
    """Returns the strings at which the task ends a generation."""
    until = (task.config.generation_kwargs or {}).get("until") or ()
    return (until,) if isinstance(until, str) else tuple(until)


def _cut(text: str, task: Any) -> str:
    for stop in stop_strings(task):
        if stop:
            text = text.partition(stop)[0]
    return text


def _filtered(task: Any, text: str, doc: Mapping[str, Any]) -> Any:
    """Returns the text after the first filter, whose results the library prints first."""
    from lm_eval.api.instance import Instance

    instance = Instance(request_type="generate_until", doc=dict(doc), arguments=("", {}), idx=0, resps=[text])
    first = task._filters[0]
    first.apply([instance])
    return instance.filtered_resps[first.name]


def _numbers(results: Mapping[str, Any]) -> dict[str, float]:
    """Returns the metrics that are numbers, as floats."""
    numbers = {}
    for name, value in results.items():
        value = value.item() if hasattr(value, "item") else value
        if isinstance(value, bool | int | float):
            numbers[str(name)] = float(value)
    return numbers
