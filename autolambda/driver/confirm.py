"""Confirms the finalists of a budget, both parents under their own templates, and the baselines.

All answer the same prompts, which the search never saw, with the same seeds. The search alone determines the finalists
(``optimizer/finalists.py``), so stored responses are not generated again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from autolambda.driver.baselines import measure_baseline
from autolambda.driver.evaluation import EvaluationRequest
from autolambda.driver.events import EvaluationEnded
from autolambda.driver.notes import PARENTS
from autolambda.driver.run import Run
from autolambda.optimizer.finalists import Plan, plan
from autolambda.optimizer.token_allowance import CONFIRM_SHARE
from autolambda.report.report import Report, build_report
from autolambda.statistics.metrics import measure


def confirm_finalists(run: Run, *, budget: float | None) -> Report:
    """Measures the missing responses of a confirmation and returns the report. Raises like ``Evaluator.run``."""
    config, measured = run.job.config, run.measured
    agreed = plan(measured.observations, config.search_settings, run.job.aims(budget))
    requests = list(_requests(run, agreed))
    share = CONFIRM_SHARE / len(requests)
    for number, request in enumerate(requests):
        done = 1 - CONFIRM_SHARE + number * share
        graded = run.evaluator.run(replace(request, done=done, share=share))
        numbers = measure(graded, weights=config.weights)
        run.on_event(EvaluationEnded(request.title, request.kind, request.schedule, numbers))
    if agreed.finalists:
        last = measured.all[agreed.finalists[-1]].schedule
        for method in config.search.baselines:
            measure_baseline(run, method, last, size=agreed.num_responses, budget=budget)
    return build_report(run.store, run.study, budget=budget)


def _requests(run: Run, agreed: Plan) -> Iterator[EvaluationRequest]:
    """Yields the parents' evaluations, then the finalists' in their testing order."""
    chats = run.job.models.own_chats
    for name, end in PARENTS.items():
        yield EvaluationRequest(
            f"{name} as is", "parent", name, end, phase="confirm", stop=agreed.num_parent, chat=chats[name]
        )
    for finalist in (run.measured.all[index] for index in agreed.finalists):
        title, key = f"confirm trial {finalist.trial}", finalist.schedule.key
        yield EvaluationRequest(title, "confirm", key, finalist.schedule, phase="confirm", stop=agreed.num_responses)
