"""Digests by which contents are known again, whatever their path."""

from __future__ import annotations

from collections.abc import Sequence

from autolambda.responses import sha256_of
from autolambda.tasks.base import Slice


def digest(*texts: str) -> str:
    """The first 64 bits of SHA-256 over texts, in hex."""
    return sha256_of(*texts).hex()[:16]


def prompts_key(slices: Sequence[Sequence[Slice]]) -> str:
    """What stands for the prompts of the search's and of the confirmation's slices: their sizes and their digest.

    The sizes are prompts x repeats of each slice, for a message: ``256x1 to search, 1024x1 to confirm``.
    """
    search, confirm = (" + ".join(f"{len(part.samples)}x{part.repeats}" for part in phase) for phase in slices)
    contents = digest(*(repr(_contents(part)) for phase in slices for part in phase))
    return f"{search} to search, {confirm} to confirm, {contents}"


def _contents(part: Slice) -> tuple[object, ...]:
    """What results depend on in a slice; how far a guard may drop is, like the budget, free to change."""
    samples = [(sample.id, [dict(each) for each in sample.messages], sample.target) for sample in part.samples]
    weight = part.weight if part.max_drop is None else 0.0
    return part.task, part.grader, samples, part.repeats, weight
