"""What a grader found in a text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """The answer that was read (``None``: there was none) and whether it meets the target."""

    answer: str | None
    correct: bool = False
