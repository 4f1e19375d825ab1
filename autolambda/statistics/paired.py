"""Compares two schedules on the prompts that both answered: accuracy, tokens, and whether they are equivalent.

The ratio of mean tokens has the delta method's error on the log scale: log r +- t SE, where SE^2 is the variance of
``(left - r right) / mean right`` over prompts, with the two added prompts of ``estimates.paired``. Equivalence is shown
by two one-sided tests at 5 % (Schuirmann 1987).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from autolambda.responses import Graded
from autolambda.statistics.estimates import Difference, Floats, Weights, student, task_weights
from autolambda.statistics.metrics import in_both, paired_difference
from autolambda.statistics.words import points

ACCURACY_MARGIN = 0.05  # share of 1
TOKENS_MARGIN = 0.10  # of the mean tokens: from 1 / 1.1 to 1.1 times

MARGINS = (
    f"Kept means shown to be within {points(ACCURACY_MARGIN)} of accuracy and {100 * TOKENS_MARGIN:g} % of tokens: "
    "two one-sided tests at 5 % for each, paired by prompt."
)


class Kept(StrEnum):
    """Whether two schedules are equivalent within a margin."""

    KEPT = "kept"
    NOT_KEPT = "not kept"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Ratio:
    """A ratio of mean tokens, paired by prompt, with its 95 % interval and two one-sided 95 % bounds."""

    value: float
    low: float
    high: float
    lower_bound: float
    upper_bound: float


@dataclass(frozen=True)
class Change:
    """One schedule compared with another: its accuracy minus the other's, and its tokens as a share of the other's."""

    accuracy: Difference
    tokens: Ratio

    @property
    def accuracy_kept(self) -> Kept:
        """Whether the accuracies are within ``ACCURACY_MARGIN`` of each other."""
        return _kept(self.accuracy.lower_bound, self.accuracy.upper_bound, -ACCURACY_MARGIN, ACCURACY_MARGIN)

    @property
    def tokens_kept(self) -> Kept:
        """Whether the mean tokens are within ``TOKENS_MARGIN`` of each other."""
        return _kept(self.tokens.lower_bound, self.tokens.upper_bound, 1 / (1 + TOKENS_MARGIN), 1 + TOKENS_MARGIN)

    @property
    def kept(self) -> Kept:
        """Whether both are kept. One that is shown not to be decides."""
        parts = {self.accuracy_kept, self.tokens_kept}
        for word in (Kept.NOT_KEPT, Kept.UNDECIDED):
            if word in parts:
                return word
        return Kept.KEPT

    @property
    def num_prompts_enough(self) -> int | None:
        """How many prompts would probably show both to be kept, if their differences stay; ``None`` if none would.

        The distance of a bound falls with the square root of the number of prompts.
        """
        accuracy, tokens = self.accuracy, self.tokens
        reach = max(accuracy.upper_bound - accuracy.value, accuracy.value - accuracy.lower_bound)
        token_reach, token_change = math.log(tokens.upper_bound / tokens.value), abs(math.log(tokens.value))
        parts = [
            (reach, ACCURACY_MARGIN - abs(accuracy.value)),
            (token_reach, math.log(1 + TOKENS_MARGIN) - token_change),
        ]
        if any(room <= 0 for _, room in parts):
            return None
        enough = accuracy.num_prompts * max(reach / room for reach, room in parts) ** 2
        step = int(10 ** max(math.floor(math.log10(enough)) - 1, 0))
        return step * math.ceil(round(enough / step, 9))


def compare(left: Sequence[Graded], right: Sequence[Graded], *, weights: Weights | None = None) -> Change:
    """Compares ``left`` with ``right`` over the responses that both have. Raises ``InputError`` if they share none."""
    one, other = in_both(left, right)
    return Change(paired_difference(one, other, weights=weights), token_ratio(one, other, weights=weights))


def token_ratio(left: Sequence[Graded], right: Sequence[Graded], *, weights: Weights | None = None) -> Ratio:
    """Returns the mean tokens of ``left`` as a share of those of ``right``; both hold the same prompts."""
    tasks, others = _tokens(left), _tokens(right)
    shares = task_weights(tasks, weights=weights)
    counted = [name for name in tasks if shares[name] > 0]
    mine, theirs = (math.fsum(shares[name] * float(side[name].mean()) for name in counted) for side in (tasks, others))
    value = mine / theirs
    variance = freedom = 0.0
    for name in counted:
        residuals, scale, size = tasks[name] - value * others[name], float(others[name].mean()), len(tasks[name])
        squares = float(np.square(residuals - residuals.mean()).sum())
        pseudo = (squares + scale**2) / (np.count_nonzero(residuals) + 1)
        part = shares[name] ** 2 * (squares + pseudo) / (size + 2) ** 2
        variance, freedom = variance + part, freedom + part**2 / max(size - 1, 1)
    error, freedom = math.sqrt(variance) / mine, variance**2 / freedom  # Welch & Satterthwaite
    reach, bound = (student(level, freedom) * error for level in (0.975, 0.95))
    limits = (math.exp(sign * each) * value for each in (reach, bound) for sign in (-1, 1))
    return Ratio(value, *limits)


def _tokens(graded: Sequence[Graded]) -> Mapping[str, Floats]:
    """Returns the mean tokens of each prompt by task, float64 [prompts], in the order of their ids."""
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for each in graded:
        found[each.task][each.sample_id].append(each.response.num_tokens)
    return {
        task: np.array([np.mean(found[task][sample]) for sample in sorted(found[task])], np.float64) for task in found
    }


def _kept(lower: float, upper: float, least: float, most: float) -> Kept:
    """Returns the verdict on one number from its one-sided 95 % bounds and the margin from ``least`` to ``most``."""
    if least < lower and upper < most:
        return Kept.KEPT
    return Kept.NOT_KEPT if lower > most or upper < least else Kept.UNDECIDED
