"""The grader ``regex``: the target is a regular expression that matches somewhere in the text.

The ``regex`` package defines the syntax. No flags are set; ``(?i)`` in front ignores letter case.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from autolambda.graders.base import Grader, ParsedAnswer

_SECONDS = 2.0  # the package can overrun it by half; the process has a limit too


@lru_cache(maxsize=1024)
def _compiled(target: str) -> Any:
    import regex

    return regex.compile(target)


class Regex(Grader):
    """The match is the answer. Without a match the answer is the stripped text, and it is wrong."""

    def grade(self, text: str, target: str) -> ParsedAnswer:
        """Returns the match. Raises ``TimeoutError`` after 2 seconds."""
        text = text.strip()
        if not text:
            return ParsedAnswer(None)
        match = _compiled(target).search(text, timeout=_SECONDS)
        return ParsedAnswer(match[0] or text, True) if match else ParsedAnswer(text)

    def check_target(self, target: str) -> None:
        import regex

        if not target:
            raise ValueError("it is empty, which every text matches")
        try:
            _compiled(target)
        except regex.error as error:
            raise ValueError(f"it is not a regular expression: {error}") from error
