"""The second plug point: what a task gives to a search, and what a benchmark is.

A task has two slices that share no prompt: the search may see ``search`` only, the verdict is measured on ``confirm``.
A benchmark is a value: where its rows are, and how one of them becomes a prompt with a target.
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
    """A sample, the place it was read from, and its bare question, by which two tasks are compared."""

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
    """An item whose prompt is one message of the user's; its ``question`` is the prompt without what is said to all."""
    sample = Sample(id, ({"role": "user", "content": prompt},), target, metadata or {})
    return Item(sample, row.where, prompt if question is None else question)


@dataclass(frozen=True)
class Benchmark:
    """A published set: its place on the hub, the prompt in its own customary words, the grader of its answers.

    The confirmation takes ``confirm_split``; without one the rows of ``split`` are cut in two. ``instead`` says, of a
    set on which models are compared, what to do rather than to search on its ``test_splits``. ``repeats`` is how often
    each prompt is asked where the config does not say: more than once where there are few.
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
