"""Reads the config: a YAML file with ``--set KEY=VALUE`` on top, as plain keys and values that are then validated.

Relative paths are relative to the current folder. In a project file (``autolambda.yaml``) they are relative to its
folder. A ``~`` is the home folder everywhere.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml

from autolambda.config import Config, parse_config
from autolambda.errors import ConfigError, in_short, one_line, reason
from autolambda.files import PROJECT_FILE, load_yaml, read_text
from autolambda.tasks.config import TASK_NAMES, SourceConfig, source_in_short
from autolambda.tasks.formats.readers import READERS
from autolambda.tasks.formats.text import form_of

Source = TypeVar("Source", bound=SourceConfig)


def read_settings(path: Path) -> dict[str, Any]:
    """Returns the keys and values of a YAML file. Raises ``ConfigError`` with the line that is wrong."""
    try:
        plain = load_yaml(read_text(path))
    except OSError as error:
        raise ConfigError(f"config file '{path}' cannot be read: {error.strerror or error}") from error
    except (ValueError, yaml.YAMLError) as error:  # ValueError: not UTF-8
        raise ConfigError(f"{path}{_yaml_problem(error)}") from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{path}: expected keys and values, seen {in_short(plain)}")
    return plain


def _yaml_problem(error: Exception) -> str:
    """Returns the line and the problem in one line; PyYAML's text has several."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or reason(error)
    return f"{f', line {mark.line + 1}' if mark else ''}: not valid YAML: {one_line(problem, limit=120)}"


def parse_setting(text: str) -> tuple[str, object]:
    """Returns the dotted key and the value of ``KEY=VALUE``, with the value read as YAML. Raises ``ConfigError``."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set takes KEY=VALUE, seen {in_short(text)}")
    try:
        return key.strip(), load_yaml(value)
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"--set {key.strip()!r}: {value[:60]!r} is not a valid YAML value") from error


def set_key(plain: dict[str, Any], key: str, value: object) -> None:
    """Sets a dotted key in nested dicts and lists; adds missing dicts. Raises ``ConfigError`` if a part has no keys.

    A ``*`` stands for every entry of a list: ``tasks.*.grader``.
    """
    section, star, rest = key.partition(".*.")
    if star:
        entries = plain.get(section) or ()
        if not isinstance(entries, list | tuple):
            raise ConfigError(f"{key!r}: {section!r} is {in_short(entries)}, which has no entries")
        for number in range(len(entries)):
            set_key(plain, f"{section}.{number}.{rest}", value)
        return
    *parents, last = key.split(".")
    node: Any = plain
    for i, part in enumerate(parents):
        step = _index(node, part, key) if isinstance(node, list) else part
        if isinstance(node, dict) and node.get(part) is None:
            node[part] = {}
        node = node[step]
        if not isinstance(node, dict | list):
            raise ConfigError(f"{key!r}: {'.'.join(parents[: i + 1])!r} is {in_short(node)}, which has no keys")
    node[_index(node, last, key) if isinstance(node, list) else last] = value


def _index(items: list[Any], part: str, key: str) -> int:
    if not (part.isascii() and part.isdigit() and len(part) < 10 and int(part) < len(items)):
        seen = f"0 to {len(items) - 1}" if items else "the list is empty"
        raise ConfigError(f"{key!r}: {part!r} is not the number of an entry ({seen})")
    return int(part)


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns ``over`` on top of ``under``, section by section; lists are replaced."""
    result = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def load_config(
    source: Path | Mapping[str, Any] | None, *, overrides: Mapping[str, object], settings: Sequence[str] = ()
) -> Config:
    """Returns the config of a YAML file, or of its keys and values, with ``overrides`` and ``settings`` on top.

    ``overrides`` maps dotted keys to values, ``settings`` are texts ``KEY=VALUE``. Without models the bundled pair's
    config supplies the defaults. Raises ``ConfigError`` with one line.
    """
    plain = _source(source)
    changes = [*overrides.items(), *map(parse_setting, settings)]
    if not _names_models(plain, changes):
        plain = merged(bundled_defaults(with_task="tasks" not in plain), plain)
    for key, value in changes:
        set_key(plain, key, value)
    _each_path(plain, os.path.expanduser)
    return _absolute(parse_config(plain))


def _source(source: Path | Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the keys and values of a file or a mapping; a task that is only a text stands for its source."""
    if source is None:
        return {}
    if isinstance(source, Mapping):
        return copy.deepcopy(dict(source))
    plain = read_settings(Path(os.path.expanduser(source)))
    if source.name == PROJECT_FILE and source.parent.resolve() != Path.cwd():
        _each_path(plain, lambda text: _beside(source.parent, text))
    tasks = plain.get("tasks")
    if isinstance(tasks, list):
        plain["tasks"] = [source_in_short(os.path.expanduser(t)) if isinstance(t, str) else t for t in tasks]
    return plain


def _beside(folder: Path, text: str) -> str:
    """Returns a relative path from a config in ``folder`` as a path from here, and a hub id or a name unchanged."""
    if text.startswith("~") or os.path.isabs(text):
        return text
    path = folder / text
    is_file = text.startswith(".") or form_of(path) in READERS
    return str(path) if path.exists() or is_file else text


def _each_path(plain: dict[str, Any], change: Callable[[str], str]) -> None:
    """Changes every text of a config, not yet validated, that may be a path."""

    def changed(section: object, *keys: str) -> None:
        if isinstance(section, dict):
            for key in keys:
                if isinstance(text := section.get(key), str) and text not in TASK_NAMES:
                    section[key] = change(text)

    if isinstance(models := plain.get("models"), dict):
        changed(models, "instruct", "thinking", "base", "third")
        if models.get("chat_template") not in ("instruct", "thinking"):
            changed(models, "chat_template")
    if isinstance(tasks := plain.get("tasks"), list):
        for number, task in enumerate(tasks):
            if isinstance(task, str) and task not in TASK_NAMES:
                tasks[number] = change(task)
            changed(task, "path", "include_path", "confirm_on")
            changed(task.get("confirm_on") if isinstance(task, dict) else None, "path", "include_path")
    if isinstance(ablation := plain.get("ablation"), dict) and isinstance(ablation.get("backbones"), list):
        ablation["backbones"] = [change(each) if isinstance(each, str) else each for each in ablation["backbones"]]


def bundled_defaults(*, with_task: bool) -> dict[str, Any]:
    """Returns the config that comes with the bundled pair."""
    text = resources.files("autolambda").joinpath("bundled/config.yaml").read_text(encoding="utf-8")
    plain: dict[str, Any] = yaml.safe_load(text)
    if not with_task:
        del plain["tasks"]
    return plain


def _absolute(config: Config) -> Config:
    """Returns the config with absolute local paths, so that a study can be resumed from another folder."""

    def absolute(source: str | None) -> str | None:
        return str(Path(source).resolve()) if source and os.path.exists(source) else source

    names = ["instruct", "thinking", "base", "third"]
    if config.models.chat_template not in ("instruct", "thinking"):
        names.append("chat_template")
    models = config.models.model_copy(update={name: absolute(getattr(config.models, name)) for name in names})

    def located(source: Source) -> Source:
        paths = {key: absolute(getattr(source, key)) for key in ("path", "include_path")}
        return source.model_copy(update=paths)

    tasks = tuple(
        located(task).model_copy(update={"confirm_on": located(task.confirm_on) if task.confirm_on else None})
        for task in config.tasks
    )
    return config.model_copy(update={"models": models, "tasks": tasks})


def _names_models(plain: Mapping[str, Any], changes: Sequence[tuple[str, object]]) -> bool:
    """Returns whether the config names a parent after the changes."""
    probe = {"models": copy.deepcopy(plain.get("models"))}
    for key, value in changes:
        if key.partition(".")[0] == "models":
            set_key(probe, key, value)
    models = probe["models"]
    return isinstance(models, dict) and any(models.get(parent) is not None for parent in ("instruct", "thinking"))
