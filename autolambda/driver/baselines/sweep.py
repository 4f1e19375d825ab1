"""The baseline ``sweep``: uniform lambdas by hand, picked by their own numbers, for as many tokens as the search."""

from __future__ import annotations

from autolambda.driver.baselines.base import Beside, measure_baseline, measure_request
from autolambda.driver.evaluation import EvaluationRequest
from autolambda.driver.events import Noted
from autolambda.driver.job import Job
from autolambda.driver.run import Run
from autolambda.responses import Graded, is_aborted
from autolambda.schedule import Schedule
from autolambda.statistics.estimates import number
from autolambda.statistics.metrics import measure
from autolambda.tasks.requests import requests_on

LAMBDAS = tuple(round(0.1 * i, 1) for i in range(11))
LEAST = 16  # responses of each lambda


class SweepBaseline:
    """Implements ``base.Baseline``: measures 11 lambdas on the search's prompts, and confirms the one it would pick.

    All lambdas answer equally many prompts: as many as the search's tokens pay for at the parents' mean length. The
    pick is the most accurate with a mean within the budget, with no margin for errors.
    """

    def check(self, job: Job) -> None:
        """Has nothing to check."""

    def measure(self, run: Run, beside: Beside) -> None:
        """Measures the missing responses. Needs a budget. Raises like ``Evaluator.run``."""
        allowance, budget, weights = run.allowance(), beside.report.budget, run.job.config.weights
        if allowance is None or budget is None:
            run.on_event(Noted("baseline sweep: it needs a budget; left out"))
            return
        size = max(LEAST, int(allowance.search / (len(LAMBDAS) * allowance.ends / 2)))
        within = {}
        for lam in LAMBDAS:
            numbers = measure(_responses(run, Schedule.uniform(lam), size), weights=weights)
            if numbers.mean_tokens.value <= budget:
                within[lam] = numbers.accuracy.value
        if not within:
            run.on_event(Noted(f"baseline sweep: no lambda takes {number(budget)} tokens or less; it has no pick"))
            return
        schedule = Schedule.uniform(max(within, key=lambda lam: within[lam]))
        key = f"sweep for {number(budget)} tokens, lambda {schedule.other:g}"
        measure_baseline(run, key, schedule, num_responses=beside.num_responses)


def _responses(run: Run, schedule: Schedule, size: int) -> list[Graded]:
    """Returns the first responses of a schedule to the search's prompts. Those of a trial are not generated again."""
    wanted = [request.key for request in requests_on(run.job.search)[:size]]
    stored = run.responses_of(schedule)
    known = {} if is_aborted(stored) else {each.key: each for each in stored}
    if missing := [key for key in wanted if key not in known]:
        title = f"sweep, lambda {schedule.other:g}"
        request = EvaluationRequest(
            title, "sweep", schedule.key, schedule, stop=size, done=1.0, share=0.0, only=frozenset(missing)
        )
        known |= {each.key: each for each in measure_request(run, request)}
    return [known[key] for key in wanted]
