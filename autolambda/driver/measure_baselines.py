"""Measures a baseline beside the finalists: another method on the prompts and with the seeds of the confirmation."""

from __future__ import annotations

from collections.abc import Callable

from autolambda.config import BaselineName
from autolambda.driver.baselines import baseline_method, choose_cut
from autolambda.driver.events import EvaluationEnded, Noted
from autolambda.driver.run import PARENTS, Run
from autolambda.engines.base import Engine
from autolambda.engines.wrappers import CutEngine
from autolambda.merging.method import Method
from autolambda.responses import Graded
from autolambda.schedule import Schedule
from autolambda.statistics.metrics import measure


def measure_baseline(run: Run, method: BaselineName, finalist: Schedule, *, size: int, budget: float | None) -> None:
    """Measures what is missing of another method on ``size`` responses; SLERP at the mean lambda of the finalist.

    Raises as ``Run.generate`` does.
    """
    if method == "cut":
        _measure_cut(run, size, budget)
        return
    schedule = Schedule.uniform(round(finalist.other, 4))
    key = f"slerp at lambda {schedule.other:g}" if method == "slerp" else method
    chosen = baseline_method(run.job, method, lam=schedule.other)
    _measure(run, key, schedule, size, merge=chosen)


def _measure_cut(run: Run, size: int, budget: float | None) -> None:
    """The Thinking model with its thinking cut to meet the budget; once more where it thinks on after the cut."""
    thinking, chat = _responses_of(run, PARENTS["thinking"]), run.job.models.chat
    if not thinking or budget is None:
        run.on_event(Noted("baseline cut: it needs a budget and the Thinking model's own responses; left out"))
        return
    aim = budget
    for _ in range(2):
        cap = choose_cut(thinking, chat, budget=aim, weights=run.job.config.weights)
        if cap is None:
            run.on_event(Noted(f"baseline cut: no cap on the thinking meets {aim:.1f} tokens"))
            return
        found = _measure(run, f"cut at {cap} tokens", PARENTS["thinking"], size, engine=_cut_engine(run, cap))
        if found <= budget:
            return
        aim = budget * budget / found


def _cut_engine(run: Run, cap: int) -> Callable[[], Engine]:
    return lambda: CutEngine(run.engine(), run.job.models.chat, cap=cap)


def _responses_of(run: Run, schedule: Schedule) -> list[Graded]:
    """A schedule's responses on the search slice, with their texts."""
    stored = run.store.evaluations(run.study.name, kind="trial")
    return [graded for each in stored if each.schedule == schedule for graded in run.store.graded(each)]


def _measure(
    run: Run,
    key: str,
    schedule: Schedule,
    size: int,
    *,
    engine: Callable[[], Engine] | None = None,
    merge: Method | None = None,
) -> float:
    """Generates what is missing of a baseline; its mean tokens."""
    title = f"baseline {key}"
    graded = run.generate(
        title,
        schedule,
        kind="baseline",
        key=key,
        phase="confirm",
        window=slice(0, size),
        progress=(1.0, 0.0),
        engine=engine,
        merge=merge,
    )
    measured = measure(graded, weights=run.job.config.weights)
    run.on_event(EvaluationEnded(title, schedule, measured))
    return measured.mean_tokens.value
