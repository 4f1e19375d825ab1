"""Contains: the target occurs in the text, letter case apart."""

from __future__ import annotations

from autolambda.graders.reading import Reading


def read(text: str, target: str) -> Reading:
    """The stripped text as the answer; an empty one is none."""
    answer = text.strip()
    return Reading(answer, target.strip().casefold() in answer.casefold()) if answer else Reading(None)
