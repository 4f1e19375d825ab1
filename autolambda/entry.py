"""An entry of a study: a schedule with its measured numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autolambda.metrics import Measured
from autolambda.pareto import Score
from autolambda.schedule import Schedule
from autolambda.stages import stage_of


@dataclass(frozen=True)
class Entry:
    """A schedule with its measured numbers; ``confirmed`` says on which slice. A parent as it is has no trial.

    ``stopped`` says why the race ended its measurement, where it did.
    """

    trial: int | None
    schedule: Schedule
    measured: Measured
    confirmed: bool
    stopped: str | None = None

    @property
    def score(self) -> Score:
        return Score(self.measured.accuracy.value, self.measured.mean_tokens.value)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of a report's front; shares from 0 to 1, intervals 95 %."""
        return {
            "trial": self.trial,
            "schedule": self.schedule.to_dict(),
            **_numbers(self.measured),
            "stage": stage_of(self.measured.think_ratio.value),
            "confirmed": self.confirmed,
            "num_responses": self.measured.num_responses,
            "stopped": self.stopped,
            "tasks": {name: _numbers(measured) for name, measured in self.measured.tasks.items()},
        }


def _numbers(measured: Measured) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name in ("accuracy", "mean_tokens", "think_ratio"):
        estimate = getattr(measured, name)
        numbers |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return numbers | {
        "truncated_ratio": measured.truncated_ratio.value,
        "unparsed_ratio": measured.unparsed_ratio.value,
    }
