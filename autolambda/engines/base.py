"""The first plug point: an engine holds both parents, takes a schedule in place and generates.

Every engine passes the contract suite in tests/test_engine_contract.py: endpoints bit-identical to the parents; a
schedule set in place equals the same merge loaded from disk; switching there and back restores; same seed and batch,
same response; greedy responses in float32 do not depend on the batch around them (with a mixture of experts but for
ties within the last bit).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from autolambda.responses import Response
from autolambda.schedule import Schedule


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. ``temperature`` 0 is greedy; ``top_k`` 0, ``top_p`` 1 and ``min_p`` 0 are off.

    ``presence_penalty`` is subtracted once from the logit of every token already generated. ``stop`` are strings that
    end a response; the one that was met is not part of its text. ``max_tokens`` caps the generated tokens.
    """

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    presence_penalty: float
    stop: tuple[str, ...]
    max_tokens: int


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt (chat template applied) and the seed of its one response."""

    text: str
    seed: int


class Engine(Protocol):
    """Holds the weights of both parents and of their current merge."""

    def set_schedule(self, schedule: Schedule) -> None:
        """Merges in place; nothing cached under the former weights survives. Raises ``EngineError``."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Response]:
        """One response a prompt, in order. The list is the unit of work: the same list gives the same responses."""

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the live weights in the checkpoint's dtype, by parameter name."""

    def close(self) -> None:
        """Frees the weights; the engine cannot be used afterwards."""
