"""The paper's table as a second truth: AIME'25, IFEval, GPQA of the Qwen3-4B pair, whose lengths are not monotone.

Between its nine uniform lambdas (the parents are 0 and 1) accuracy, tokens and Think ratio are interpolated (PCHIP:
no overshoot). A response thinks with the Think ratio, is right by ``sigmoid(shift + SPREAD * z)`` and has a log-normal
length cut at a cap; shift and scale give the table's means. z is the prompt's, half turned between the ends.
"""

from __future__ import annotations

import csv
import math
from functools import cache
from pathlib import Path

import numpy as np
from bank import Floats, FormulaWorld, Index, Params, Phase, Spread, Truth
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq
from scipy.special import expit, ndtr

TABLE = Path(__file__).parents[1] / "paper" / "qwen3_4b.csv"
BENCHMARKS = ("aime25", "ifeval", "gpqa_diamond")
# not in the table, ours: the cap, and the spreads over prompts and repeats
MAX_TOKENS = 81_920
SPREAD = 2.0  # of the logits of a prompt's accuracy
VARIATION = 0.7  # standard deviation over mean of the lengths before the cap
PROMPT_SHARE = 0.5  # of the variance of the log-lengths
_LOG_DEVIATION = math.sqrt(math.log1p(VARIATION**2))


class PaperBank:
    """The true numbers of a benchmark at any uniform lambda."""

    def __init__(self, benchmark: str, *, cap: int = MAX_TOKENS) -> None:
        """No response is longer than ``cap`` tokens."""
        with TABLE.open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["benchmark"] == benchmark]
        if not rows:
            raise ValueError(f"no benchmark {benchmark!r}: one of {', '.join(BENCHMARKS)}")
        parents = {"instruct": 0.0, "thinking": 1.0}
        table = sorted(
            (
                parents[row["method"]] if row["method"] in parents else float(row["lambda"]),
                float(row["mean_at_k"]) / 100,
                float(row["mean_tokens"]),
                float(row["think_ratio"]) / 100,
            )
            for row in rows
            if row["method"] in parents or row["method"] == "mi"
        )
        self.benchmark, self.cap = benchmark, float(cap)
        self.lams = tuple(row[0] for row in table)
        self._curves = PchipInterpolator(self.lams, [row[1:] for row in table])

    def truth(self, params: Params) -> Truth:
        """The true numbers of a uniform schedule."""
        if any(value for name, value in params.items() if name != "lam"):
            raise ValueError(f"the table has uniform lambdas only, seen {dict(params)}")
        return Truth(*map(float, self._curves(min(1.0, max(0.0, params["lam"])))))

    def token_spread(self, params: Params) -> Spread:
        """The spread of the tokens, cap aside: the same at all lambdas."""
        return Spread(VARIATION**2 * PROMPT_SHARE, VARIATION**2 * (1 - PROMPT_SHARE))


class PaperWorld(FormulaWorld):
    """One replay. A prompt's effects are those of accuracy at lam 0, of accuracy a quarter turn on, and of length."""

    def __init__(self, bank: PaperBank, seed: int, *, num_search: int = 1000, num_confirm: int = 1000) -> None:
        super().__init__(bank.benchmark, seed, num_search=num_search, num_confirm=num_confirm, num_effects=3)
        self.bank, self.cap = bank, bank.cap

    def measure(self, params: Params, phase: Phase, index: Index) -> Floats:
        """The responses ``index`` of a schedule in the fixed order, float64 [n, 3]: correct, tokens, thought."""
        truth, lam = self.bank.truth(params), params["lam"]
        drawn = self.drawn(params, phase, index)
        start, later, length = drawn.effects
        turn = lam * math.pi / 4
        ease = math.cos(turn) * start + math.sin(turn) * later
        share = expit(_shift(truth.accuracy) + SPREAD * ease)
        log = math.sqrt(PROMPT_SHARE) * length + math.sqrt(1 - PROMPT_SHARE) * drawn.noise
        tokens = np.exp(_log_scale(truth.mean_tokens, self.cap) + _LOG_DEVIATION * log)
        tokens = np.clip(np.round(tokens), 1, self.cap)
        outcomes = np.stack([drawn.right < share, tokens, drawn.thinks < truth.think_ratio], axis=-1).astype(np.float64)
        self.num_tokens += int(outcomes[:, 1].sum())
        return outcomes


@cache
def _shift(accuracy: float) -> float:
    """The shift at which ``sigmoid(shift + SPREAD * z)`` has this mean over a standard normal z."""
    points, weights = np.polynomial.hermite_e.hermegauss(64)
    weights = weights / weights.sum()
    return float(brentq(lambda shift: weights @ expit(shift + SPREAD * points) - accuracy, -40.0, 40.0))


@cache
def _log_scale(mean: float, cap: float) -> float:
    """The mean of the logs at which log-normal lengths cut at ``cap`` have this mean."""

    def excess(log_scale: float) -> float:
        edge = (math.log(cap) - log_scale) / _LOG_DEVIATION
        whole = math.exp(log_scale + _LOG_DEVIATION**2 / 2)
        return float(whole * ndtr(edge - _LOG_DEVIATION) + cap * ndtr(-edge)) - mean

    return float(brentq(excess, 0.0, math.log(cap) + 2))
