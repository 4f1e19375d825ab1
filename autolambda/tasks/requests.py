"""The responses that an evaluation requests, in a fixed order that depends only on its slices.

For any n, the first n requests hold an equal share of each slice.
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

    ``weight`` is the weight of its tokens in the mean over tasks: 1 with one task, 0 for a guard.
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
    """Returns the requests of all slices in fixed order."""
    weights = token_weights(slices)
    keyed = [
        (
            (repeat * len(part.samples) + index + 0.5) / part.num_responses,
            number,
            Request(part.task, part.grader, sample, repeat, weights[part.task], part.on_grader_error),
        )
        for number, part in enumerate(slices)
        for repeat in range(part.repeats)
        for index, sample in enumerate(part.samples)
    ]
    return [request for _, _, request in sorted(keyed, key=lambda each: each[:2])]


def token_weights(slices: Sequence[Slice]) -> dict[str, float]:
    """Returns a token's weight by task. The weighted sum over n responses is n times the weighted mean over tasks."""
    shares = {part.task: part.weight if part.max_drop is None else 0.0 for part in slices}
    total, num_responses = sum(shares.values()), sum(part.num_responses for part in slices)
    return {part.task: shares[part.task] / total * num_responses / part.num_responses for part in slices}


def batches(requests: Sequence[Request], *, size: int | None = None) -> list[Sequence[Request]]:
    """Returns the requests cut into batches of ``size``, in order; ``None`` is one batch."""
    size = size or max(len(requests), 1)
    return [requests[start : start + size] for start in range(0, len(requests), size)]


def derive_seed(*parts: object) -> int:
    """Returns a 63-bit seed from SHA-256 of the parts, so that similar parts give unrelated seeds."""
    return int.from_bytes(sha256_of(*parts)[:8], "big") >> 1
