"""JSON from a file: plain values, in which a key stands once and nothing is nested deeper than ``DEEPEST``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

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
