"""Settings before they are checked: a YAML file and ``--set KEY=VALUE`` as plain keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from autolambda.errors import ConfigError, in_short, one_line
from autolambda.files import read_text
from autolambda.yaml_text import load_yaml


def read_settings(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file. Raises ``ConfigError`` that says where it is none."""
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
    """Where and what, in one line; PyYAML's own text has several."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or next(iter(str(error).splitlines()), type(error).__name__)
    return f"{f', line {mark.line + 1}' if mark else ''}: not valid YAML: {one_line(problem, limit=120)}"


def parse_setting(text: str) -> tuple[str, object]:
    """The dotted key and the value of ``KEY=VALUE``, the value as YAML. Raises ``ConfigError``."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set takes KEY=VALUE, seen {in_short(text)}")
    try:
        return key.strip(), load_yaml(value)
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"--set {key.strip()!r}: {value[:60]!r} is not a valid YAML value") from error


def set_key(plain: dict[str, Any], key: str, value: object) -> None:
    """Sets ``a.b.0.c`` in nested dicts and lists; a missing dict is made. Raises ``ConfigError`` on a value."""
    *parents, last = key.split(".")
    node: Any = plain
    for i, part in enumerate(parents):
        place = _index(node, part, key) if isinstance(node, list) else part
        if isinstance(node, dict) and node.get(part) is None:
            node[part] = {}
        node = node[place]
        if not isinstance(node, dict | list):
            raise ConfigError(f"{key!r}: {'.'.join(parents[: i + 1])!r} is {in_short(node)}, which has no keys")
    node[_index(node, last, key) if isinstance(node, list) else last] = value


def _index(items: list[Any], part: str, key: str) -> int:
    if not (part.isascii() and part.isdigit() and len(part) < 10 and int(part) < len(items)):
        seen = f"0 to {len(items) - 1}" if items else "there is none"
        raise ConfigError(f"{key!r}: {part!r} is not the number of an entry ({seen})")
    return int(part)


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` on top of ``under``, section by section; lists are replaced."""
    result = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result
