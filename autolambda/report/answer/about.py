"""What was searched: models, tasks, prompts, sampling, engine. So a reader knows what an answer is about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from autolambda.engines.base import Sampling
from autolambda.errors import printable
from autolambda.report.report import Report


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """Yields names and values, such as ``("task", "math500: 256 prompts to search, 244 to check")``."""
    identity = report.identity
    for role in ("instruct", "thinking"):
        yield role.capitalize(), model_name(report, role)
    labels = [printable(task.label) for task in report.config.tasks]
    yield f"task{'' if len(labels) == 1 else 's'}", ", ".join(labels)
    yield "prompts", ", ".join(_prompts(identity))
    yield "sampling", _sampling(identity).in_words
    yield "engine", f"{identity.get('engine.name', 'transformers')}, {identity['engine.dtype']}"


def model_name(report: Report, role: str) -> str:
    """Returns a parent's hub id or the name of its folder; ``the bundled one`` for the pair that ships."""
    source = getattr(report.config.models, role)
    if source is None:
        return "the bundled one"
    path = Path(source)
    return printable(path.name if path.is_absolute() else source)


def pair_name(report: Report) -> str:
    """Returns both models as one title."""
    if report.config.models.bundled:
        return "Demo pair (0.7 M parameters)"
    return " + ".join(model_name(report, role) for role in ("instruct", "thinking"))


def in_short(report: Report) -> str:
    """Returns the models, the tasks and the prompts as one line."""
    tasks = ", ".join(printable(task.label) for task in report.config.tasks)
    return f"{pair_name(report)}; {tasks}; {', '.join(_prompts(report.identity))}"


def _prompts(identity: Mapping[str, Any]) -> Iterator[str]:
    """Yields the most prompts of each phase: ``up to 512 to search``, ``up to 1,024 others to check the best``."""
    words = {"search": "prompts to search", "confirm": "others to check the best"}
    for phase, part in identity["tasks"].items():
        yield f"up to {sum(num for num, _ in part['prompts']):,} {words[phase]}"


def _sampling(identity: Mapping[str, Any]) -> Sampling:
    found = {name: identity[f"sampling.{name}"] for name in (each.name for each in fields(Sampling))}
    plain: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in found.items()}
    return Sampling(**plain)
