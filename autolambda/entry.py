"""An entry of a study: a schedule with its measured numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from autolambda.guards import Drop, keeps_guards
from autolambda.metrics import Measured
from autolambda.pareto import Score
from autolambda.schedule import Schedule
from autolambda.stages import stage_of

SURE = 0.95  # the chance from which a guard counts as kept, or as broken, before anything is confirmed


@dataclass(frozen=True)
class Entry:
    """A schedule with its measured numbers; ``confirmed`` says on which slice. A parent as it is has no trial.

    ``stopped`` says why the race ended its measurement, where it did. ``drops`` are what it was shown to lose on the
    guard tasks; until it is confirmed, ``allowed`` is the surrogate's chance that it breaks none of them. ``scores``
    are further ones of a task's grader, by task.
    """

    trial: int | None
    schedule: Schedule
    measured: Measured
    confirmed: bool
    stopped: str | None = None
    drops: Mapping[str, Drop] = field(default_factory=dict)
    allowed: float | None = None
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def score(self) -> Score:
        return Score(self.measured.accuracy.value, self.measured.mean_tokens.value)

    @property
    def guards(self) -> str | None:
        """``kept``, ``broken`` or ``unsure``; ``None`` where there is no guard or nothing is known of them."""
        if self.drops:
            return guard_word(keeps_guards(self.drops))
        if self.allowed is None:
            return None
        return guard_word(True if self.allowed >= SURE else False if self.allowed <= 1 - SURE else None)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of a report's front; shares from 0 to 1, intervals 95 %."""
        return {
            "trial": self.trial,
            "schedule": self.schedule.to_dict(),
            **_numbers(self.measured),
            "stage": stage(self.measured),
            "confirmed": self.confirmed,
            "num_responses": self.measured.num_responses,
            "stopped": self.stopped,
            "guards": self.guards,
            "tasks": {name: self._task(name, measured) for name, measured in self.measured.tasks.items()},
        }

    def _task(self, name: str, measured: Measured) -> dict[str, Any]:
        quantiles = {level: getattr(measured.token_quantiles, level) for level in ("p50", "p90")}
        found: dict[str, Any] = {
            **_numbers(measured),
            **{f"tokens_{level}": quantile.tokens for level, quantile in quantiles.items()},
            **{f"tokens_{level}_is_bound": quantile.is_bound for level, quantile in quantiles.items()},
        }
        if drop := self.drops.get(name):
            found["guard"] = {
                "max_drop": drop.max_drop,
                "drop": drop.value,
                "drop_low": drop.low,
                "drop_high": drop.high,
                "kept": drop.kept,
            }
        if name in self.scores:
            found["scores"] = dict(self.scores[name])
        return found


def stage(measured: Measured) -> Literal[1, 2, 3]:
    """The stage of a measured schedule; a mean of ones may round to a little more than one."""
    return stage_of(min(max(measured.think_ratio.value, 0.0), 1.0))


def guard_word(kept: bool | None) -> str:
    """What is known of a guard, in a word."""
    return "unsure" if kept is None else "kept" if kept else "broken"


def _numbers(measured: Measured) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name in ("accuracy", "mean_tokens", "think_ratio"):
        estimate = getattr(measured, name)
        numbers |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return numbers | {
        "truncated_ratio": measured.truncated_ratio.value,
        "unparsed_ratio": measured.unparsed_ratio.value,
    }
