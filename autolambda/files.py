"""Files of users and of others, read without trusting them: regular files only, up to a size; JSON and YAML.

A pipe would block for ever and a device has no end: both are an ``OSError``, and so is a file that is too large.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, TextIO

import yaml
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

SMALL = 256 * 1024
"""Bytes that a text written by hand, such as a config, has at most."""


def open_bytes(path: Path) -> BinaryIO:
    """A regular file, opened to read. Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(code, os.strerror(code) if code == errno.EISDIR else "it is not a regular file", str(path))


def open_text(path: Path, *, encoding: str = "utf-8", newline: str | None = None) -> TextIO:
    """A regular file, opened to read as text. Raises ``OSError``."""
    return io.TextIOWrapper(open_bytes(path), encoding=encoding, newline=newline)


def read_text(path: Path, *, max_bytes: int = SMALL) -> str:
    """The whole of a regular file in UTF-8. Raises ``OSError``, also where it is larger, and ``UnicodeDecodeError``."""
    with open_bytes(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes // 1024:,} kB", str(path))
    return content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")  # as the system's text files


DEEPEST = 100  # far below Python's stack, on which whatever uses the value depends


def load_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ``ValueError``, a ``JSONDecodeError`` among them."""
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")  # json would guess at UTF-16 and 32
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {DEEPEST}") from error
    except ValueError as error:
        if "integer string conversion" in str(error):  # Python's limit, with advice for programmers
            raise ValueError("a number has thousands of digits") from error
        raise
    if text.count("[") + text.count("{") > DEEPEST:
        _check_depth(value)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in made if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:60]!r} stands twice")
    return made


def _check_depth(value: object) -> None:
    level: list[object] = [value]
    for _ in range(DEEPEST + 1):
        level = [part for whole in level if isinstance(whole, dict | list) for part in _parts(whole)]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {DEEPEST}")


def _parts(whole: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return whole.values() if isinstance(whole, dict) else whole


MOST_NODES = 100_000
DEEPEST = 50
_LONGEST_INT = 1024  # bits, as much as a float's range

_UNFIT = re.compile("[\0\ud800-\udfff]")
_TAGS = ("null", "bool", "int", "float", "timestamp", "str", "seq", "map")


def load_yaml(text: str) -> Any:
    """The value of a text with one YAML document. Raises ``yaml.YAMLError``."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the tags of JSON and dates alone, whose errors all have a line."""

    yaml_constructors: ClassVar[dict[Any, Any]] = {
        tag: SafeConstructor.yaml_constructors[tag] for tag in (*(f"tag:yaml.org,2002:{name}" for name in _TAGS), None)
    }

    _depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self._depth += 1
        if self._depth > DEEPEST:  # PyYAML's own limit is Python's stack, in a time that grows with its square
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # untyped upstream
            raise ConstructorError(None, None, f"lists and mappings are nested deeper than {DEEPEST}", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            value: Any = super().construct_object(node, deep=deep)
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:  # !!int "", a 13th month
            raise _problem(node, f"{str(node.value)[:40]!r} is no {node.tag.rpartition(':')[2]}") from error
        if isinstance(value, int) and value.bit_length() > _LONGEST_INT:
            raise _problem(node, f"a number of {value.bit_length()} bits is too long")
        if isinstance(value, str) and _UNFIT.search(value):
            raise _problem(node, f"a text holds \\0 or half of a UTF-16 pair: {value[:40]!r}")
        return value


def _size(node: Node, sizes: dict[int, int]) -> int:
    """The values that a node stands for, its aliases expanded."""
    if (known := sizes.get(id(node))) is not None:
        if known == 0:
            raise _problem(node, "an alias stands for what it is in itself")
        return known
    sizes[id(node)] = 0  # not yet known: whoever meets it now is below it
    parts: list[Node] = []
    if isinstance(node, SequenceNode):
        parts = node.value
    elif isinstance(node, MappingNode):
        _check_keys(node)
        parts = [part for pair in node.value for part in pair]
    size = 1 + sum(_size(part, sizes) for part in parts)
    if size > MOST_NODES:
        raise _problem(node, f"its aliases expand to more than {MOST_NODES:,} values")
    sizes[id(node)] = size
    return size


def _check_keys(node: MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, ScalarNode):
            if (key.tag, key.value) in seen:
                raise _problem(key, f"the key {key.value[:40]!r} stands twice")
            seen.add((key.tag, key.value))


def _problem(node: Node, text: str) -> ConstructorError:
    return ConstructorError(None, None, text, node.start_mark)
