"""Confirms the finalists of a budget, both parents under their own templates, and the baselines.

All answer the same prompts, which the search never saw, with the same seeds. The search alone determines the finalists
and their order (``optimizer/finalists.py``), so stored responses are not generated again. With a budget, the
confirmation ends at the first finalist that does not pass: the later ones could not be the answer any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autolambda.config import Config
from autolambda.driver.baselines.all import measure_baselines
from autolambda.driver.baselines.base import Beside, measure_request
from autolambda.driver.evaluation import EvaluationRequest
from autolambda.driver.run import SEARCH_PART, Run
from autolambda.optimizer.finalists import plan
from autolambda.optimizer.space import PARENTS
from autolambda.report.read import build_report
from autolambda.report.report import Report
from autolambda.responses import Graded
from autolambda.statistics.verdict import confirmed_of, drops_of


def confirm_finalists(run: Run, *, budget: float | None) -> Report:
    """Measures the missing responses of a confirmation and returns the report. Raises like ``Evaluator.run``."""
    config, chats = run.job.config, run.job.models.own_chats
    agreed = plan(run.measured.observations, config.search_settings, run.job.aims(budget))
    finalists = [run.measured.all[index] for index in agreed.finalists]
    share, parents, last = (1 - SEARCH_PART) / (len(PARENTS) + len(finalists)), [], None
    for number, ((name, end), size) in enumerate(zip(PARENTS.items(), agreed.num_parents, strict=True)):
        title, left = f"{name} as is", len(finalists)
        request = EvaluationRequest(title, "parent", name, end, "confirm", stop=size, chat=chats[name], num_left=left)
        parents.append(measure_request(run, replace(request, done=SEARCH_PART + number * share, share=share)))
    for number, finalist in enumerate(finalists, start=len(PARENTS)):
        title, last = f"confirm trial {finalist.trial}", finalist.schedule
        left, done = len(PARENTS) + len(finalists) - number - 1, SEARCH_PART + number * share
        request = EvaluationRequest(title, "confirm", last.key, last, "confirm", stop=agreed.num_responses)
        graded = measure_request(run, replace(request, num_left=left, done=done, share=share))
        if budget is not None and not _passes(graded, parents, config, budget):
            break
    report = build_report(run.store, run.study, budget=budget)
    if last is None or not measure_baselines(run, Beside(last, agreed.num_responses, report)):
        return report
    return build_report(run.store, run.study, budget=budget)


def _passes(graded: Sequence[Graded], parents: Sequence[Sequence[Graded]], config: Config, budget: float) -> bool:
    """Returns whether a finalist is shown to be within the budget and to keep every guard."""
    drops = drops_of(graded, parents, guards=config.guards)
    return confirmed_of(graded, budget=budget, weights=config.weights, drops=drops).passes(budget)
