"""``Baseline``, the plug point: what a user would try without a search, measured beside the finalists."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from autolambda.driver.evaluation import EvaluationRequest
from autolambda.driver.events import EvaluationEnded
from autolambda.driver.job import Job
from autolambda.driver.run import Run
from autolambda.merging.method import Method
from autolambda.report.report import Report
from autolambda.responses import Graded
from autolambda.schedule import Schedule
from autolambda.statistics.metrics import measure


@dataclass(frozen=True)
class Beside:
    """The confirmation that a baseline is measured beside.

    ``finalist`` is the last schedule that was confirmed, with ``num_responses`` responses. ``report`` has the answer to
    its budget.
    """

    finalist: Schedule
    num_responses: int
    report: Report


class Baseline(Protocol):
    """One baseline. It measures on the prompts and with the seeds of the confirmation."""

    def check(self, job: Job) -> None:
        """Raises ``InputError`` if the baseline cannot be made, before anything is generated."""

    def measure(self, run: Run, beside: Beside) -> None:
        """Measures the missing responses. Raises like ``Evaluator.run``."""


def measure_baseline(
    run: Run, key: str, schedule: Schedule, *, num_responses: int, merge: Method | None = None
) -> None:
    """Measures the missing responses of a baseline: a linear merge by ``schedule``, or another ``merge``."""
    request = EvaluationRequest(f"baseline {key}", "baseline", key, schedule, phase="confirm", stop=num_responses)
    measure_request(run, replace(request, done=1.0, share=0.0, merge=merge))


def measure_request(run: Run, request: EvaluationRequest) -> list[Graded]:
    """Returns the responses of an evaluation, stored and new ones, and tells the watcher their numbers."""
    allowance = run.allowance()
    request = replace(request, stage="confirmation", allowance=allowance.total if allowance else None)
    graded = run.evaluator.run(request)
    numbers = measure(graded, weights=run.job.config.weights)
    run.on_event(EvaluationEnded(request.title, request.kind, request.schedule, numbers))
    return graded
