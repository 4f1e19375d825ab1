"""How often the 95 % intervals of ``detect_stages`` hold the true boundaries, and how wide they are.

    python studies/stages_coverage/coverage.py [DRAWS]

Each draw has its own truth: a logistic curve 1 / (1 + exp(-k (lambda - c))) with the distance from emergence to
saturation uniform on [0.05, 0.6] and its middle wherever both lie in [0.05, 0.95]; counts are binomial. Grids:
tenths, quarters, and a ladder (quarters, then five bisections of the steepest rise seen). A boundary that is
reported as absent counts as a miss.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import pairwise
from math import log

import numpy as np

from autolambda.statistics.curve import CurvePoint
from autolambda.statistics.stages import Boundary, detect_stages

GRIDS = {"tenths": tuple(np.linspace(0, 1, 11)), "quarters": (0.0, 0.25, 0.5, 0.75, 1.0), "ladder": ()}
BOUNDARIES = ("emergence", "saturation")


@dataclass(frozen=True)
class Truth:
    """A logistic curve by its two boundaries."""

    emergence: float
    saturation: float

    def ratio(self, lam: float) -> float:
        """The Think ratio at ``lam``."""
        slope = 2 * log(19) / (self.saturation - self.emergence)
        return float(1 / (1 + np.exp(-slope * (lam - (self.emergence + self.saturation) / 2))))


@dataclass(frozen=True)
class Row:
    """Shares of the draws, and medians over them, for one boundary."""

    coverage: float
    absent: float
    median_width: float
    median_error: float


def draw_truth(rng: np.random.Generator) -> Truth:
    """A truth with both boundaries in [0.05, 0.95]."""
    width = rng.uniform(0.05, 0.6)
    emergence = rng.uniform(0.05, 0.95 - width)
    return Truth(emergence, emergence + width)


def draw_curve(truth: Truth, *, grid: str, num_responses: int, rng: np.random.Generator) -> list[CurvePoint]:
    """Binomial ratios on a grid, or on the ladder that follows them."""

    def measured(lam: float) -> CurvePoint:
        return CurvePoint(lam, rng.binomial(num_responses, truth.ratio(lam)) / num_responses, num_responses)

    points = [measured(float(lam)) for lam in GRIDS[grid] or GRIDS["quarters"]]
    while grid == "ladder" and len(points) < 10:
        points.sort(key=lambda point: point.lam)
        rises = [right.think_ratio - left.think_ratio for left, right in pairwise(points)]
        steepest = int(np.argmax(rises))
        points.append(measured((points[steepest].lam + points[steepest + 1].lam) / 2))
    return points


def simulate(*, grid: str, num_responses: int, draws: int, seed: int = 0) -> dict[str, Row]:
    """A row for each boundary."""
    rng = np.random.default_rng([seed, num_responses, list(GRIDS).index(grid)])
    seen: dict[str, list[tuple[float, Boundary | None]]] = {name: [] for name in BOUNDARIES}
    for _ in range(draws):
        truth = draw_truth(rng)
        stages = detect_stages(draw_curve(truth, grid=grid, num_responses=num_responses, rng=rng))
        for name in BOUNDARIES:
            seen[name].append((getattr(truth, name), getattr(stages, name)))
    return {name: _row(pairs) for name, pairs in seen.items()}


def _row(pairs: list[tuple[float, Boundary | None]]) -> Row:
    found = [(true, boundary) for true, boundary in pairs if boundary is not None]
    held = sum(boundary.low <= true <= boundary.high for true, boundary in found)
    return Row(
        held / len(pairs),
        1 - len(found) / len(pairs),
        float(np.median([boundary.high - boundary.low for _, boundary in found])),
        float(np.median([abs(boundary.lam - true) for true, boundary in found])),
    )


def main(draws: int) -> None:
    """Prints the table."""
    print(f"{draws} draws\n{'grid':9} {'responses':>9}  {'boundary':10} coverage  absent  width  error (medians)")
    for grid in GRIDS:
        for num_responses in (16, 64, 256):
            for name, row in simulate(grid=grid, num_responses=num_responses, draws=draws).items():
                print(
                    f"{grid:9} {num_responses:9}  {name:10} {row.coverage:8.3f}  {row.absent:6.3f}  "
                    f"{row.median_width:5.3f}  {row.median_error:5.3f}"
                )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
