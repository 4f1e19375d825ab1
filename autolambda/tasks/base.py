"""The values of a task: items, slices and benchmarks.

A task has two slices that share no prompt. The search sees ``search`` only; the verdict is measured on ``confirm``. A
benchmark defines the source of its rows, and how a row becomes a prompt with a target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from autolambda.responses import Sample
from autolambda.tasks.rows import Row

Phase = Literal["search", "confirm"]


@dataclass(frozen=True)
class Item:
    """A sample, its place in the source for messages, and its bare question, which identifies repeated prompts."""

    sample: Sample
    where: str
    question: str


def user_item(
    row: Row,
    prompt: str,
    target: str,
    *,
    id: str,
    question: str | None = None,
    metadata: Mapping[str, object] | None = None,
) -> Item:
    """Returns an item whose prompt is one user message. ``question`` is the prompt without its template."""
    sample = Sample(id, ({"role": "user", "content": prompt},), target, metadata or {})
    return Item(sample, row.where, prompt if question is None else question)


@dataclass(frozen=True)
class Benchmark:
    """A published set of prompts: its hub id, its usual prompt and its grader.

    The confirmation uses ``confirm_split``; without one the rows of ``split`` are cut in two. Models are compared on
    the ``test_splits``; ``instead`` is the advice to a user who searches on one of them. ``repeats`` is the default
    number of responses per prompt: more than one if the set has few prompts.
    """

    name: str
    hub: str
    split: str
    item: Callable[[Row], Item]
    grader: str
    subset: str | None = None
    confirm_split: str | None = None
    repeats: int = 1
    test_splits: tuple[str, ...] = ()
    instead: str = ""


@dataclass(frozen=True)
class Slice:
    """The part of a task that one evaluation measures: samples, each with ``repeats`` responses, and a weight.

    A guard is a task with a ``max_drop``, the accuracy (share of 1) that it may lose against the better parent; it has
    no weight. If a grader fails, ``on_grader_error`` decides whether the search ends or the response is unparsed.
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
