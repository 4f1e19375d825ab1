"""A study's report: fronts, stages, parents and the answer to the budget. ``read.py`` computes it from the database.

README.md explains the raw, the smoothed and the confirmed front.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autolambda.config import Config
from autolambda.errors import StudyError
from autolambda.merging.difference.values import ParentDifference
from autolambda.report.cap.results import CapResult
from autolambda.report.followup.served import Served
from autolambda.report.followup.transfer import Transfer
from autolambda.report.insights import Insights
from autolambda.report.results import ScheduleResult
from autolambda.schedule import Schedule
from autolambda.statistics.estimates import Difference, number
from autolambda.statistics.pareto import front
from autolambda.statistics.stages import Stages
from autolambda.statistics.verdict import LEAST_PROMPTS, Verdict
from autolambda.study.trials import Counts
from autolambda.tasks.config import TaskConfig

UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Alike:
    """A confirmed result with its difference in accuracy to the pick. The interval of the difference holds 0."""

    result: ScheduleResult
    difference: Difference


@dataclass(frozen=True)
class Likely:
    """A finalist that is more accurate than the answer, and within the budget with this chance (0 to 1), not proven."""

    result: ScheduleResult
    chance: float


@dataclass(frozen=True)
class Beyond:
    """The most accurate finalist with a scale or a third parent, beside the best one on the line between the parents.

    ``difference`` is its accuracy minus that of ``line``, paired by prompt. If it is not shown to be better
    (``is_shown``), the answer stays on the line. ``line`` is a parent if that alone is not shown to be beaten.
    """

    result: ScheduleResult
    line: ScheduleResult
    difference: Difference
    is_shown: bool

    def to_dict(self) -> dict[str, object]:
        """Returns plain values for JSON."""
        change = self.difference
        return {
            "trial": self.result.trial,
            "line_trial": self.line.trial,
            "line_parent": self.line.parent,
            "accuracy_difference": change.value,
            "accuracy_difference_low": change.low,
            "accuracy_difference_high": change.high,
            "is_shown": self.is_shown,
        }


@dataclass(frozen=True)
class Open:
    """The first finalist that is not shown to be within the budget.

    ``num_prompts`` is how many prompts of the confirmation would probably show it; ``None`` if no number would.
    """

    result: ScheduleResult
    num_prompts: int | None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to the budget.

    ``best`` is the pick, a merge or a parent. ``nearest`` is the nearest merge if none is shown to be within the
    budget. ``cheaper_than`` is more accurate than the pick, but costs more tokens. ``alike`` has the finalists within
    the budget that are as accurate as the pick within the error. ``beaten`` is the best merge within the budget if the
    pick is a parent. ``uniform`` is the confirmed best uniform lambda within the budget, if it is not the pick itself.
    ``preferred_over`` was passed over for the uniform pick: its expected advantage is below ``confirm.margin``.
    ``beyond`` compares the best schedule beyond the line between the parents with the best one on it.
    """

    verdict: Verdict | None = None
    best: ScheduleResult | None = None
    nearest: ScheduleResult | None = None
    cheaper_than: ScheduleResult | None = None
    alike: tuple[Alike, ...] = ()
    beaten: ScheduleResult | None = None
    likely: Likely | None = None
    open: Open | None = None
    uniform: ScheduleResult | None = None
    preferred_over: ScheduleResult | None = None
    beyond: Beyond | None = None


@dataclass(frozen=True, kw_only=True)
class Report(Answer):
    """The result of ``search`` and the content of ``report``: the answer to the budget, and what it rests on.

    ``trials`` has one result per measured schedule, ``smoothed`` the surrogate's estimates of these schedules.
    ``confirmed`` has every confirmed schedule, whatever the budget. ``baselines`` were measured on the prompts of the
    confirmation. ``identity`` holds everything that the results depend on. ``digests`` holds the SHA-256 of confirmed
    weights, and ``parents_differ`` how far the parents are apart, if known. ``cap`` is Thinking with a cap on its
    thinking at the pick's mean tokens, and ``capped_merge`` a finalist with a cap on its tail. ``transfers`` has
    picks on other tasks, and ``served`` models as a server serves them.
    """

    study: str
    budget: float | None
    trials: tuple[ScheduleResult, ...]
    smoothed: tuple[ScheduleResult, ...]
    confirmed: tuple[ScheduleResult, ...]
    parents: Mapping[str, ScheduleResult | None]
    baselines: Mapping[str, ScheduleResult]
    stages: Stages
    insights: Insights
    counts: Counts
    tokens_generated: int
    stop_reason: str
    config: Config
    identity: Mapping[str, Any]
    digests: Mapping[Schedule, str]
    parents_differ: ParentDifference | None
    cap: CapResult | None = None
    capped_merge: CapResult | None = None
    transfers: tuple[Transfer, ...] = ()
    served: tuple[Served, ...] = ()

    @property
    def raw_front(self) -> tuple[ScheduleResult, ...]:
        return tuple(front(self.trials, key=lambda e: e.score))

    @property
    def smoothed_front(self) -> tuple[ScheduleResult, ...]:
        return tuple(front(self.smoothed, key=lambda e: e.score))

    @property
    def confirmed_front(self) -> tuple[ScheduleResult, ...]:
        return tuple(front(self.confirmed, key=lambda e: e.score))

    @property
    def front(self) -> tuple[ScheduleResult, ...]:
        """The confirmed front; before the confirmation, the smoothed one."""
        return self.confirmed_front or self.smoothed_front

    @property
    def beside(self) -> dict[str, ScheduleResult]:
        """What stands beside the front, by name: the baselines, and the models with a cap on their thinking."""
        caps = {} if self.cap is None else {f"Thinking cut at {self.cap.capped.tokens:,}": self.cap.result}
        if merge := self.capped_merge:
            caps[f"trial {merge.result.trial} cut at {merge.capped.tokens:,}"] = merge.result
        own = self.cap.result if self.cap else None
        return {name: result for name, result in self.baselines.items() if result is not own} | caps

    @property
    def has_curve(self) -> bool:
        """Whether at least two uniform lambdas are measured, which the stages need."""
        return len({result.schedule.lam for result in self.trials} - {None}) > 1

    def is_pick(self, result: ScheduleResult) -> bool:
        """Returns whether a result, measured or smoothed, is of the pick for the budget."""
        best = self.best
        return best is not None and (result.trial, result.parent, result.schedule) == (
            best.trial,
            best.parent,
            best.schedule,
        )

    def unchecked(self, result: ScheduleResult) -> str:
        """Returns words on an export that cannot be compared with the weights of the engine; empty if it can."""
        return "" if result.schedule in self.digests else " (the engine's weights were not hashed to compare it with)"

    @property
    def is_done(self) -> bool:
        """Whether the search is over, both parents are confirmed, and the budget (if any) is decided."""
        measured = all(result is not None and result.confirmed for result in self.parents.values())
        decided = self.verdict is not None if self.budget else bool(self.confirmed)
        return self.stop_reason != UNFINISHED and measured and decided

    def result(self, trial: int | None) -> ScheduleResult:
        """Returns a trial's result, confirmed if possible, or the pick for ``None``. Raises ``StudyError``."""
        if trial is not None:
            found = next((e for e in (*self.confirmed, *self.trials) if e.trial == trial), None)
            if found is None:
                last = self.trials[-1].trial
                raise StudyError(f"study '{self.study}' has no complete trial {trial}; its last is {last}")
            return found
        if self.best is None:
            cheapest = min(self.confirmed or self.trials, key=lambda each: each.score.mean_tokens)
            needs = f"the cheapest, trial {cheapest.trial}, needs {number(cheapest.score.mean_tokens)}"
            raise StudyError(
                f"study '{self.study}' has no pick within {self.budget:g} tokens: {needs}; export that one with "
                f"--trial {cheapest.trial}, or give a higher --budget"
                if self.budget
                else f"study '{self.study}' has no budget; give --budget TOKENS or --trial N"
            )
        if self.best.parent is not None:
            raise StudyError(
                f"study '{self.study}': the answer is the {self.best.parent.capitalize()} model itself; "
                "no merge helps within the budget; name a merge with --trial N"
            )
        return self.best


def too_few(num_prompts: int, tasks: Sequence[TaskConfig]) -> str | None:
    """Returns what to do if the confirmation has too few prompts for any claim; ``None`` if they are enough."""
    if num_prompts >= LEAST_PROMPTS:
        return None
    counted = [task for task in tasks if not task.guard]
    sources = " or ".join(dict.fromkeys(Path(task.path).name if task.path else task.label for task in counted))
    prompts = "1 prompt was" if num_prompts == 1 else f"{num_prompts} prompts were"
    return f"Only {prompts} left to check with: add rows to {sources} (an answer takes at least {LEAST_PROMPTS})."


def unconfirmed(smoothed: Sequence[ScheduleResult], budget: float | None) -> ScheduleResult | None:
    """Returns the most accurate smoothed result that keeps its guards and whose upper bound is within the budget."""
    within = [e for e in smoothed if budget is not None and e.measured.mean_tokens.high <= budget]
    kept = [e for e in within if e.guards in (None, "kept")]
    return max(kept, key=lambda e: (e.score.accuracy, -e.score.mean_tokens), default=None)
