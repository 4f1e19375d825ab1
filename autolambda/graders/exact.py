"""Exact: the whole text, stripped of white space at its ends, equals the target."""

from __future__ import annotations

from autolambda.graders.reading import Reading


def read(text: str, target: str) -> Reading:
    """The stripped text as the answer; an empty one is none."""
    answer = text.strip()
    return Reading(answer, answer == target.strip()) if answer else Reading(None)


def check(target: str) -> None:
    """An empty target is never met: an empty text is no answer."""
    if not target.strip():
        raise ValueError("it is empty")
