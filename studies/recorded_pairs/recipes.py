"""The recipes of the recorded pairs: a task, an architecture, and how the base and both parents are trained."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stage:
    """Training steps on a mixture: the share that thinks, and how many passes it makes (weight by count)."""

    steps: int
    lr: float
    think: float
    passes: dict[int, float] = field(default_factory=lambda: {1: 1.0})


@dataclass(frozen=True)
class Recipe:
    """A pair. ``sampling`` goes into the generation config; ``cap`` is the longest response."""

    task: str
    architecture: str  # qwen3 or llama
    layers: int
    hidden: int
    heads: tuple[int, int]  # query, key/value; each of 32
    ffn: int
    base: Stage
    instruct: Stage
    thinking: Stage
    cap: int
    sampling: dict[str, float] = field(default_factory=dict)
    batch_size: int = 64
    tokens_a_row: float = 20.0


RECIPES = {
    # the parents are close, and both are sure of their style: the choice flips within a short way
    "cliff": Recipe(
        task="sums", architecture="qwen3", layers=3, hidden=96, heads=(3, 1), ffn=256,
        base=Stage(2000, 2e-3, 0.5, {1: 0.7, 2: 0.3}),
        instruct=Stage(200, 7e-4, 0.0),
        thinking=Stage(200, 7e-4, 1.0, {1: 0.6, 2: 0.4}),
        cap=128, sampling={"temperature": 0.1},
    ),
    "words": Recipe(
        task="swaps", architecture="llama", layers=3, hidden=96, heads=(3, 3), ffn=256,
        base=Stage(1400, 2e-3, 0.35, {1: 0.6, 2: 0.3, 3: 0.1}),
        instruct=Stage(200, 3e-4, 0.03),
        thinking=Stage(200, 5e-4, 0.97, {1: 0.4, 2: 0.4, 3: 0.2}),
        cap=160,
    ),
    # a task that needs no thought
    "flat": Recipe(
        task="lookup", architecture="qwen3", layers=2, hidden=96, heads=(4, 1), ffn=192,
        base=Stage(1200, 2e-3, 0.4, {1: 0.5, 2: 0.3, 3: 0.2}),
        instruct=Stage(150, 5e-4, 0.02),
        thinking=Stage(200, 5e-4, 0.98, {1: 0.3, 2: 0.4, 3: 0.3}),
        cap=128, sampling={"temperature": 0.7, "top_p": 0.8, "top_k": 20},
    ),
    # the parents are trained far apart: their middle is worse than Instruct
    "dip": Recipe(
        task="turns", architecture="qwen3", layers=3, hidden=64, heads=(4, 2), ffn=160,
        base=Stage(500, 2e-3, 0.3, {1: 0.5, 2: 0.5}),
        instruct=Stage(700, 1e-3, 0.0),
        thinking=Stage(900, 1.5e-3, 1.0, {1: 0.4, 2: 0.4, 3: 0.2}),
        cap=128,
    ),
}  # fmt: skip
