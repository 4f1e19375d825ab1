"""Writes the project file: what was found in both models and the tasks, each key with a comment that says why."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from autolambda.errors import OutputError, printable, shorten
from autolambda.files import PROJECT_FILE
from autolambda.project.look import FoundTask
from autolambda.project.models import FoundModels
from autolambda.project.paths import check_writable
from autolambda.project.schema import FILE as SCHEMA

_COMMENT = 34  # column at which comments begin


@dataclass(frozen=True)
class Project:
    """What goes into a project file. ``settings`` are further config keys, dotted, with their values."""

    models: FoundModels
    tasks: Sequence[FoundTask]
    budget: float | None = None
    settings: Mapping[str, object] | None = None

    @property
    def asked(self) -> list[str]:
        """What the user has to fill in, by key."""
        return [
            f"tasks.{number}.{key}: {question}"
            for number, task in enumerate(self.tasks)
            for key, question in task.asked.items()
        ]

    def text(self) -> str:
        """Returns the YAML."""
        return "\n".join([*self._head(), *self._models(), *self._tasks(), *self._rest()]) + "\n"

    def found_lines(self) -> list[str]:
        """Returns what was found, in lines for the terminal."""
        models = self.models
        lines = [
            f"models: {models.about}",
            f"thinking ends with {models.think_end}; {models.template}",
            f"a response has at most {models.sampling.max_tokens:,} tokens ({models.cap_from})",
        ]
        for task in self.tasks:
            source = task.keys.get("path") or task.keys.get("name") or task.keys.get("hub")
            rows = "" if task.num_rows is None else f", {task.num_rows:,} rows"
            how = [f"{key} {value}" for key, value in task.keys.items() if key not in ("path", "name", "hub")]
            lines.append(f"task {source}{rows}" + (f": {', '.join(how)}" if how else ""))
        return lines

    def _head(self) -> Iterator[str]:
        yield f"# yaml-language-server: $schema={SCHEMA}"
        yield "# The config of this folder and those below. Paths are relative to this file."
        yield "#   autolambda validate               checks it and tells the cost"
        yield "#   autolambda search --budget 4000   finds the best merge"
        yield "# Only models and tasks are required; 'autolambda schema' has every key."

    def _models(self) -> Iterator[str]:
        yield "models:"
        yield f"  instruct: {_scalar(_from_here(self.models.instruct))}"
        yield f"  thinking: {_scalar(_from_here(self.models.thinking))}"
        yield _line("  chat_template: thinking", self.models.template)
        about = "a response with this tag counts as thinking"
        yield _line(f"  think_end: {_scalar(self.models.think_end)}", about)

    def _tasks(self) -> Iterator[str]:
        yield ""
        yield "tasks:"
        for task in self.tasks:
            mark = "  - "
            for key, value in task.keys.items():
                shown = _from_here(str(value)) if key == "path" else value
                why = f"{task.num_rows:,} rows" if key == "path" and task.num_rows else task.why.get(key, "")
                yield _line(f"{mark}{key}: {_scalar(shown)}", why)
                mark = "    "
            for key, question in task.asked.items():
                yield _line(f"    # {key}: COLUMN", f"TO DO: {question}")
            if "limit" not in task.keys:
                yield _line("    # limit: 1024", "the most prompts to search on; two thirds confirm")

    def _rest(self) -> Iterator[str]:
        settings = self.settings or {}
        yield ""
        yield _line("sampling:", "other keys are the Thinking model's")
        yield _line(f"  max_tokens: {self.models.sampling.max_tokens}", self.models.cap_from)
        yield f"  # {self.models.sampling.in_words}"
        if "confirm.limit" in settings:
            yield ""
            yield "confirm:"
            yield f"  limit: {settings['confirm.limit']}"
        yield ""
        yield "engine:"
        yield _line(f"  name: {settings.get('engine.name', 'auto')}", "vllm with a GPU, else transformers")
        yield ""
        about = "mean tokens of a response; --budget replaces it"
        yield _line("# budget: 4000" if self.budget is None else f"budget: {self.budget:g}", about)


def write_project(text: str, folder: Path, *, force: bool) -> Path:
    """Writes the project file of a folder. Raises ``OutputError`` if there is one, unless ``force``."""
    path = folder / PROJECT_FILE
    check_writable(path, force=force)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write '{path}': {error.strerror}") from error
    return path


def _from_here(text: str) -> str:
    """Returns a path below the current folder as a relative one, an absolute path elsewhere; a hub id unchanged."""
    if not os.path.exists(text):
        return text
    absolute = os.path.abspath(text)
    relative = os.path.relpath(absolute)
    return absolute if relative.startswith("..") else relative


def _scalar(value: object) -> str:
    """Returns a value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6).removesuffix("...\n").strip()


def _line(text: str, comment: str) -> str:
    return f"{text:<{_COMMENT}} # {shorten(printable(comment), 200)}" if comment else text
