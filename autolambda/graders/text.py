"""The graders that compare texts: ``exact`` (the text is the target) and ``contains`` (the target occurs in the text).

White space at the ends never counts. An empty text holds no answer.
"""

from __future__ import annotations

from autolambda.graders.base import ParsedAnswer, QuickGrader


class Exact(QuickGrader):
    """The stripped text is the answer, correct if it equals the stripped target."""

    def grade(self, text: str, target: str) -> ParsedAnswer:
        answer = text.strip()
        return ParsedAnswer(answer, self._is_met(answer, target.strip())) if answer else ParsedAnswer(None)

    def _is_met(self, answer: str, target: str) -> bool:
        return answer == target

    def check_target(self, target: str) -> None:
        if not target.strip():
            raise ValueError("it is empty")

    def canonical(self, target: str) -> str:
        return target


class Contains(Exact):
    """The stripped text is the answer, correct if the target occurs in it in any letter case."""

    def _is_met(self, answer: str, target: str) -> bool:
        return target.casefold() in answer.casefold()
