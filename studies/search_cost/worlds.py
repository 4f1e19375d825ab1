"""Parametric pairs with known truth, for replayed searches. Nothing here is taken from a real pair.

A schedule is boiled down to ``u``, its mean lambda (attention and ffn weigh ``attention_share`` and the rest), ``d``,
how far attention lies above ffn, and ``bend``, the variance over depth. Truth on the natural scales:

    think ratio   pi(u) = sigmoid(steep * (u - middle)), moved and stretched to 0 at u = 0 and ``think_at_1`` at u = 1
    accuracy      pi * think(u) + (1 - pi) * direct(u), both PCHIP curves, moved on the log-odds by the surface
    mean tokens   (pi * long(u) + (1 - pi) * short(u)) * exp(slant * d), both PCHIP curves of log tokens

A prompt has an ease (turned by ``turn`` between the ends, as skills differ), a length factor and a leaning to think;
all schedules share them (the luck that trials share). Lengths are log-normal given the mode, cut at ``cap``, and their
mean is the truth's. All truths are exact.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from bank import Floats, FormulaWorld, Index, Params, Phase, Spread, Truth
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq
from scipy.special import expit, logit, ndtr

from autolambda.errors import InputError
from autolambda.optimizer.space import to_schedule

NUM_KNOTS = 3
NO_CAP = 1e9
_GAIN_WIDTH = 0.25  # of the gain over d
Nodes = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Modes:
    """A schedule's think ratio, and the accuracy and mean tokens of answers without and with thinking."""

    ratio: float
    direct: float
    think: float
    short: float
    long: float


@dataclass(frozen=True)
class Pair:
    """A synthetic pair, its slices and its budgets (mean tokens). Nodes are (u, value), joined by PCHIP."""

    name: str
    budgets: tuple[float, ...]
    direct: Nodes  # accuracy without thinking by u
    think: Nodes  # accuracy with thinking by u
    short: Nodes  # mean tokens without thinking by u
    long: Nodes  # mean tokens with thinking by u
    middle: float = 0.5
    steep: float = 14.0
    think_at_1: float = 1.0
    num_prompts: int = 500  # half of the rows of the user's file
    repeats: int = 1
    confirm_repeats: int = 1
    variation: float = 0.7  # of lengths given the mode: deviation over mean
    prompt_share: float = 0.5  # of the variance of log lengths
    spread: float = 1.6  # of the log-odds of a prompt's accuracy
    turn: float = math.pi / 4
    leaning: float = 1.0  # of the log-odds of thinking, over prompts
    cap: float = NO_CAP
    attention_share: float = 0.5
    best_split: float = 0.0  # where over d accuracy peaks
    split_gain: float = 0.0  # log-odds gained there
    split_loss: float = 1.0  # log-odds lost per d^2 away from it
    bend_loss: float = 3.0  # log-odds lost per variance over depth
    slant: float = 0.1  # log tokens by d
    has_module: bool = True

    def place(self, params: Params) -> tuple[float, float, float]:
        """``u``, ``d`` and ``bend`` of a schedule."""
        schedule = to_schedule(params)
        attention, ffn = (
            np.array([profile.at(knot, NUM_KNOTS) for knot in range(NUM_KNOTS)])
            for profile in (schedule.attention, schedule.ffn)
        )
        share = self.attention_share
        u = share * attention.mean() + (1 - share) * ffn.mean()
        return float(u), float(attention.mean() - ffn.mean()), float(attention.var() + ffn.var())

    def modes(self, params: Params) -> Modes:
        """What a schedule does with and without thinking."""
        u, d, bend = self.place(params)
        low, high = expit(self.steep * (0 - self.middle)), expit(self.steep * (1 - self.middle))
        ratio = (expit(self.steep * (u - self.middle)) - low) / (high - low)
        direct, think, short, long = (float(curve(u)) for curve in self._curves)
        if self.split_gain:
            ridge = 4 * u * (1 - u)  # the ends have no surface around them
            moved = self.split_gain * ridge * math.exp(-(((d - self.best_split) / _GAIN_WIDTH) ** 2))
        else:
            moved = -self.split_loss * d**2
        moved -= self.bend_loss * bend
        direct, think = (float(expit(logit(min(max(x, 0.002), 0.998)) + moved)) for x in (direct, think))
        scale = math.exp(self.slant * d)
        ratio = self.think_at_1 * min(max(float(ratio), 0.0), 1.0)
        return Modes(ratio, direct, think, math.exp(short) * scale, math.exp(long) * scale)

    def truth(self, params: Params) -> Truth:
        """The true numbers of a schedule."""
        m = self.modes(params)
        return Truth(m.ratio * m.think + (1 - m.ratio) * m.direct, m.ratio * m.long + (1 - m.ratio) * m.short, m.ratio)

    def token_spread(self, params: Params) -> Spread:
        """The spread of the tokens, cap aside; ``prompt_share`` of it is taken to lie between the prompts."""
        m = self.modes(params)
        mean = m.ratio * m.long + (1 - m.ratio) * m.short
        square = (m.ratio * m.long**2 + (1 - m.ratio) * m.short**2) * (1 + self.variation**2)
        variance = max(square / mean**2 - 1, 0.0)
        return Spread(variance * self.prompt_share, variance * (1 - self.prompt_share))

    @cached_property
    def _curves(self) -> tuple[Any, Any, Any, Any]:
        def made(nodes: Nodes, scale: Callable[[float], float]) -> Any:
            return PchipInterpolator([x for x, _ in nodes], [scale(y) for _, y in nodes])

        return made(self.direct, float), made(self.think, float), made(self.short, math.log), made(self.long, math.log)


class PairWorld(FormulaWorld):
    """One replay. A prompt's effects are those of accuracy at u = 0, a quarter turn on, of length, and of thinking."""

    def __init__(self, pair: Pair, seed: int, *, num_search: int, num_confirm: int) -> None:
        super().__init__(pair.name, seed, num_search=num_search, num_confirm=num_confirm, num_effects=4)
        self.bank = pair
        self.cap = pair.cap if pair.cap < NO_CAP else math.inf

    def measure(self, params: Params, phase: Phase, index: Index) -> Floats:
        """The responses ``index`` of a schedule in the fixed order, float64 [n, 3]: correct, tokens, thought."""
        pair, modes = self.bank, self.bank.modes(params)
        drawn = self.drawn(params, phase, index)
        start, later, length, lean = drawn.effects
        angle = pair.place(params)[0] * pair.turn
        ease = pair.spread * (math.cos(angle) * start + math.sin(angle) * later)
        thought = drawn.thinks < expit(_shift(round(modes.ratio, 6), pair.leaning) + pair.leaning * lean)
        shifts = [_shift(round(share, 6), pair.spread) for share in (modes.think, modes.direct)]
        deviation = math.sqrt(math.log1p(pair.variation**2))
        log = deviation * (math.sqrt(pair.prompt_share) * length + math.sqrt(1 - pair.prompt_share) * drawn.noise)
        scales = [_log_scale(round(mean, 4), deviation, pair.cap) for mean in (modes.long, modes.short)]
        tokens = np.clip(np.exp(np.where(thought, *scales) + log), 1.0, pair.cap)
        outcomes = np.stack([drawn.right < expit(np.where(thought, *shifts) + ease), tokens, thought], axis=-1)
        self.num_tokens += int(tokens.sum())
        return outcomes.astype(np.float64)


@lru_cache(maxsize=200_000)
def _shift(share: float, spread: float) -> float:
    """The shift at which ``sigmoid(shift + spread * z)`` has this mean over a standard normal z."""
    if share <= 1e-6:
        return -60.0
    if share >= 1 - 1e-6:
        return 60.0
    points, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()
    return float(brentq(lambda shift: weights @ expit(shift + spread * points) - share, -60.0, 60.0))


@lru_cache(maxsize=200_000)
def _log_scale(mean: float, deviation: float, cap: float) -> float:
    """The mean of the logs at which log-normal lengths cut at ``cap`` have this mean."""
    plain = math.log(mean) - deviation**2 / 2
    if math.log(cap) - plain > 6 * deviation:
        return plain

    def excess(scale: float) -> float:
        edge = (math.log(cap) - scale) / deviation
        whole = math.exp(scale + deviation**2 / 2)
        return whole * float(ndtr(edge - deviation)) + cap * float(ndtr(-edge)) - mean

    return float(brentq(excess, plain - 1, math.log(cap) + 3))


def load_pairs(path: Path) -> list[Pair]:
    """The pairs of a JSON file: a list of objects whose keys are the fields of ``Pair``. Raises ``InputError``."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: expected a list of objects, one for each pair")
    return [_pair(row, f"{path}: pair {row.get('name', number)!r}") for number, row in enumerate(rows)]


def _pair(row: dict[str, Any], where: str) -> Pair:
    fields = {field.name: field for field in dataclasses.fields(Pair)}
    if unknown := sorted(set(row) - set(fields)):
        raise InputError(f"{where}: unknown keys {', '.join(unknown)}; known are {', '.join(fields)}")
    needed = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
    if missing := [name for name in needed if name not in row]:
        raise InputError(f"{where}: lacks {', '.join(missing)}")
    try:
        pair = Pair(**{key: _tuples(value) for key, value in row.items()})
        if not pair.budgets or min(pair.budgets) <= 0:
            raise ValueError(f"budgets must be numbers above 0, seen {list(pair.budgets)}")
        for lam in (0.0, 0.5, 1.0):
            pair.truth({"lam": lam, "split": 0.0})
    except (TypeError, ValueError, IndexError) as error:
        raise InputError(f"{where}: {error}") from None
    return pair


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
