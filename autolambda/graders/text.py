"""The graders that compare texts: ``exact`` (the text is the target) and ``contains`` (the target occurs in the text).

White space at the ends never counts, nor how Unicode composes an accent. An empty text holds no answer.
"""

from __future__ import annotations

from unicodedata import normalize

from autolambda.graders.base import ParsedAnswer, QuickGrader, refuse_solution


class Exact(QuickGrader):
    """The stripped text is the answer, correct if it equals the stripped target."""

    def grade(self, text: str, target: str) -> ParsedAnswer:
        answer = text.strip()
        composed = normalize("NFC", answer), normalize("NFC", target.strip())
        return ParsedAnswer(answer, self._is_met(*composed)) if answer else ParsedAnswer(None)

    def _is_met(self, answer: str, target: str) -> bool:
        return answer == target

    def check_target(self, target: str) -> None:
        if not target.strip():
            raise ValueError("it is empty")
        refuse_solution(target)

    def canonical(self, target: str) -> str:
        return target


class Contains(Exact):
    """The stripped text is the answer, correct if the target occurs in it in any letter case."""

    def _is_met(self, answer: str, target: str) -> bool:
        return target.casefold() in answer.casefold()
