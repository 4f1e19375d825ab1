"""Measures a study's pick on other tasks, beside its best uniform lambda, both parents and a ladder of lambdas.

All answer the same prompts with the same seeds. The ladder is refined where the task's own reasoning emerges. Every
response is stored in the study as it arrives, so the same call goes on after a crash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from autolambda.config import Config
from autolambda.driver.cost import rounded
from autolambda.driver.engine import EngineSupervisor
from autolambda.driver.evaluation import EvaluationRequest, Evaluator
from autolambda.driver.events import EvaluationEnded, Noted, OnEvent, ignore
from autolambda.driver.followup.other_tasks import OtherTasks, open_other_tasks
from autolambda.driver.run import Run
from autolambda.driver.search import running
from autolambda.engines.base import Engine
from autolambda.optimizer.space import PARENTS
from autolambda.report.followup.transfer import Compared, Transfer, emergence_of, keep_compared, transfer_of
from autolambda.report.read import build_report, positive_budget
from autolambda.report.report import Report
from autolambda.report.results import ScheduleResult
from autolambda.responses import Graded
from autolambda.schedule import Schedule
from autolambda.statistics.metrics import Measured, measure
from autolambda.statistics.stages import Boundary
from autolambda.tasks.config import TaskConfig
from autolambda.tasks.requests import requests_on

LIMIT = 200  # prompts a task by default
LADDER = (0.0, 0.25, 0.5, 0.75, 1.0)  # uniform lambdas that every task is measured at
MOST_REFINED = 3  # further lambdas, each in the middle of the two around the emergence
CLOSE = 0.05  # a smaller gap around the emergence is not refined


@dataclass(frozen=True)
class _Planned:
    """A merge, or a parent under its own template, to measure under the ``key``."""

    title: str
    key: str
    schedule: Schedule
    parent: str | None = None


def transfer(
    config: Config,
    tasks: Sequence[TaskConfig],
    *,
    name: str,
    storage: str,
    budget: float | None = None,
    trial: int | None = None,
    limit: int = LIMIT,
    engine: Engine | None = None,
    on_event: OnEvent = ignore,
) -> tuple[Transfer, ...]:
    """Measures the pick for ``budget``, or the ``trial``, on at most ``limit`` prompts of each task.

    Raises ``StudyError`` if the study has no such pick, and otherwise like ``open_other_tasks`` and ``search``.
    """
    if budget is not None:
        positive_budget(budget)
    with running(config, name=name, storage=storage, engine=engine, on_event=on_event) as run:
        report = build_report(run.store, run.study, budget=budget)
        pick = report.result(trial)
        other = open_other_tasks(run.job, tasks, limit=limit)
        for note in other.notes:
            on_event(Noted(note))
        compared = _compared(other, report, pick)
        on_event(Noted(_forecast(other, compared, report, run)))
        supervisor = EngineSupervisor(other.job, engine, lambda note: on_event(Noted(note)))
        with closing(supervisor):
            found = []
            for number, (part, each) in enumerate(zip(other.job.confirm, compared, strict=True)):
                keep_compared(run.study, each)
                evaluator = run.evaluator_on(replace(other.job, confirm=(part,)), supervisor)
                progress = number / len(compared), 1 / len(compared)
                found.append(_OneTask(run, evaluator, each, progress, on_event).measure(own=report.stages.emergence))
            return tuple(found)


def neighbour(report: Report, pick: ScheduleResult) -> Schedule | None:
    """Returns the best uniform lambda beside a pick: the confirmed one of the answer, else the most accurate estimated.

    Estimated lambdas count if they take no more tokens than the pick; if all take more, the cheapest counts. ``None``
    if the pick is uniform itself, or if no uniform lambda is measured.
    """
    if pick.schedule.lam is not None:
        return None
    if report.uniform is not None and report.is_pick(pick):
        return report.uniform.schedule
    uniform = [each for each in report.smoothed if each.schedule.lam is not None and each.parent is None]
    within = [each for each in uniform if each.score.mean_tokens <= pick.score.mean_tokens]
    if within:
        return max(within, key=lambda each: each.score.accuracy).schedule
    return min(uniform, key=lambda each: each.score.mean_tokens).schedule if uniform else None


def _compared(other: OtherTasks, report: Report, pick: ScheduleResult) -> list[Compared]:
    models, uniform = other.job.models, neighbour(report, pick)
    ends = tuple(name for name, chat in models.own_chats.items() if chat.template == models.chat.template)
    return [
        Compared(part.task, digest, pick.trial, pick.schedule, uniform, ends)
        for part, digest in zip(other.job.confirm, other.digests, strict=True)
    ]


def _plan(compared: Compared) -> list[_Planned]:
    """Returns what a task is measured with, each once: both parents, the pick, its neighbour, the ladder."""
    found = [_Planned(f"{name} as is", compared.parent_key(name), end, name) for name, end in PARENTS.items()]
    merges = {"pick": compared.pick} | ({"best uniform": compared.uniform} if compared.uniform else {})
    found += [_Planned(title, compared.key(each), each) for title, each in merges.items()]
    found += [_uniform(compared, lam) for lam in LADDER]
    return list({each.key: each for each in reversed(found)}.values())[::-1]


def _uniform(compared: Compared, lam: float) -> _Planned:
    schedule = Schedule.uniform(lam)
    return _Planned(str(schedule), compared.key(schedule), schedule)


def _forecast(other: OtherTasks, compared: Sequence[Compared], report: Report, run: Run) -> str:
    """Returns the tokens to expect, at the lengths of the study's own prompts, and the most that are possible."""
    lengths = {each.schedule: each.score.mean_tokens for each in (*report.smoothed, *report.confirmed)}
    curve = sorted((lam, tokens) for each, tokens in lengths.items() if (lam := each.lam) is not None)
    expected = num_missing = 0.0
    for part, each in zip(other.job.confirm, compared, strict=True):
        plan, wanted = _plan(each), requests_on([part])
        missing_of = run.num_missing("transfer", {planned.key: wanted for planned in plan})
        for planned in plan:
            missing = missing_of[planned.key]
            mean = lengths.get(planned.schedule)
            if mean is None and curve:
                mean = float(np.interp(planned.schedule.other, *np.array(curve).T))
            num_missing += missing
            expected += missing * (mean or other.job.models.sampling.max_tokens)
    sizes = ", ".join(f"{part.num_responses} responses on {part.task}" for part in other.job.confirm)
    return (
        f"Forecast: {len(_plan(compared[0]))} models with {sizes} each, and up to {MOST_REFINED} more lambdas a task; "
        f"{num_missing:,.0f} responses are missing, about {rounded(expected)} tokens at the lengths of the study's own "
        "prompts"
    )


class _OneTask:
    """Measures the models of one task, then refines the ladder where its reasoning emerges."""

    def __init__(
        self, run: Run, evaluator: Evaluator, compared: Compared, progress: tuple[float, float], on_event: OnEvent
    ) -> None:
        self._run, self._evaluator, self._compared, self._on_event = run, evaluator, compared, on_event
        self._plan = _plan(compared)
        self._done, self._share = progress[0], progress[1] / (len(self._plan) + MOST_REFINED)
        self._graded: dict[str, list[Graded]] = {}

    def measure(self, *, own: Boundary | None) -> Transfer:
        """Returns the comparison, with responses that were stored and new ones; ``own`` is the study's own emergence.

        Raises like ``Evaluator.run``.
        """
        for planned in self._plan:
            self._measure(planned)
        lambdas = {*LADDER, *(lam for each in self._plan if (lam := each.schedule.lam) is not None and not each.parent)}
        for _ in range(MOST_REFINED):
            if (lam := refined(self._curve(lambdas))) is None:
                break
            self._measure(_uniform(self._compared, lam))
            lambdas.add(lam)
        return transfer_of(self._compared, self._graded, sorted(lambdas), own)

    def _measure(self, planned: _Planned) -> None:
        chat = self._run.job.models.own_chats[planned.parent] if planned.parent else None
        title = f"{self._compared.task}, {planned.title}"
        request = EvaluationRequest(title, "transfer", planned.key, planned.schedule, "confirm", chat=chat)
        graded = self._evaluator.run(replace(request, done=self._done, share=self._share))
        self._graded[planned.key] = graded
        self._done += self._share
        self._on_event(EvaluationEnded(title, "transfer", planned.schedule, measure(graded)))

    def _curve(self, lambdas: set[float]) -> dict[float, Measured]:
        keys = {lam: self._compared.key(Schedule.uniform(lam)) for lam in sorted(lambdas)}
        return {lam: measure(self._graded[key]) for lam, key in keys.items()}


def refined(curve: Mapping[float, Measured]) -> float | None:
    """Returns the lambda to measure next: the middle of the gap with the emergence. ``None`` if it is known closely."""
    emergence = emergence_of(curve)
    if emergence is None:
        return None
    lams = sorted(curve)
    right = next((lam for lam in lams if lam >= emergence.lam and lam > lams[0]), lams[-1])
    left = max(lam for lam in lams if lam < right)
    return None if right - left <= CLOSE else round((left + right) / 2, 4)
