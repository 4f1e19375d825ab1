"""The grader ``regex``: the target is a regular expression that matches somewhere in the text.

The ``regex`` package defines the syntax. No flags are set; ``(?i)`` in front ignores letter case.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from autolambda.graders.base import Grader, ParsedAnswer

_SECONDS = 2.0  # by the package's own clock, which was seen to be slow by half; the process has a limit too


@lru_cache(maxsize=1024)
def _compiled(target: str) -> Any:
    import regex

    return regex.compile(target)


class Regex(Grader):
    """The match is the answer; without a match the stripped text is, and is wrong."""

    def grade(self, text: str, target: str) -> ParsedAnswer:
        """Returns the match. Raises ``TimeoutError`` after 2 seconds."""
        text = text.strip()
        if not text:
            return ParsedAnswer(None)
        found = _compiled(target).search(text, timeout=_SECONDS)
        return ParsedAnswer(found[0] or text, True) if found else ParsedAnswer(text)

    def check_target(self, target: str) -> None:
        import regex

        if not target:
            raise ValueError("it is empty, which every text matches")
        try:
            _compiled(target)
        except regex.error as error:
            raise ValueError(f"it is no regular expression: {error}") from error
