"""The value of a set of finalists: the accuracy of the pick that its confirmation is expected to end with.

The confirmation is simulated in joint posterior samples. The finalists are tested in the order of their predicted
tokens, up to the first that is not shown within the budget. All answer the same prompts, so they share their luck. The
pick is the most accurate as measured, where a schedule that is not uniform must lead by the margin. Without a pick the
``fallback`` remains: the better parent within the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from autolambda.optimizer.surrogate import PosteriorSamples
from autolambda.statistics.estimates import Floats

MISFIT = 0.07  # relative deviation by which all predicted tokens may be wrong together, beyond their posterior
WORTH = 0.0003  # gain in accuracy for which one more finalist is confirmed


@dataclass(frozen=True)
class Precision:
    """The precision of a confirmation.

    ``spread`` is the relative standard error of mean tokens, of which ``shared`` is common to all finalists. ``reach``
    is the distance of the upper bound in standard errors. ``error`` is the standard error of accuracy, without the part
    that is common to all finalists.
    """

    spread: float
    shared: float
    reach: float
    error: float


class Portfolio:
    """Values sets of schedules as finalists, in joint draws of all of them."""

    def __init__(
        self,
        draw: PosteriorSamples,
        *,
        budget: float,
        precision: Callable[[Sequence[int]], Precision],
        fallback: Floats,
        seed: int,
        order: Floats | None = None,
        lead: Floats | None = None,
    ) -> None:
        """``precision`` depends on the members of a set; ``fallback`` float64 [draws] is the parents' accuracy.

        The finalists are tested in ascending ``order`` float64 [schedules], by default their mean tokens. ``lead``
        float64 [schedules] is what each must lead others by (share of 1), by default 0.
        """
        rng = np.random.default_rng(seed)
        self._draw, self._budget, self._precision, self._fallback = draw, budget, precision, fallback
        self._luck = rng.standard_normal((len(draw.tokens), 1))
        self._misfit = np.exp(MISFIT * rng.standard_normal((len(draw.tokens), 1)))
        self._tokens_noise, self._noise = rng.standard_normal((2, *draw.tokens.shape))
        self.parents = float(fallback.mean())
        within = (draw.tokens <= budget) & draw.allowed
        self._hopes = np.where(within, draw.accuracy, 0.0).mean(axis=0)  # breaks ties, as where no merge leads
        self.mean_tokens = draw.tokens.mean(axis=0)
        self._order = self.mean_tokens if order is None else order
        self._lead = np.zeros(len(self.mean_tokens)) if lead is None else lead

    def value(self, members: Sequence[int]) -> float:
        """Returns the expected accuracy (share of 1) of the pick among the members and the fallback."""
        known = self._precision(members)
        order = sorted(members, key=self._order.__getitem__)
        tokens, accuracy = self._draw.tokens[:, order], self._draw.accuracy[:, order]
        own = np.sqrt(max(known.spread**2 - known.shared**2, 0.0))
        measured = tokens * self._misfit * np.exp(known.shared * self._luck + own * self._tokens_noise[:, order])
        shown = (measured * (1 + known.reach * known.spread) <= self._budget) & self._draw.allowed[:, order]
        within = np.logical_and.accumulate(shown, axis=1)
        seen = np.where(within, accuracy + known.error * self._noise[:, order], -9.0)
        best = np.argmax(seen - self._lead[order], axis=1)
        rows = np.arange(len(seen))
        picked = np.where(seen[rows, best] > self._fallback, accuracy[rows, best], self._fallback)
        return float(picked.mean())

    def best(self, places: Sequence[int], most: int) -> tuple[list[int], float]:
        """Returns up to ``most`` finalists of ``places``, added greedily while each is worth it, and their value."""
        chosen: list[int] = []
        worth = float(self._fallback.mean())
        while len(chosen) < most:
            values = [
                (self.value([*chosen, place]), self._hopes[place], -self.mean_tokens[place], place)
                for place in places
                if place not in chosen
            ]
            if not values or (max(values)[0] - worth < WORTH and chosen):
                break
            value, *_, place = max(values)
            chosen.append(place)
            worth = max(value, worth) if len(chosen) == 1 else value
        return chosen, worth
