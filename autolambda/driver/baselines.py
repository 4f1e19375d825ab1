"""The baselines: what a user would try without a search, on the prompts and with the seeds of the confirmation.

Three are merges: task arithmetic and TIES around a base model, and SLERP. The fourth, ``cut``, is the Thinking model
with a hard cap on its thinking. ``choose_cut`` finds the cap for a budget, and ``engines/wrappers.py`` generates.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

import numpy as np

from autolambda.config import BaselineName
from autolambda.driver.evaluation import EvaluationRequest
from autolambda.driver.events import EvaluationEnded, Noted
from autolambda.driver.job import Job
from autolambda.driver.models import base_folder
from autolambda.driver.run import Run
from autolambda.engines.base import Engine
from autolambda.engines.chat import ChatFormat
from autolambda.engines.wrappers import CutEngine
from autolambda.errors import ConfigError
from autolambda.merging.merge import check_in_place, open_merge
from autolambda.merging.method import AROUND_BASE, Method
from autolambda.optimizer.space import PARENTS
from autolambda.responses import Graded
from autolambda.schedule import Schedule
from autolambda.statistics.estimates import Weights, task_weights
from autolambda.statistics.metrics import measure


def baseline_method(job: Job, name: BaselineName, *, lam: float) -> Method:
    """Returns the merge of a baseline; ``lam`` is for SLERP. Raises ``ConfigError`` if a base is missing."""
    if name == "slerp":
        return Method("slerp", Schedule.uniform(lam))
    if name == "cut":
        raise ValueError("the baseline 'cut' changes no weights; use a CutEngine around an engine")
    source = base_folder(job.config.models)
    if source is None:
        raise ConfigError(f"models.base: {name} needs the base model of both parents; set it, or leave {name} out")
    return Method(name, base=source)


def check_baselines(job: Job) -> None:
    """Checks that the baselines of the config can be made, before anything is generated.

    Raises ``ConfigError`` if a base is missing, or if only one of base and parents has a tied lm_head. Raises
    ``PairError`` if the base does not fit, and ``CheckpointError`` if it is broken.
    """
    for name in [name for name in job.config.search.baselines if name in AROUND_BASE][:1]:
        merge = open_merge(job.models.pair, baseline_method(job, name, lam=1.0))
        check_in_place(merge)
        assert merge.base is not None
        merge.base.digest()  # reads every value


def measure_baseline(run: Run, name: BaselineName, finalist: Schedule, *, size: int, budget: float | None) -> None:
    """Measures the missing responses of a baseline on a slice of ``size`` responses.

    SLERP takes the mean lambda of the finalist. Raises like ``Evaluator.run``.
    """
    if name == "cut":
        _measure_cut(run, size, budget)
        return
    schedule = Schedule.uniform(round(finalist.other, 4))
    key = f"slerp at lambda {schedule.other:g}" if name == "slerp" else name
    merge = baseline_method(run.job, name, lam=schedule.other)
    _measure(run, _request(key, schedule, size, merge=merge))


def _measure_cut(run: Run, size: int, budget: float | None) -> None:
    """Measures the Thinking model with its thinking cut to meet the budget. Tries a second cap if needed."""
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
        mean_tokens = _measure(run, request)
        if mean_tokens <= budget:
            return
        aim = budget * budget / mean_tokens


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
    """Generates the missing responses and returns the mean tokens."""
    measured = measure(run.evaluator.run(request), weights=run.job.config.weights)
    run.on_event(EvaluationEnded(request.title, request.kind, request.schedule, measured))
    return measured.mean_tokens.value


def choose_cut(
    graded: Sequence[Graded], chat: ChatFormat, *, budget: float, weights: Weights | None = None
) -> int | None:
    """Returns the largest cap for ``CutEngine`` with which these responses of the Thinking model meet the budget.

    A response with ``t`` thinking tokens (closing tag included) and ``a`` answer tokens would take ``min(cap, t) + a``.
    A response without the tag is all thinking. After a cut, its answer is assumed to have the mean length, but no
    response gets longer than it was.

    The budget limits the mean over responses, and over tasks by ``weights`` as in ``statistics/metrics.py``. If no cap
    is needed, returns the length of the longest response. Returns ``None`` if a cap of 1 is too much, or if no response
    closes its thinking. Raises ``InputError`` if the weights do not name the tasks.
    """
    totals = np.array([each.response.num_tokens for each in graded])
    closed = np.array([each.thought for each in graded], dtype=bool)
    if not closed.any():
        return None
    thoughts = ["".join(each.response.text.partition(chat.think_end)[:2]) for each in graded]  # with the closing tag
    encoded: list[list[int]] = chat.tokenizer(thoughts, add_special_tokens=False).input_ids
    answers = np.maximum(totals - [len(ids) for ids in encoded], 0).astype(float)
    answers[~closed] = answers[closed].mean()
    shares = task_weights({each.task for each in graded}, weights=weights)
    tasks = np.array([each.task for each in graded])

    def mean_tokens(cap: int) -> float:
        lengths = np.minimum(cap + answers, totals)
        return float(sum(share * lengths[tasks == task].mean() for task, share in shares.items() if share))

    return bisect_right(range(1, int(totals.max()) + 1), budget, key=mean_tokens) or None
