"""YAML from a user: plain keys and values, read without trusting the text.

Only null, truth values, numbers, dates, texts, lists and mappings are taken. A key may stand once, nothing is nested
deeper than ``DEEPEST``, and aliases may not expand to more than ``MOST_NODES`` values (a few lines can stand for
billions). Whatever PyYAML stumbles over is a ``yaml.YAMLError`` with its line.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

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
