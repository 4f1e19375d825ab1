"""What a study knows of the schedule that is exported: its numbers, the verdict, the curve around it, the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autolambda.config import Config

if TYPE_CHECKING:  # a merge without a study does without what reads one
    from autolambda.report.report import Report
    from autolambda.report.results import ScheduleResult


@dataclass(frozen=True)
class Provenance:
    """One schedule of a study; ``curve`` holds the uniform lambdas that were searched, in their order.

    ``parents`` are the models as they are, under their own templates; ``identity`` is what the results depend on,
    ``weights`` the SHA-256 of the weights that were confirmed, where it is known.
    """

    study: str
    entry: ScheduleResult
    verdict: str
    curve: tuple[ScheduleResult, ...]
    parents: Mapping[str, ScheduleResult | None]
    config: Config
    identity: Mapping[str, Any]
    weights: str | None

    @classmethod
    def of(cls, report: Report, *, trial: int | None = None) -> Provenance:
        """That of a trial, or of the budget's pick. Raises ``StudyError`` where there is none."""
        decided = trial is None and report.verdict is not None  # a verdict is about the pick
        verdict = f"{report.verdict} within {report.budget:g} tokens" if decided else "not tested against a budget"
        uniform = {entry.schedule.lam: entry for entry in report.trials if entry.schedule.lam is not None}
        curve = tuple(entry for _, entry in sorted(uniform.items()))
        entry = report.result(trial)
        weights = report.digests.get(entry.schedule)
        return cls(report.study, entry, verdict, curve, report.parents, report.config, report.identity, weights)

    def to_dict(self) -> dict[str, Any]:
        """For ``autolambda.json``: what was measured, how, and from which seed."""
        return {
            "study": self.study,
            "verdict": self.verdict,
            "measured": self.entry.to_dict(),
            "curve": [entry.to_dict() for entry in self.curve],
            "parents": {name: entry and entry.to_dict() for name, entry in self.parents.items()},
            "identity": dict(self.identity),
            "evaluated_weights": self.weights,
        }
