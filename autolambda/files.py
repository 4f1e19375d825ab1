"""Reads files, JSON and YAML without trusting them.

Only regular files up to a size are read: a pipe would block for ever and a device has no end. JSON and YAML are refused
if a key stands twice, of which Python would keep the last, or if they are nested too deeply for Python's stack.
"""

from __future__ import annotations

import errno
import io
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode

SMALL = 256 * 1024
"""The most bytes that a file written by hand, such as a config, may have."""

MAX_DEPTH = 100  # of JSON; far below the limit of Python's stack
MAX_YAML_DEPTH = 50  # less, since a config is stored as a part of JSON


def open_bytes(path: Path) -> BinaryIO:
    """Opens a regular file to read bytes. Raises ``OSError``, also for anything else than a regular file."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(code, os.strerror(code) if code == errno.EISDIR else "it is not a regular file", str(path))


def open_text(path: Path, *, encoding: str = "utf-8", newline: str | None = None) -> TextIO:
    """Opens a regular file to read text. Raises ``OSError``."""
    return io.TextIOWrapper(open_bytes(path), encoding=encoding, newline=newline)


def read_text(path: Path, *, max_bytes: int = SMALL) -> str:
    """Returns a regular file's text in UTF-8. Raises ``OSError``, also if it is larger, and ``UnicodeDecodeError``."""
    with open_bytes(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes // 1024:,} kB", str(path))
    return content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")  # as Python's text files do


def load_json(text: str | bytes) -> Any:
    """Returns the value of a JSON text, which as bytes must be UTF-8. Raises ``ValueError``."""
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")  # json would guess at UTF-16 and 32
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH}") from error
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise ValueError(f"it is nested deeper than {MAX_DEPTH}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"the key {key[:60]!r} stands twice")
        made[key] = value
    return made


def _is_deeper(value: object, depth: int) -> bool:
    """Whether more than ``depth`` lists and dicts are nested; a list that holds itself (a YAML alias) is."""
    level = [value]
    for _ in range(depth + 1):
        wholes = {id(each): each for each in level if isinstance(each, dict | list)}  # each once, whatever its aliases
        if not wholes:
            return False
        level = [part for whole in wholes.values() for part in (whole.values() if isinstance(whole, dict) else whole)]
    return True


def load_yaml(text: str) -> Any:
    """Returns the value of a text with one YAML document. Raises ``yaml.YAMLError``."""
    try:
        value = yaml.load(text, Loader=_Loader)
    except RecursionError as error:
        raise yaml.YAMLError(f"it is nested deeper than {MAX_YAML_DEPTH}") from error
    if _is_deeper(value, MAX_YAML_DEPTH):
        raise yaml.YAMLError(f"it is nested deeper than {MAX_YAML_DEPTH}")
    return value


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also refuses a key that stands twice, and whose errors are all ``YAMLError``."""

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, ScalarNode):
                if (key.tag, key.value) in seen:
                    raise ConstructorError(None, None, f"the key {key.value[:40]!r} stands twice", key.start_mark)
                seen.add((key.tag, key.value))
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (AttributeError, LookupError, TypeError, ValueError) as error:  # for a 13th month or !!int ''
            problem = f"{str(node.value)[:40]!r} is no {node.tag.rpartition(':')[2]}"
            raise ConstructorError(None, None, problem, node.start_mark) from error
