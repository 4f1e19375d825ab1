"""Regex: the target is a regular expression that is found somewhere in the text.

Syntax and meaning are those of the ``regex`` package without flags; ``(?i)`` in front leaves letter case apart.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from autolambda.graders.base import ParsedAnswer

_SECONDS = 2.0  # of the package's own clock, which was seen to be slow by half; a worker has its limit besides


@lru_cache(maxsize=1024)
def _compiled(target: str) -> Any:
    import regex

    return regex.compile(target)


def read(text: str, target: str) -> ParsedAnswer:
    """What was found is the answer; where nothing was, the stripped text is. Raises ``TimeoutError``."""
    text = text.strip()
    if not text:
        return ParsedAnswer(None)
    found = _compiled(target).search(text, timeout=_SECONDS)
    return ParsedAnswer(found[0] or text, True) if found else ParsedAnswer(text)


def check(target: str) -> None:
    """The expression compiles and is not empty."""
    import regex

    if not target:
        raise ValueError("it is empty, which every text matches")
    try:
        _compiled(target)
    except regex.error as error:
        raise ValueError(f"it is no regular expression: {error}") from error
