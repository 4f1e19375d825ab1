"""Digests that identify prompts by content, not by path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autolambda.responses import sha256_of
from autolambda.tasks.base import Slice

PromptsKey = Mapping[str, Mapping[str, Any]]
"""``{"search": {"prompts": [[num_prompts, repeats], ...], "digest": "..."}, "confirm": {...}}``, as JSON stores it."""


def digest(*texts: str) -> str:
    """Returns the first 64 bits of SHA-256 over texts, in hex."""
    return sha256_of(*texts).hex()[:16]


def prompts_key(slices: Sequence[Sequence[Slice]]) -> PromptsKey:
    """Returns the identity of the search and confirm slices: sizes, and a digest of everything that affects results."""
    return {
        phase: {
            "prompts": [[len(part.samples), part.repeats] for part in parts],
            "digest": digest(*(repr(_contents(part)) for part in parts)),
        }
        for phase, parts in zip(("search", "confirm"), slices, strict=True)
    }


def prompts_in_words(key: PromptsKey) -> str:
    """Returns a key for a message, as prompts x repeats: ``256x1 to search, 1024x1 to confirm (DIGEST, DIGEST)``."""
    sizes = {phase: " + ".join(f"{num}x{repeats}" for num, repeats in part["prompts"]) for phase, part in key.items()}
    digests = ", ".join(part["digest"] for part in key.values())
    return f"{', '.join(f'{words} to {phase}' for phase, words in sizes.items())} ({digests})"


def _contents(part: Slice) -> tuple[object, ...]:
    """Returns all of a slice that affects results. ``max_drop`` is left out: like the budget, it may change later."""
    samples = [(sample.id, [dict(each) for each in sample.messages], sample.target) for sample in part.samples]
    weight = part.weight if part.max_drop is None else 0.0
    return part.task, part.grader, samples, part.repeats, weight
