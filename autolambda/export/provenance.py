"""The stored facts about an exported schedule: its numbers, the verdict, the curve of uniform lambdas, the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autolambda.config import Config

if TYPE_CHECKING:  # a merge without a study does not import the report
    from autolambda.report.cap.results import CapResult
    from autolambda.report.followup.served import Served
    from autolambda.report.report import Report
    from autolambda.report.results import ScheduleResult


@dataclass(frozen=True)
class Provenance:
    """One schedule of a study with its measurements.

    ``curve`` holds the searched uniform lambdas in ascending order. ``parents`` are the unmerged models, each under its
    own template. ``identity`` holds everything that the results depend on. ``weights`` is the SHA-256 (hex) of the
    confirmed weights, or ``None`` if unknown. ``rival`` is Thinking with a cap on its thinking, if the schedule is the
    pick. ``cap`` is the cap to use with this schedule, if one is shown to be better. ``served`` has the checks of this
    schedule on servers.
    """

    study: str
    entry: ScheduleResult
    verdict: str
    curve: tuple[ScheduleResult, ...]
    parents: Mapping[str, ScheduleResult | None]
    config: Config
    identity: Mapping[str, Any]
    weights: str | None
    rival: CapResult | None = None
    cap: CapResult | None = None
    served: tuple[Served, ...] = ()

    @property
    def why_uncompared(self) -> str:
        """Why there is no SHA-256 of the weights that were measured."""
        if not self.entry.confirmed:
            return "only finalists are hashed, and this schedule was not confirmed"
        return "it holds them in another layout than the files, or an earlier release measured them"

    @classmethod
    def of(cls, report: Report, *, trial: int | None = None) -> Provenance:
        """Returns the provenance of a trial, or of the pick. Raises ``StudyError`` if the study lacks it."""
        decided = trial is None and report.verdict is not None  # a verdict is about the pick
        verdict = f"{report.verdict} within {report.budget:g} tokens" if decided else "not tested against a budget"
        uniform = {entry.schedule.lam: entry for entry in report.trials if entry.schedule.lam is not None}
        curve = tuple(entry for _, entry in sorted(uniform.items()))
        entry = report.result(trial)
        weights = report.digests.get(entry.schedule)
        capped = report.capped_merge
        cap = capped if capped and capped.is_better and capped.result.schedule == entry.schedule else None
        rival = report.cap if report.is_pick(entry) else None
        of = (report.parents, report.config, report.identity)
        served = tuple(e for e in report.served if e.check.role == "pick" and e.check.schedule == entry.schedule)
        return cls(report.study, entry, verdict, curve, *of, weights, rival, cap, served)

    def to_dict(self) -> dict[str, Any]:
        """Returns the measurement as a part of ``autolambda.json``."""
        return {
            "study": self.study,
            "verdict": self.verdict,
            "measured": self.entry.to_dict(),
            "curve": [entry.to_dict() for entry in self.curve],
            "parents": {name: entry and entry.to_dict() for name, entry in self.parents.items()},
            "identity": dict(self.identity),
            "evaluated_weights": self.weights,
            "thinking_capped": self.rival and self.rival.to_dict(),
            "cap": self.cap and self.cap.to_dict(),
            **({"served": [each.for_others() for each in self.served]} if self.served else {}),
        }
