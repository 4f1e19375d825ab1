"""Banks of recorded responses, and worlds drawn from them in which searches are replayed.

Between recorded schedules a response comes from one of the corners of the simplex around the schedule, each with its
barycentric weight: the true numbers of any schedule are then the weighted means of its corners, known exactly. A bank
of uniform lambdas only has the two neighbours as corners. A world draws its prompts from the bank's with replacement,
so that the truth is that of the bank.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from autolambda.optimizer.space import to_schedule

Floats = NDArray[np.float64]
Index = NDArray[np.int64]
Params = Mapping[str, float]
Phase = Literal["search", "confirm"]

PHASES: tuple[Phase, ...] = ("search", "confirm")
MAX_REPEATS = 16  # of a prompt in a world
BANK = Path(__file__).parent / "bank.npz"
BANK_CAP = 192.0  # tokens of a response of the bundled pair
_CORRECT, _THOUGHT = 1, 2  # bits of the recorded flags
_NUM_RECORDED = 8  # repeats of a prompt in a bank, at most


@dataclass(frozen=True)
class Truth:
    """The true numbers of a schedule."""

    accuracy: float
    mean_tokens: float
    think_ratio: float


@dataclass(frozen=True)
class Spread:
    """The variance of the tokens of a response, over their squared mean: between the prompts and within one."""

    between: float
    within: float


@dataclass(frozen=True)
class Drawn:
    """Random numbers of n responses: two uniform, one normal, float64 [n]; and their prompts' effects [effects, n]."""

    thinks: Floats
    right: Floats
    noise: Floats
    effects: Floats


class Truths(Protocol):
    """What knows the truth of any schedule: `Bank`, `paper.PaperBank` or `worlds.Pair`."""

    def truth(self, params: Params) -> Truth: ...

    def token_spread(self, params: Params) -> Spread: ...


class Replay(Protocol):
    """What a search is replayed in: `World`, `paper.PaperWorld` or `worlds.PairWorld`.

    ``num_tokens`` counts the tokens of all that was measured; ``cap`` is the most tokens of a response, or infinite.
    """

    num_tokens: int

    @property
    def bank(self) -> Truths: ...

    @property
    def cap(self) -> float: ...

    def prompts(self, phase: Phase) -> int: ...

    def measure(self, params: Params, phase: Phase, index: Index) -> Floats: ...


def generator(*parts: object, params: Params | None = None) -> np.random.Generator:
    """Random numbers that depend on nothing but the parts, such as the name of a world, its seed and a phase.

    With ``params`` they are those of its schedule.
    """
    named = [*parts, *([] if params is None else [to_schedule(params).key])]
    digest = hashlib.sha256(",".join(map(str, named)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


class Bank:
    """Recorded responses: ``outcomes`` float32 [nodes, prompts, repeats, 3] of correct, tokens, thought.

    ``has_module`` is true if attention and ffn were recorded apart, not uniform lambdas only.
    """

    def __init__(self, path: Path, *, scattered: bool = False, uniform: bool = False) -> None:
        """``scattered`` takes the nodes of the whole box (depth too), else those of attention x ffn.

        ``uniform`` takes those of uniform lambdas.
        """
        with np.load(path) as arrays:
            params, tokens, flags = arrays["params"], arrays["tokens"], arrays["flags"]
        keep = np.ones(len(params), bool) if scattered else ~params[:, 2:].any(axis=1)
        if uniform:
            keep &= ~params[:, 1:].any(axis=1)
        params, tokens, flags = params[keep], tokens[keep], flags[keep]
        self.params: Floats = params
        self.has_module = bool(params[:, 1:2].any())
        self.num_repeats = (tokens > 0).all(axis=1).sum(axis=1)
        self.num_prompts: int = tokens.shape[1]
        self.outcomes = np.stack([(flags & _CORRECT) > 0, tokens, (flags & _THOUGHT) > 0], axis=-1).astype(np.float32)
        self.means = np.array(
            [self.outcomes[i, :, :n].mean(axis=(0, 1), dtype=np.float64) for i, n in enumerate(self.num_repeats)]
        )
        self._order = np.argsort(params[:, 0], kind="stable")
        self._triangles = Delaunay(_places(params[:, :2])) if self.has_module else None

    def corners(self, params: Params) -> tuple[Index, Floats]:
        """The nodes around a schedule and their weights."""
        if self._triangles is None:
            return self._neighbours(params)
        place = np.clip(_places(np.array([[params["lam"], params["split"]]])), 0.0, 1.0)
        simplex = int(self._triangles.find_simplex(place, tol=1e-9)[0])
        if simplex < 0:
            raise ValueError(f"outside the bank: {dict(params)}")
        transform = self._triangles.transform[simplex]
        first = transform[:2] @ (place[0] - transform[2])
        weights = np.clip(np.append(first, 1 - first.sum()), 0.0, 1.0)
        return self._triangles.simplices[simplex].astype(np.int64), weights / weights.sum()

    def truth(self, params: Params) -> Truth:
        """The true numbers of a schedule."""
        nodes, weights = self.corners(params)
        return Truth(*map(float, weights @ self.means[nodes]))

    def token_spread(self, params: Params) -> Spread:
        """The spread of the tokens among the recorded responses."""
        nodes, weights = self.corners(params)
        firsts, seconds = self._moments
        means, mean = weights @ firsts[nodes], self.truth(params).mean_tokens
        within = float((weights @ seconds[nodes] - means**2).mean())
        return Spread(float(means.var()) / mean**2, max(within, 0.0) / mean**2)

    @cached_property
    def _moments(self) -> tuple[Floats, Floats]:
        """The means of the tokens and of their squares, each [nodes, prompts]."""
        tokens = [self.outcomes[i, :, :n, 1].astype(np.float64) for i, n in enumerate(self.num_repeats)]
        return np.array([t.mean(axis=1) for t in tokens]), np.array([(t**2).mean(axis=1) for t in tokens])

    def _neighbours(self, params: Params) -> tuple[Index, Floats]:
        if any(value for name, value in params.items() if name != "lam"):
            raise ValueError(f"this bank has uniform lambdas only, seen {dict(params)}")
        lams = self.params[self._order, 0]
        lam = min(max(params["lam"], float(lams[0])), float(lams[-1]))
        right = min(max(int(np.searchsorted(lams, lam)), 1), len(lams) - 1)
        share = (lam - lams[right - 1]) / (lams[right] - lams[right - 1])
        return self._order[[right - 1, right]], np.array([1 - share, share])


class FormulaWorld:
    """One replay whose responses are drawn by formulas: its own prompts for each phase, and the tokens spent so far.

    All prompts have effects, drawn from a standard normal distribution, which all schedules share.
    """

    def __init__(self, name: str, seed: int, *, num_search: int, num_confirm: int, num_effects: int) -> None:
        self.num_tokens, self._name, self._seed = 0, name, seed
        self._sizes = {"search": num_search, "confirm": num_confirm}
        rng = generator(name, seed)
        self._effects = {phase: rng.standard_normal((num_effects, self._sizes[phase])) for phase in PHASES}

    def prompts(self, phase: Phase) -> int:
        """The prompts of a phase."""
        return self._sizes[phase]

    def drawn(self, params: Params, phase: Phase, index: Index) -> Drawn:
        """What chance gives to the responses ``index`` of a schedule; the same whenever it is asked for.

        Response i answers prompt ``i % prompts(phase)``.
        """
        rng = generator(self._name, self._seed, phase, params=params)
        size = MAX_REPEATS * self._sizes[phase]
        uniform = rng.random((2, size))[:, index]
        noise = rng.standard_normal(size)[index]
        return Drawn(uniform[0], uniform[1], noise, self._effects[phase][:, index % self._sizes[phase]])


class World:
    """One replay: its own prompts for the search and the confirmation, and the tokens spent so far."""

    def __init__(
        self,
        bank: Bank,
        seed: int,
        *,
        num_search: int = 1000,
        num_confirm: int = 1000,
        cap: float = math.inf,
        shared_seeds: bool = False,
    ) -> None:
        """``shared_seeds``: two schedules draw with the same random numbers in the search too, not just to confirm."""
        self.bank, self.cap, self.num_tokens = bank, cap, 0
        self._seed, self._shared = seed, shared_seeds
        self._sizes = {"search": num_search, "confirm": num_confirm}
        rng = np.random.default_rng([seed, 1])
        self._slots = {phase: rng.integers(bank.num_prompts, size=self._sizes[phase]) for phase in PHASES}
        self._luck = {phase: rng.random((self._sizes[phase], MAX_REPEATS)) for phase in PHASES}
        self._repeats = {
            phase: rng.permuted(np.tile(np.arange(_NUM_RECORDED), (self._sizes[phase], 1)), axis=1) for phase in PHASES
        }

    def prompts(self, phase: Phase) -> int:
        """The prompts of a phase."""
        return self._sizes[phase]

    def measure(self, params: Params, phase: Phase, index: Index) -> Floats:
        """The responses ``index`` of a schedule in the fixed order, float64 [n, 3]: correct, tokens, thought.

        Response i answers prompt ``i % prompts(phase)``. The same responses come again for the same schedule; after
        all recorded repeats of a prompt they begin anew.
        """
        nodes, weights = self.bank.corners(params)
        size = self._sizes[phase]
        slot, repeat = index % size, index // size
        luck, recorded = self._luck[phase][slot, repeat], self._repeats[phase][slot, repeat % _NUM_RECORDED]
        if phase == "search" and not self._shared:
            rng = generator("bank", self._seed, phase, params=params)
            luck = rng.random(MAX_REPEATS * size)[index]
            recorded = (recorded + rng.integers(_NUM_RECORDED, size=size)[slot]) % _NUM_RECORDED
        corner = nodes[np.minimum(np.searchsorted(np.cumsum(weights), luck, side="right"), len(nodes) - 1)]
        recorded = recorded % self.bank.num_repeats[corner]
        outcomes: Floats = self.bank.outcomes[corner, self._slots[phase][slot], recorded].astype(np.float64)
        self.num_tokens += int(outcomes[:, 1].sum())
        return outcomes


def _places(lam_split: Floats) -> Floats:
    """attention and ffn of (lam, split)."""
    lam, split = lam_split[:, 0], lam_split[:, 1]
    places: Floats = np.stack([lam + split / 2, lam - split / 2], axis=1)
    return places
