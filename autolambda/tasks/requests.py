"""What an evaluation owes: the responses of its slices, in one fixed order that follows from the slices alone.

Any number of the first responses holds the same share of each slice, and each has a seed of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from autolambda.responses import Key, Sample, sha256_of
from autolambda.tasks.base import Slice


@dataclass(frozen=True)
class Request:
    """One response to generate: a sample of a task and which of its repeats.

    ``weight`` is what its tokens weigh in the mean over tasks beside those of the others: 1 with one task, 0 for a
    guard.
    """

    task: str
    grader: str
    sample: Sample
    repeat: int
    weight: float = 1.0
    on_grader_error: Literal["stop", "unparsed"] = "stop"

    @property
    def key(self) -> Key:
        return (self.task, self.sample.id, self.repeat)


def requests_on(slices: Sequence[Slice]) -> list[Request]:
    """All responses owed on the slices, in fixed order: any number of the first holds the same share of each slice."""
    weights = token_weights(slices)
    places = [
        (
            (repeat * len(part.samples) + place + 0.5) / part.num_responses,
            number,
            Request(part.task, part.grader, sample, repeat, weights[part.task], part.on_grader_error),
        )
        for number, part in enumerate(slices)
        for repeat in range(part.repeats)
        for place, sample in enumerate(part.samples)
    ]
    return [owed for _, _, owed in sorted(places, key=lambda each: each[:2])]


def token_weights(slices: Sequence[Slice]) -> dict[str, float]:
    """What a token of each task weighs, so that the weighted sum over n responses is n times the mean over tasks."""
    shares = {part.task: part.weight if part.max_drop is None else 0.0 for part in slices}
    total, num_responses = sum(shares.values()), sum(part.num_responses for part in slices)
    return {part.task: shares[part.task] / total * num_responses / part.num_responses for part in slices}


def batches(owed: Sequence[Request], *, size: int | None = None) -> list[Sequence[Request]]:
    """``owed`` in its order, cut into batches of ``size``; ``None`` is all in one."""
    size = size or max(len(owed), 1)
    return [owed[start : start + size] for start in range(0, len(owed), size)]


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from SHA-256 of the parts: neighbouring inputs give unrelated seeds."""
    return int.from_bytes(sha256_of(*parts)[:8], "big") >> 1
