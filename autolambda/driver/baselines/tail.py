"""A cap on a merge that cuts only the tail of its lengths: the best of both.

Each confirmed merge is tried with a few caps on the search's prompts. The one that is expected to answer most with no
more tokens than the pick, all by the search alone, is measured on the confirmation's prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

from autolambda.driver.baselines.capping import Capping, Model, key_of
from autolambda.driver.baselines.drafts import Drafts
from autolambda.driver.events import EvaluationEnded
from autolambda.engines.closing import Closing
from autolambda.report.cap.results import cap_name
from autolambda.report.report import Report
from autolambda.report.results import ScheduleResult
from autolambda.responses import Capped, is_aborted
from autolambda.statistics.metrics import measure

SHARES = (0.1, 0.05, 0.02)  # of a merge's responses: the most that a cap may cut
LEAST_SAVED = 0.01  # of a merge's tokens: a cap that saves less is not worth telling


@dataclass(frozen=True)
class _Candidate:
    """A merge with a cap, and what is expected of it by the search: accuracy (share of 1) and mean tokens."""

    result: ScheduleResult
    cap: int
    accuracy: float
    mean_tokens: float


def measure_tail(capping: Capping, report: Report, closing: Closing) -> None:
    """Measures the best cap on a confirmed merge, if one is expected to take no more tokens than the pick."""
    run, budget = capping.run, report.budget
    assert budget is not None
    config = run.job.config
    name, weights = cap_name(report.best, budget, config, of="merge"), config.weights
    stored = {each.key: each for each in run.store.evaluations(run.study.name, kind="confirm")}
    kept = run.study.kept(name)
    if kept is None:
        best = _best(capping, report, closing, _most_tokens(report))
        if best is None:
            return
        schedule, cap = best.result.schedule, best.cap
    else:
        capped = Capped.from_key(kept)
        schedule = next(each.schedule for each in stored.values() if each.schedule.key == capped.of)
        cap, closing = capped.tokens, Closing(capped.closing, capped.num_forced)
    drafts = Drafts(run.store.graded(stored[schedule.key]), run.job.models.chat, weights=weights)
    model = Model(schedule, schedule.key, "confirm", drafts)
    if kept is None:
        run.study.keep(name, key_of(model, cap, closing).key)
    numbers = measure(capping.measure(model, cap, closing), weights=weights)
    run.on_event(EvaluationEnded(f"{schedule.in_words}, cut at {cap} tokens", "cap", schedule, numbers))


def _most_tokens(report: Report) -> float:
    """Returns the mean tokens that the search expects of the pick, or the budget without a pick."""
    pick = next((each for each in report.smoothed if report.is_pick(each)), report.best)
    return pick.score.mean_tokens if pick else report.budget or 0.0


def _best(capping: Capping, report: Report, closing: Closing, most: float) -> _Candidate | None:
    """Returns the candidate with the highest expected accuracy, and of equals the one with the fewest tokens."""
    found: list[_Candidate] = []
    for result in report.smoothed:
        if result.parent is None and any(each.trial == result.trial for each in report.confirmed):
            found += _candidates(capping, result, closing, most)
    return max(found, key=lambda each: (each.accuracy, -each.mean_tokens), default=None)


def _candidates(capping: Capping, result: ScheduleResult, closing: Closing, most: float) -> list[_Candidate]:
    """Returns a merge with each cap under which it takes at most ``most`` tokens, by surrogate and real answers."""
    run, weights = capping.run, capping.run.job.config.weights
    whole = run.responses_of(result.schedule)
    if is_aborted(whole):
        return []
    before, found = measure(whole, weights=weights), []
    drafts = Drafts(whole, run.job.models.chat, weights=weights)
    for cap in dict.fromkeys(drafts.tail_cap(share) for share in SHARES):
        num_cut = len(drafts.cut_by(cap))
        if not num_cut or num_cut * drafts.answer_tokens > capping.left / 2:  # the other half is for the confirmation
            continue
        graded = capping.measure(Model(result.schedule, result.schedule.key, "search", drafts), cap, closing)
        after = measure(graded, weights=weights)
        share = after.mean_tokens.value / before.mean_tokens.value
        gain = after.accuracy.value - before.accuracy.value
        mean = share * result.score.mean_tokens
        if share <= 1 - LEAST_SAVED and mean <= most:
            found.append(_Candidate(result, cap, result.score.accuracy + gain, mean))
    return found
