"""What a tracker takes: evaluations and the answer as plain numbers. One class for each library implements it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from autolambda.driver.events import EvaluationEnded
from autolambda.report.report import Report
from autolambda.schedule import Schedule


@dataclass(frozen=True)
class Tracked:
    """An evaluation: its name (``trial 3``), kind, number, the lambdas of its schedule, and its metrics.

    ``number`` orders the evaluations of a study: a trial's own number, and for the others the order in which they came.
    """

    name: str
    kind: str
    number: int
    params: Mapping[str, float]
    metrics: Mapping[str, float]


class Tracker(Protocol):
    """Takes the evaluations of one study as they end, and its answer."""

    def log(self, evaluation: Tracked) -> None:
        """Logs an evaluation. One that an earlier run logged may come again."""

    def finish(self, report: Report, files: Mapping[str, Path]) -> None:
        """Logs the verdict and the pick, and keeps the files by name: ``report.html`` and ``report.json``."""

    def close(self) -> None:
        """Ends the run, after an error too."""


def tracked(event: EvaluationEnded, number: int) -> Tracked | None:
    """Returns the plain numbers of an evaluation; ``None`` for one that was aborted."""
    if event.measured is None:
        return None
    metrics = {"num_responses": float(event.measured.num_responses)}
    for name in ("accuracy", "mean_tokens", "think_ratio"):
        estimate = getattr(event.measured, name)
        metrics |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    metrics["truncated_ratio"] = event.measured.truncated_ratio.value
    own = event.title.removeprefix("trial ")
    number = int(own) if event.kind == "trial" and own.isdigit() else number
    return Tracked(event.title, event.kind, number, numbers_of(event.schedule), metrics)


def numbers_of(schedule: Schedule) -> dict[str, float]:
    """Returns the numbers of a schedule by name, such as ``lambda``, ``attention.0`` or ``scale.ffn``."""
    beyond = {**schedule.scale.named("scale"), **schedule.third.named("third")} if schedule.further else {}
    if (lam := schedule.beyond().lam) is not None:
        return {"lambda": lam, **beyond}
    numbers = {"other": schedule.other, **beyond}
    for name, profile in (("attention", schedule.attention), ("ffn", schedule.ffn)):
        values = profile.values
        numbers |= {f"{name}.{i}" if len(values) > 1 else name: value for i, value in enumerate(values)}
    return numbers


def answer_of(report: Report) -> dict[str, float | str]:
    """Returns the verdict, the budget and the numbers of the pick."""
    verdict = str(report.verdict) if report.verdict else "none"  # a plain word: W&B drops other types
    answer: dict[str, float | str] = {"verdict": verdict, "tokens_generated": report.tokens_generated}
    if report.budget is not None:
        answer["budget"] = report.budget
    if report.best is not None:
        best = report.best.measured
        answer |= {"best_accuracy": best.accuracy.value, "best_mean_tokens": best.mean_tokens.value}
        answer["best"] = report.best.parent or str(report.best.schedule)
    return answer
