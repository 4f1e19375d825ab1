"""Digests that recognise contents, whatever path they are at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autolambda.responses import sha256_of
from autolambda.tasks.base import Slice


def digest(*texts: str) -> str:
    """Returns the first 64 bits of the SHA-256 of texts, in hex."""
    return sha256_of(*texts).hex()[:16]


def prompts_key(slices: Sequence[Sequence[Slice]]) -> dict[str, Any]:
    """Returns the sizes and the digest of the prompts of the search slices and of the confirm slices, as JSON.

    ``{"search": {"prompts": [[num_prompts, repeats], ...], "digest": "..."}, "confirm": {...}}``, a pair per slice.
    """
    return {phase: _phase_key(parts) for phase, parts in zip(("search", "confirm"), slices, strict=True)}


def prompts_in_words(key: Mapping[str, Any]) -> str:
    """Returns a ``prompts_key`` for people: ``256x1 to search, 1024x1 to confirm, 01234567 89abcdef``."""
    sizes = [
        f"{' + '.join(f'{num_prompts}x{repeats}' for num_prompts, repeats in part['prompts'])} to {phase}"
        for phase, part in key.items()
    ]
    return ", ".join([*sizes, " ".join(part["digest"][:8] for part in key.values())])


def _phase_key(slices: Sequence[Slice]) -> dict[str, Any]:
    sizes = [[len(part.samples), part.repeats] for part in slices]
    return {"prompts": sizes, "digest": digest(*(repr(_contents(part)) for part in slices))}


def _contents(part: Slice) -> tuple[object, ...]:
    """Returns what results depend on in a slice. How far a guard may drop is free to change, like the budget."""
    samples = [(sample.id, [dict(each) for each in sample.messages], sample.target) for sample in part.samples]
    weight = part.weight if part.max_drop is None else 0.0
    return part.task, part.grader, samples, part.repeats, weight
