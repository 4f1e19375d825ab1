"""The rival: the Thinking model with a cap on its thinking, at the mean tokens of the pick.

The cap is found on the search's prompts, by real answers after a cut, and measured once on the confirmation's. Both use
the stored responses of the Thinking model, and a tenth of the token allowance at most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from autolambda.driver.baselines.base import Beside
from autolambda.driver.baselines.cap_search import TOLERANCE, rank, search_cap
from autolambda.driver.baselines.capping import Capping, Model, key_of
from autolambda.driver.baselines.drafts import Drafts
from autolambda.driver.baselines.tail import measure_tail
from autolambda.driver.events import EvaluationEnded, Noted
from autolambda.driver.job import Job
from autolambda.driver.run import Run
from autolambda.engines.closing import Closing, closings_of
from autolambda.optimizer.space import PARENTS
from autolambda.optimizer.token_allowance import RESERVED
from autolambda.report.cap.results import cap_name
from autolambda.report.report import Report
from autolambda.report.results import parent_responses
from autolambda.responses import Capped, Graded
from autolambda.statistics.estimates import number
from autolambda.statistics.metrics import mean_tokens, measure
from autolambda.statistics.verdict import LEAST_PROMPTS

PROBES = 5  # caps that a search may take for each closing
TAIL_SHARE = 0.2  # of what is kept back; for the cap on a merge
THINKING = PARENTS["thinking"]
UNFIT = (
    "cap: the tenth of the tokens that is kept for it is not enough for a comparison with a cap on thinking; raise "
    "search.max_tokens_generated"
)


class CapBaseline:
    """Implements ``base.Baseline``: the cap on Thinking, and then one on a finalist."""

    def check(self, job: Job) -> None:
        """Raises ``ConfigError`` for a closing that cannot be used."""
        _closings(job)

    def measure(self, run: Run, beside: Beside) -> None:
        """Finds and measures the cap for the report's answer, and says what does not fit. Needs a budget."""
        report, allowance = beside.report, run.allowance()
        whole = [each for each in run.responses_of(THINKING) if each.response.finish_reason != "aborted"]
        own = parent_responses(run.store, run.study).get("thinking")
        if report.budget is None or not whole or not own or allowance is None:
            if "cut" in run.job.config.search.baselines:
                run.on_event(Noted("baseline cut: it needs a budget and responses of the Thinking model; left out"))
            return
        if report.best is not None and report.best.parent == "thinking":
            return
        reserve, chats = RESERVED * allowance.total, run.job.models
        capping = Capping(run, (1 - TAIL_SHARE) * reserve)
        weights = run.job.config.weights
        searched = Drafts(whole, chats.chat, weights=weights)
        if not searched.has_answers:
            run.on_event(Noted("cap: no response of the Thinking model closes its thinking, so none is measured"))
            return
        name = cap_name(report.best, report.budget, run.job.config, of="thinking")
        kept = run.study.kept(name)
        capped = Capped.from_key(kept) if kept else _find(capping, report, searched, own)
        if capped is None:
            return
        if kept is None:
            run.study.keep(name, capped.key)
        drafts = Drafts(own[: capped.num_responses], chats.own_chats["thinking"], weights=weights)
        closing = Closing(capped.closing, capped.num_forced)
        graded = capping.measure(Model(THINKING, "thinking", "confirm", drafts), capped.tokens, closing)
        numbers = measure(graded, weights=weights)
        run.on_event(EvaluationEnded(f"Thinking, cut at {capped.tokens} tokens", "cap", THINKING, numbers))
        measure_tail(Capping(run, TAIL_SHARE * reserve), report, closing)


def _closings(job: Job) -> tuple[Closing, ...]:
    model_type = job.models.pair.thinking.config.get("model_type")
    return closings_of(job.models.chat, model_type, setting=job.config.cap.closing)


def _find(capping: Capping, report: Report, searched: Drafts, own: Sequence[Graded]) -> Capped | None:
    """Returns what to measure on the confirmation's prompts, with the closing that answers more of the search's.

    The aim is the share of the Thinking model's tokens that the pick takes, or the budget if there is no pick. A share,
    because the search's prompts may need longer or shorter responses.
    """
    run, weights = capping.run, capping.run.job.config.weights
    wanted = report.best.score.mean_tokens if report.best else report.budget or 0.0
    aim = wanted * _mean(searched.graded, weights) / _mean(own, weights)
    if _mean(searched.graded, weights) <= aim:
        run.on_event(Noted(f"cap: Thinking takes no more than {number(wanted)} tokens, so no cap is needed"))
        return None
    closings = _closings(run.job)
    per_response = max(searched.answer_tokens, 1.0)
    room = (capping.left - per_response * len(own)) / (PROBES * len(closings) * per_response)
    size = min(len(searched.graded), math.floor(room))
    if _too_few(searched.graded, size, weights):
        run.on_event(Noted(UNFIT))
        return None
    model = Model(THINKING, "thinking", "search", searched.first(size, weights=weights))
    found = [_Probes(capping, model, closing, aim, keep=per_response * len(own)) for closing in closings]
    best = max(found, key=lambda probes: rank(probes.mean_tokens, probes.accuracy, aim=aim))
    if abs(best.mean_tokens - aim) > TOLERANCE * aim:
        even = "even a cap of 1 token takes" if best.cap == 1 and best.mean_tokens > aim else "the nearest cap takes"
        share = f"{best.mean_tokens / aim:.2f} times the tokens of the {'pick' if report.best else 'budget'}"
        run.on_event(Noted(f"cap: {even} {share} on the search's prompts"))
    size = min(len(own), math.floor(capping.left / max(best.new_tokens, 1.0)))
    if _too_few(own, size, weights):
        run.on_event(Noted(UNFIT))
        return None
    drafts = Drafts(own[:size], run.job.models.own_chats["thinking"], weights=weights)
    return key_of(Model(THINKING, "thinking", "confirm", drafts), best.cap, best.closing)


class _Probes:
    """The search of the cap with one closing, and the cap that came nearest to the aim.

    ``new_tokens`` is what a response under this cap costs.
    """

    def __init__(self, capping: Capping, model: Model, closing: Closing, aim: float, *, keep: float) -> None:
        self.closing, self.accuracy, self.new_tokens = closing, 0.0, 0.0
        self._graded: dict[int, list[Graded]] = {}
        self._costs: dict[int, float] = {}
        weights, drafts = capping.run.job.config.weights, model.drafts

        def measure_at(cap: int) -> float:
            before = capping.left
            self._graded[cap] = capping.measure(model, cap, closing)
            self._costs[cap] = before - capping.left
            return _mean(self._graded[cap], weights)

        def may_go_on() -> bool:
            return capping.left - keep >= max(self._costs.values())

        caps = search_cap(
            measure_at,
            lambda cap: drafts.estimate(cap, num_forced=closing.num_tokens),
            aim=aim,
            longest=drafts.longest,
            may_go_on=may_go_on,
        )
        self.cap, self.mean_tokens = list(caps.items())[-1]
        self.accuracy = measure(self._graded[self.cap], weights=weights).accuracy.value
        self.new_tokens = self._costs[self.cap] / len(drafts.graded)


def _mean(graded: Sequence[Graded], weights: dict[str, float]) -> float:
    return mean_tokens(graded, weights=weights).value


def _too_few(graded: Sequence[Graded], size: int, weights: Mapping[str, float]) -> bool:
    """Returns whether the first ``size`` responses are too few for a claim, or leave out a task that counts."""
    asked = {each.task for each in graded[: max(size, 0)]}
    return size < min(LEAST_PROMPTS, len(graded)) or any(share and task not in asked for task, share in weights.items())
