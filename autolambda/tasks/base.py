"""The second plug point: a task is a list of samples with a grader.

A task hands out disjoint slices: the search may see ``search`` only, the verdict is measured on ``confirm``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from autolambda.responses import Sample

Phase = Literal["search", "confirm"]


class Task(Protocol):
    """Samples and how they are graded."""

    name: str
    grader: str

    def samples(self, phase: Phase) -> Sequence[Sample]:
        """All samples of a slice, in a fixed order. Raises ``TaskError``."""


@dataclass(frozen=True)
class Slice:
    """What one evaluation measures of a task: its samples, each with ``repeats`` responses, and the task's weight.

    A guard has a ``max_drop``, the accuracy (share of 1) that it may lose against the better parent, and weighs
    nothing. ``on_grader_error`` says whether a grader that fails ends the search or leaves the response unparsed.
    """

    task: str
    grader: str
    samples: tuple[Sample, ...]
    repeats: int
    weight: float = 1.0
    max_drop: float | None = None
    on_grader_error: Literal["stop", "unparsed"] = "stop"

    @property
    def num_responses(self) -> int:
        return len(self.samples) * self.repeats
