"""lm_eval: a response is scored by the lm-evaluation-harness task that its prompt came from.

The target is JSON with the ``task``, its ``include_path``, the ``doc`` and the ``metric``. The task's own stop strings
cut the text, its first filter and its ``process_results`` score it. Correct is a metric of at least 1; the answer is
JSON with all metrics that are numbers.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any

from autolambda.graders.lm_eval_tasks import load_task
from autolambda.graders.reading import Reading

_PREFERRED = ("exact_match", "acc", "pass@1", "f1")


def read(text: str, target: str) -> Reading:
    """The metrics as the answer; an empty text has none. Raises ``ValueError`` where the metric is not among them."""
    if not text.strip():
        return Reading(None)
    given = json.loads(target)
    task = load_task(given["task"], given.get("include_path"))
    metrics = _numbers(task.process_results(given["doc"], [_filtered(task, _cut(text, task), given["doc"])]))
    metric = given.get("metric") or choose_metric(task)
    if metric not in metrics:
        raise ValueError(
            f"the task {given['task']!r} gives no number {metric!r}; it gives {', '.join(metrics) or 'none'}"
        )
    return Reading(json.dumps(metrics, separators=(",", ":")), metrics[metric] >= 1)


def choose_metric(task: Any) -> str:
    """The metric that counts unless another is named: a customary one that the task has, else the task's first."""
    names = [str(name) for name in task.higher_is_better()]
    return next((name for name in _PREFERRED if name in names), names[0])


def stop_strings(task: Any) -> tuple[str, ...]:
    """Where the task wants a generation to end."""
    until = (task.config.generation_kwargs or {}).get("until") or ()
    return (until,) if isinstance(until, str) else tuple(until)


def _cut(text: str, task: Any) -> str:
    for stop in stop_strings(task):
        if stop:
            text = text.partition(stop)[0]
    return text


def _filtered(task: Any, text: str, doc: Mapping[str, Any]) -> Any:
    """What the first filter makes of the text; it is the one whose figures the library prints first."""
    from lm_eval.api.instance import Instance

    instance = Instance(request_type="generate_until", doc=dict(doc), arguments=("", {}), idx=0, resps=[text])
    first = task._filters[0]
    first.apply([instance])
    return instance.filtered_resps[first.name]


def _numbers(results: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of one response; numpy's numbers become Python's."""
    found = {}
    for name, value in results.items():
        value = value.item() if hasattr(value, "item") else value
        if isinstance(value, bool | int | float):
            found[str(name)] = float(value)
    return found


def ready(target: str | None) -> None:
    """Loads the library, and the task of a target with its data."""
    if target is None:
        importlib.import_module("lm_eval.api.instance")
    else:
        given = json.loads(target)
        load_task(given["task"], given.get("include_path"))


def check(target: str) -> None:
    """The JSON names a task and holds a doc."""
    try:
        given = json.loads(target)
    except ValueError as error:
        raise ValueError("it is not JSON") from error
    if not isinstance(given, dict) or not isinstance(given.get("task"), str) or not isinstance(given.get("doc"), dict):
        raise ValueError("it lacks the task's name or the doc")
