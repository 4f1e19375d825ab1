"""The interface of a grader, and the answer that it finds in a text.

A grader is a pure function of a text and a target. It finds no answer rather than guess one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class ParsedAnswer:
    """The answer found in a text (``None`` if no answer is found) and whether it meets the target.

    ``failure`` says why the text could not be graded. ``refused`` means that no text can be graded at all, because the
    grader cannot be loaded or its process does not start.
    """

    answer: str | None
    correct: bool = False
    failure: str = ""
    refused: bool = False


class Grader(ABC):
    """Grades texts. A subclass must define ``grade`` only."""

    is_quick: ClassVar[bool] = False
    """Whether ``quick`` decides every text, so that no process is needed."""

    @abstractmethod
    def grade(self, text: str, target: str) -> ParsedAnswer:
        """Returns the answer in the text. It may be slow, hang or crash, since it runs in a separate process."""

    def quick(self, text: str, target: str) -> ParsedAnswer | None:
        """Returns the answer if a fast and safe rule finds it; ``None`` if ``grade`` is needed."""
        return None if text.strip() else ParsedAnswer(None)

    def check_target(self, target: str) -> None:
        """Raises ``ValueError`` for a target that no text can meet, as far as a fast check can tell."""
        return

    def canonical(self, target: str) -> str | None:
        """Returns a text that ``grade`` should find correct; ``None`` if none can be made up."""
        return None

    def preload(self, target: str | None) -> None:
        """Loads what ``grade`` needs for a target, or for any (``None``). Its time is not part of a text's limit."""
        return

    def cache_key(self, text: str) -> str | None:
        """Returns the cache key of a result: a text that is graded like ``text``. ``None`` disables the cache."""
        return None


class QuickGrader(Grader):
    """A grader that is quick and safe on any text."""

    is_quick = True

    def quick(self, text: str, target: str) -> ParsedAnswer:
        return self.grade(text, target)
