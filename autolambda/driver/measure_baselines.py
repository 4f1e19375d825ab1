"""Measures a baseline: another method on the prompts and with the seeds of the confirmation."""

from __future__ import annotations

from collections.abc import Callable

from autolambda.config import BaselineName
from autolambda.driver.baselines import baseline_method, choose_cut
from autolambda.driver.events import EvaluationEnded, Noted
from autolambda.driver.notes import PARENTS
from autolambda.driver.request import EvaluationRequest
from autolambda.driver.run import Run
from autolambda.engines.base import Engine
from autolambda.engines.wrappers import CutEngine
from autolambda.merging.method import Method
from autolambda.schedule import Schedule
from autolambda.statistics.metrics import measure


def measure_baseline(run: Run, name: BaselineName, finalist: Schedule, *, size: int, budget: float | None) -> None:
    """Measures what is missing of a baseline on ``size`` responses; SLERP at the mean lambda of the finalist.

    Raises as ``Evaluator.run``.
    """
    if name == "cut":
        _measure_cut(run, size, budget)
        return
    schedule = Schedule.uniform(round(finalist.other, 4))
    key = f"slerp at lambda {schedule.other:g}" if name == "slerp" else name
    merge = baseline_method(run.job, name, lam=schedule.other)
    _measure(run, _request(key, schedule, size, merge=merge))


def _measure_cut(run: Run, size: int, budget: float | None) -> None:
    """Measures the Thinking model with its thinking cut to meet the budget; once more if it exceeds the budget."""
    thinking, chat = run.responses_of(PARENTS["thinking"]), run.job.models.chat
    if not thinking or budget is None:
        run.on_event(Noted("baseline cut: it needs a budget and the Thinking model's own responses; left out"))
        return
    aim = budget
    for _ in range(2):
        cap = choose_cut(thinking, chat, budget=aim, weights=run.job.config.weights)
        if cap is None:
            run.on_event(Noted(f"baseline cut: no cap on the thinking meets {aim:.1f} tokens"))
            return
        request = _request(f"cut at {cap} tokens", PARENTS["thinking"], size, engine=_cut_engine(run, cap))
        found = _measure(run, request)
        if found <= budget:
            return
        aim = budget * budget / found


def _cut_engine(run: Run, cap: int) -> Callable[[], Engine]:
    return lambda: CutEngine(run.engine(), run.job.models.chat, cap=cap)


def _request(
    key: str,
    schedule: Schedule,
    size: int,
    *,
    merge: Method | None = None,
    engine: Callable[[], Engine] | None = None,
) -> EvaluationRequest:
    return EvaluationRequest(
        f"baseline {key}",
        "baseline",
        key,
        schedule,
        phase="confirm",
        stop=size,
        done=1.0,
        share=0.0,
        merge=merge,
        engine=engine,
    )


def _measure(run: Run, request: EvaluationRequest) -> float:
    """Generates what is missing and returns the mean tokens."""
    measured = measure(run.evaluator.run(request), weights=run.job.config.weights)
    run.on_event(EvaluationEnded(request.title, request.schedule, measured))
    return measured.mean_tokens.value
