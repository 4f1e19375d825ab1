"""How two parents differ weight by weight, and how far rounding to nearest moves their merges, as plain values.

A step is the distance of two neighbouring values of the dtype. Parents that are close differ by few steps, so rounding
to nearest turns most of their weights at the same lambda. This file needs no torch, so reports can read stored values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from autolambda.coefficients import Module

WHOLE = "whole"
PARTS: tuple[str, ...] = (WHOLE, *get_args(Module))
"""The whole model, then its modules."""

STEPS = ("0", "1", "2", "3", "4", "5 or more")
DISTORTED, CLOSE = 0.02, 0.01  # distances from lambda that are reported, and that are too small to speak of
_SUM_ERROR = 5e-6  # of stored shares, which have six digits
_IN_LINES = (0.1, 0.2, 0.3, 0.4, 0.45, 0.49, 0.5, 0.51, 0.55, 0.6, 0.7, 0.8, 0.9)  # fit into 80 columns


@dataclass(frozen=True)
class ParentDifference:
    """How far two parents are apart, in steps of their ``dtype``, and how rounding to nearest moves their merges.

    ``num_weights`` were compared (none in float32); ``is_sample`` says that these are not all. ``steps`` has the shares
    (0 to 1) of weights that differ by 0, 1, 2, 3, 4, and 5 or more steps, by part (``PARTS``). It is ``None`` for
    float32, which is not rounded.

    ``moved`` says how far (0 to 1) a merge rounded to nearest has moved from Instruct to Thinking, by part, at each of
    the ``lambdas``. A part in which the parents are equal is left out. ``rounding`` is the pair's own.
    """

    dtype: str
    rounding: str
    num_weights: int
    is_sample: bool
    steps: Mapping[str, tuple[float, ...]] | None
    lambdas: tuple[float, ...]
    moved: Mapping[str, tuple[float, ...]]

    @property
    def distorts(self) -> bool:
        """Whether rounding to nearest moves a merge, or one of its modules, by clearly more or less than lambda."""
        return max(map(self._deviation, self.moved), default=0.0) > DISTORTED

    @property
    def basis(self) -> str:
        """What was compared: ``all 1,000 weights``, or ``a sample of 1,000 weights``."""
        return f"{'a sample of' if self.is_sample else 'all'} {self.num_weights:,} weights"

    def sentences(self) -> tuple[str, ...]:
        """Returns how far the parents are apart and what rounding to nearest does; one sentence for float32."""
        if self.steps is None:
            return (f"The parents are {self.dtype}: their merges are not rounded.",)
        return self._about_steps(self.steps[WHOLE]), self._about_nearest()

    def lines(self) -> Iterator[str]:
        """Yields the sentences and a table of ``moved`` in at most 80 columns, for the terminal."""
        yield from self.sentences()
        if rows := self.moved_rows():
            yield f"moved from Instruct to Thinking if rounded to nearest, by {self.basis}:"
            for title, *cells in rows:
                shown = [cell for cell, lam in zip(cells, self.lambdas, strict=True) if lam in _IN_LINES]
                yield f"  {title:<9}" + "".join(f"{cell:>5}" for cell in shown)

    def step_rows(self) -> list[list[str]]:
        """Returns ``steps`` in % as the rows of a table, titles included; none for float32."""
        rows = [[part, *(f"{100 * share:.1f}" for share in shares)] for part, shares in (self.steps or {}).items()]
        return [["steps", *STEPS], *rows] if rows else []

    def moved_rows(self) -> list[list[str]]:
        """Returns ``moved`` as the rows of a table, titles included; none if it is empty."""
        rows = [[part, *(f"{value:.2f}" for value in moved)] for part, moved in self.moved.items()]
        return [["lambda", *(f"{lam:g}" for lam in self.lambdas)], *rows] if rows else []

    def _about_steps(self, shares: Sequence[float]) -> str:
        one, two = percent(sum(shares[:2])), percent(sum(shares[:3]))
        if one == "100 %":
            return f"All weights differ by at most one step of {self.dtype}."
        few = f"Half of the weights ({one})" if abs(sum(shares[:2]) - 0.5) < 0.025 else f"{one} of the weights"
        said = f"{few} differ by at most one step of {self.dtype}, {two} by at most two."
        return said[0].upper() + said[1:]

    def _about_nearest(self) -> str:
        worst = max(self.moved, key=self._deviation, default=None)
        if worst is None:
            return "The parents hold equal weights, so every merge equals them."
        if self._deviation(worst) <= CLOSE:
            return "How merges are rounded makes no difference to speak of for this pair."
        part = WHOLE if self._deviation(WHOLE) > CLOSE else worst
        merges = "merges" if part == WHOLE else f"the {part} weights of merges"
        at = self._steepest(part)
        lams = _listed([f"{self.lambdas[index]:g}" for index in at])
        moved = _listed([f"{self.moved[part][index]:.2f}" for index in at])
        does = "move" if self.rounding == "nearest" else "would have moved"
        is_advised = self.rounding == "nearest" and self.distorts
        other = (
            "merge.rounding: dithered moves them by lambda" if is_advised else f"dithered rounding moves them by {lams}"
        )
        return f"Rounded to nearest, {merges} at lambda {lams} {does} {moved} of the way; {other}."

    def _deviation(self, part: str) -> float:
        """Returns the largest distance of ``moved`` from lambda in a part."""
        return max(abs(moved - lam) for lam, moved in zip(self.lambdas, self.moved[part], strict=True))

    def _steepest(self, part: str) -> range:
        """Returns the three neighbouring lambdas between which a part moves most compared with lambda."""
        excess = [moved - lam for lam, moved in zip(self.lambdas, self.moved[part], strict=True)]
        first = max(range(len(excess) - 2), key=lambda index: round(excess[index + 2] - excess[index], 3))
        return range(first, first + 3)

    def to_dict(self) -> dict[str, Any]:
        """Returns the plain form for databases and JSON: ``weights`` is their number, ``moved`` a row per lambda."""
        moved = [
            {"lambda": lam, **{part: values[index] for part, values in self.moved.items()}}
            for index, lam in enumerate(self.lambdas)
        ]
        return {
            "dtype": self.dtype,
            "rounding": self.rounding,
            "weights": self.num_weights,
            "sampled": self.is_sample,
            "steps": self.steps and {part: list(shares) for part, shares in self.steps.items()},
            "moved": moved if self.moved else [],
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> ParentDifference:
        """Reads what ``to_dict`` returned."""
        rows = plain["moved"]
        return cls(
            dtype=plain["dtype"],
            rounding=plain["rounding"],
            num_weights=plain["weights"],
            is_sample=plain["sampled"],
            steps=plain["steps"] and {part: tuple(shares) for part, shares in plain["steps"].items()},
            lambdas=tuple(row["lambda"] for row in rows),
            moved={part: tuple(row[part] for row in rows) for part in PARTS if rows and part in rows[0]},
        )


def percent(share: float) -> str:
    """Returns a share (0 to 1) as a whole percentage; 0 % and 100 % mean none and all."""
    if 0 < share < 0.005:
        return "less than 1 %"
    return "more than 99 %" if 0.995 <= share < 1 - _SUM_ERROR else f"{100 * share:.0f} %"


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
