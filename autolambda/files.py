"""Reads files, JSON and YAML without trusting them.

Only regular files up to a size limit are read: a pipe would block for ever and a device has no end. JSON and YAML are
refused if a key occurs twice (Python would keep the last) or if they are nested too deeply for Python's stack.
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
"""The maximum size in bytes of a file written by hand, such as a config."""

PROJECT_FILE = "autolambda.yaml"
"""The config of a project: the default of every command that takes a config."""

MAX_DEPTH = 100  # of JSON; far below the limit of Python's stack
MAX_YAML_DEPTH = 50  # lower, since a config is stored inside JSON


def open_bytes(path: Path) -> BinaryIO:
    """Opens a regular file to read bytes. Raises ``OSError``, also if it is not a regular file."""
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
    """Returns the text of a UTF-8 file. Raises ``OSError``, also above ``max_bytes``, or ``UnicodeDecodeError``."""
    with open_bytes(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes // 1024:,} kB", str(path))
    return content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")  # as Python's text files do


def load_json(text: str | bytes) -> Any:
    """Returns the value of a JSON text; bytes must be UTF-8. Raises ``ValueError``."""
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")  # json.loads would accept UTF-16 and UTF-32 too
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH}") from error
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise ValueError(f"it is nested deeper than {MAX_DEPTH}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key[:60]!r} occurs twice")
        result[key] = value
    return result


def _is_deeper(value: object, depth: int) -> bool:
    """Returns whether lists and dicts are nested deeper than ``depth``. A list that holds itself (a YAML alias) is."""
    level = [value]
    for _ in range(depth + 1):
        nodes = {id(node): node for node in level if isinstance(node, dict | list)}  # aliases of a node count once
        if not nodes:
            return False
        level = [child for node in nodes.values() for child in (node.values() if isinstance(node, dict) else node)]
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
    """PyYAML's safe loader. It also refuses repeated keys, and all its errors are ``YAMLError``."""

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, ScalarNode):
                if (key.tag, key.value) in seen:
                    raise ConstructorError(None, None, f"the key {key.value[:40]!r} occurs twice", key.start_mark)
                seen.add((key.tag, key.value))
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (AttributeError, LookupError, TypeError, ValueError) as error:  # such as for a 13th month or !!int ''
            problem = f"{str(node.value)[:40]!r} is not a valid {node.tag.rpartition(':')[2]}"
            raise ConstructorError(None, None, problem, node.start_mark) from error


def project_file() -> Path | None:
    """Returns the project file of the current folder or of the nearest parent that has one."""
    here = Path.cwd()
    return next((file for folder in (here, *here.parents) if (file := folder / PROJECT_FILE).is_file()), None)
