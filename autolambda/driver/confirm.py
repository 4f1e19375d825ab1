"""Confirms the finalists of a budget: both parents as they are and the finalists, then the baselines beside them.

All answer the same prompts, which the search never saw, with the same seeds. Who they are follows from the search alone
(``confirm.plan``), so what is stored already is not generated again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autolambda.driver.events import EvaluationEnded
from autolambda.driver.measure_baselines import measure_baseline
from autolambda.driver.run import PARENTS, Run
from autolambda.engines.chat import ChatFormat
from autolambda.optimizer.finalists import Plan, plan
from autolambda.optimizer.token_allowance import CONFIRM_SHARE
from autolambda.report.report import Report, build_report, confirm_key
from autolambda.schedule import Schedule
from autolambda.statistics.metrics import measure
from autolambda.study.store import Kind


@dataclass(frozen=True)
class _Step:
    """One evaluation of the confirmation; ``chat`` stands in for the study's own."""

    title: str
    schedule: Schedule
    kind: Kind
    key: str
    num_responses: int
    chat: ChatFormat | None = None


def confirm_finalists(run: Run, *, budget: float | None) -> Report:
    """Measures what is missing of the budget's confirmation; the report. Raises as ``Run.generate`` does."""
    config, record = run.job.config, run.record
    agreed = plan(record.evidence, config.search_settings, run.job.aims(budget))
    steps = list(_steps(run, agreed))
    for number, step in enumerate(steps):
        graded = run.generate(
            step.title,
            step.schedule,
            kind=step.kind,
            key=step.key,
            phase="confirm",
            chat=step.chat,
            window=slice(0, step.num_responses),
            progress=(1 - CONFIRM_SHARE * (1 - number / len(steps)), CONFIRM_SHARE / len(steps)),
        )
        run.on_event(EvaluationEnded(step.title, step.schedule, measure(graded, weights=config.weights)))
    if agreed.finalists:
        last = record.seen[agreed.finalists[-1]].schedule
        for method in config.search.baselines:
            measure_baseline(run, method, last, size=agreed.num_responses, budget=budget)
    return build_report(run.store, run.study, budget=budget)


def _steps(run: Run, agreed: Plan) -> Iterator[_Step]:
    chats = run.job.models.own_chats
    for name, end in PARENTS.items():
        yield _Step(f"{name} as is", end, "parent", name, agreed.num_parent, chats[name])
    for seen in (run.record.seen[index] for index in agreed.finalists):
        key = confirm_key(seen.schedule)
        yield _Step(f"confirm trial {seen.trial}", seen.schedule, "confirm", key, agreed.num_responses)
