"""The interface of a grader, and the answer that it finds in a text.

A grader is a pure function of a text and a target. It finds no answer rather than guess one. A target with several
right answers is the text ``any of ["2", "two"]``; ``AnyOf`` gives them to a grader one by one.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass


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

    is_quick: bool = False
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


_ANY_OF = "any of "


def any_of(targets: Sequence[str]) -> str:
    """Returns one target that any of ``targets`` meets; a single one as it is."""
    distinct = list(dict.fromkeys(targets))
    return distinct[0] if len(distinct) == 1 else _ANY_OF + json.dumps(distinct, ensure_ascii=False)


def right_answers(target: str) -> list[str]:
    """Returns the targets of which any is right: those of ``any_of``, or the target alone."""
    if target.startswith(_ANY_OF + '["'):
        try:
            given = json.loads(target.removeprefix(_ANY_OF))
        except ValueError:
            return [target]
        if all(isinstance(each, str) for each in given):
            return list(given)
    return [target]


def refuse_solution(target: str) -> None:
    """Raises ``ValueError`` for a whole solution as GSM8K has it, which no answer equals."""
    if re.search(r"(?:^|\n)#### ?\S+\s*\Z", target):
        raise ValueError("it is a solution that ends with #### and the answer")


class AnyOf(Grader):
    """Grades by another grader. A text is correct if it meets any of the target's right answers."""

    def __init__(self, grader: Grader) -> None:
        self._grader = grader
        self.is_quick = grader.is_quick

    def grade(self, text: str, target: str) -> ParsedAnswer:
        """Returns the first correct answer, else the first answer that is found. Raises the grader's errors."""
        parsed = []
        for each in right_answers(target):
            parsed.append(self._grader.grade(text, each))
            if parsed[-1].correct:
                return parsed[-1]
        return _best(parsed)

    def quick(self, text: str, target: str) -> ParsedAnswer | None:
        parsed = [self._grader.quick(text, each) for each in right_answers(target)]
        decided = [each for each in parsed if each is not None]
        if any(each.correct for each in decided) or len(decided) == len(parsed):
            return _best(decided)
        return None

    def check_target(self, target: str) -> None:
        """Raises ``ValueError`` if no text can meet any of the right answers."""
        errors = []
        for each in right_answers(target):
            try:
                return self._grader.check_target(each)
            except ValueError as error:
                errors.append(error)
        raise errors[0]

    def canonical(self, target: str) -> str | None:
        return self._grader.canonical(right_answers(target)[0])

    def preload(self, target: str | None) -> None:
        self._grader.preload(None if target is None else right_answers(target)[0])

    def cache_key(self, text: str) -> str | None:
        return self._grader.cache_key(text)


def _best(parsed: Sequence[ParsedAnswer]) -> ParsedAnswer:
    """Returns the first correct answer, else the first answer that is found, else the first."""
    return min(parsed, key=lambda each: (not each.correct, each.answer is None))
