"""What is said where no merge is shown to be within the budget: the nearest, what is missing, what may help."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from autolambda.errors import printable
from autolambda.report.answer.phrases import NONE_FOUND, UNSURE, Part, Sentence, named
from autolambda.report.report import Report, too_few
from autolambda.report.results import ScheduleResult, guard_word
from autolambda.statistics.verdict import Verdict
from autolambda.statistics.words import limit, percent, signed


def about_nearest(report: Report, budget: float, nearest: ScheduleResult) -> Iterator[Sentence]:
    """Yields that no result meets the budget for sure, the nearest result, and what it lacks."""
    is_held = is_held_by_guard(report)
    word, what = (
        (UNSURE, f"no merge is shown to stay within {limit(budget)}")
        if report.verdict is Verdict.UNCERTAIN
        else (NONE_FOUND, f"every merge checked is over {limit(budget)}")
    )
    if is_held:
        what = f"a guard stands against every merge within {limit(budget)}"
    yield Sentence((word, f": {what}. The nearest: ", *named(nearest), "."))
    yield from guard_sentences(nearest)
    if report.verdict is Verdict.UNCERTAIN and not _too_few(report):
        yield from what_settles(report)


def what_helps(report: Report) -> Sentence:
    """Returns what may help where no merge is shown to be within the budget."""
    is_uncertain = report.verdict is Verdict.UNCERTAIN
    if is_uncertain and (few := _too_few(report)):
        return Sentence((few,))
    remedies = [
        *([_more_prompts(report)] if is_uncertain else []),
        *(["a larger guard.max_drop"] if is_held_by_guard(report) else []),
        "a higher budget",
    ]
    return Sentence((f"What may help: {', '.join(remedies)} or a longer search (search.max_tokens_generated).",))


def guard_sentences(result: ScheduleResult) -> Iterator[Sentence]:
    """Yields the loss on each guard task of a confirmed result, and whether it is allowed."""
    words: dict[str, Part] = {"kept": "kept", "broken": ("broken", "red"), "unsure": ("not shown to be kept", "yellow")}
    for task, drop in result.drops.items():
        lost = (
            f": {signed(-drop.value)} points compared with the better parent "
            f"({signed(-drop.high)} to {signed(-drop.low)}); a loss of {100 * drop.max_drop:g} is allowed."
        )
        yield Sentence((f"Guard {printable(task)} is ", words[guard_word(drop.kept)], lost))


def is_held_by_guard(report: Report) -> bool:
    """Whether a confirmed result meets the budget, but may break its guards."""
    budget = report.budget
    return budget is not None and any(
        result.measured.mean_tokens.high <= budget and result.guards in ("broken", "unsure")
        for result in report.confirmed
    )


def what_settles(report: Report, *, least: float = 0.0) -> Iterator[Sentence]:
    """Yields how many prompts would show the first finalist that is not, if it is more accurate than ``least``."""
    if report.budget is None or report.open is None or report.open.result.score.accuracy <= least:
        return
    result, enough = report.open.result, report.open.num_prompts
    mean = result.measured.mean_tokens
    why = "its mean is over it" if mean.value > report.budget else "it loses more than a guard allows"
    end = f": {why}, which more prompts would hardly change."
    if enough is not None:
        end = f"; about {enough:,} prompts to check with would probably settle it (it had {mean.num_prompts:,})."
    said = f"Trial {result.trial} ({percent(result.score.accuracy)}) is not shown to be within the budget{end}"
    yield Sentence((said,))


def _too_few(report: Report) -> str | None:
    return too_few(report.nearest.measured.mean_tokens.num_prompts, report.config.tasks) if report.nearest else None


def _more_prompts(report: Report) -> str:
    """Returns how to get more prompts for the confirmation: more rows, if a local file has no others."""
    limit, num_prompts = report.config.confirm.limit, report.identity["confirm.prompts"]
    tasks = report.config.tasks
    files = [printable(Path(task.path).name) for task in tasks if task.path and not task.confirm_on]
    if len(files) == len(tasks) and (limit is None or num_prompts < limit * len(tasks)):
        plural = "" if num_prompts == 1 else "s"
        return f"more rows in {', '.join(files)} (only {num_prompts:,} prompt{plural} were left to check with)"
    return "more prompts to check with (a new study with a larger confirm.limit)"
