"""The bank of recorded responses, and worlds drawn from it in which searches are replayed.

Between recorded schedules a response comes from one of the corners of the simplex around the schedule, each with its
barycentric weight: the true numbers of any schedule are then the weighted means of its corners, known exactly. A world
draws its prompts from the bank's with replacement, so that the truth is that of the bank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay

Floats = NDArray[np.float64]
Params = Mapping[str, float]

CORRECT, THOUGHT = 1, 2  # bits of the recorded flags


@dataclass(frozen=True)
class Truth:
    """The true numbers of a schedule in the bank."""

    accuracy: float
    mean_tokens: float
    think_ratio: float


class Bank:
    """Recorded responses: ``outcomes`` float32 [nodes, prompts, repeats, 3] of correct, tokens, thought."""

    def __init__(self, path: Path, *, scattered: bool = False) -> None:
        """``scattered`` takes the nodes of the whole box (depth too), else those of attention x ffn."""
        with np.load(path) as arrays:
            params, tokens, flags = arrays["params"], arrays["tokens"], arrays["flags"]
        keep = np.ones(len(params), bool) if scattered else ~params[:, 2:].any(axis=1)
        params, tokens, flags = params[keep], tokens[keep], flags[keep]
        self.params: Floats = params
        self.num_repeats = (tokens > 0).all(axis=1).sum(axis=1)
        self.num_prompts = tokens.shape[1]
        self.outcomes = np.stack([(flags & CORRECT) > 0, tokens, (flags & THOUGHT) > 0], axis=-1).astype(np.float32)
        self.means = np.array(
            [self.outcomes[i, :, :n].mean(axis=(0, 1)) for i, n in enumerate(self.num_repeats)], dtype=np.float64
        )
        self._places = _places(params[:, :2])
        self._triangles = Delaunay(self._places)

    def corners(self, params: Params) -> tuple[NDArray[np.int64], Floats]:
        """The nodes around a schedule and their weights."""
        place = np.clip(_places(np.array([[params["lam"], params["split"]]])), 0.0, 1.0)
        simplex = int(self._triangles.find_simplex(place, tol=1e-9)[0])
        if simplex < 0:
            raise ValueError(f"outside the bank: {dict(params)}")
        transform = self._triangles.transform[simplex]
        first = transform[:2] @ (place[0] - transform[2])
        weights = np.clip(np.append(first, 1 - first.sum()), 0.0, 1.0)
        return self._triangles.simplices[simplex], weights / weights.sum()

    def truth(self, params: Params) -> Truth:
        """The true numbers of a schedule."""
        nodes, weights = self.corners(params)
        return Truth(*map(float, weights @ self.means[nodes]))


class World:
    """One replay: its own prompts for the search and the confirmation, and the tokens spent so far."""

    def __init__(self, bank: Bank, seed: int, *, num_prompts: int = 1000, shared_seeds: bool = False) -> None:
        """``shared_seeds``: two schedules draw with the same random numbers in the search too, not just to confirm."""
        self.bank, self.num_tokens, self._seed, self._shared = bank, 0, seed, shared_seeds
        rng = np.random.default_rng([seed, 1])
        self.num_prompts = num_prompts  # of each phase
        self._slots = {phase: rng.integers(bank.num_prompts, size=num_prompts) for phase in ("search", "confirm")}
        self._repeats = {
            phase: rng.permuted(np.tile(np.arange(8), (num_prompts, 1)), axis=1) for phase in ("search", "confirm")
        }
        self._luck = {phase: rng.random((num_prompts, 8)) for phase in ("search", "confirm")}

    def measure(self, params: Params, phase: str, index: NDArray[np.int64]) -> Floats:
        """The responses ``index`` of a schedule in the fixed order, float64 [n, 3]: correct, tokens, thought.

        Response i answers prompt ``i % num_prompts``. The same responses come again for the same schedule.
        """
        nodes, weights = self.bank.corners(params)
        text = ",".join(f"{name}={value:.4f}" for name, value in sorted(params.items()))
        digest = hashlib.sha256(f"{self._seed},{phase},{text}".encode()).digest()
        slot, repeat = index % self.num_prompts, index // self.num_prompts
        luck, recorded = self._luck[phase][slot, repeat], self._repeats[phase][slot, repeat]
        if phase == "search" and not self._shared:
            rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
            luck = rng.random(8 * self.num_prompts)[index]
            recorded = (recorded + rng.integers(8, size=8 * self.num_prompts)[index]) % 8
        corner = nodes[np.minimum(np.searchsorted(np.cumsum(weights), luck, side="right"), len(nodes) - 1)]
        recorded = recorded % self.bank.num_repeats[corner]
        outcomes = self.bank.outcomes[corner, self._slots[phase][slot], recorded].astype(np.float64)
        self.num_tokens += int(outcomes[:, 1].sum())
        return outcomes


def _places(lam_split: Floats) -> Floats:
    """attention and ffn of (lam, split)."""
    lam, split = lam_split[:, 0], lam_split[:, 1]
    return np.stack([lam + split / 2, lam - split / 2], axis=1)
