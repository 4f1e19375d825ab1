"""The graders that compare texts: ``exact`` (the whole text is the target) and ``contains`` (the target is in it).

White space at the ends never counts. An empty text is no answer.
"""

from __future__ import annotations

from autolambda.graders.base import ParsedAnswer


def exact(text: str, target: str) -> ParsedAnswer:
    """Returns the stripped text, correct if it equals the stripped target."""
    answer = text.strip()
    return ParsedAnswer(answer, answer == target.strip()) if answer else ParsedAnswer(None)


def contains(text: str, target: str) -> ParsedAnswer:
    """Returns the stripped text, correct if the target occurs in it in any letter case."""
    answer = text.strip()
    return ParsedAnswer(answer, target.strip().casefold() in answer.casefold()) if answer else ParsedAnswer(None)


def check(target: str) -> None:
    """Raises ``ValueError`` for an empty target, which no answer could meet."""
    if not target.strip():
        raise ValueError("it is empty")
