"""The answer of a report as sentences, which the terminal and the HTML page render.

Nothing parses a sentence. A renderer takes its parts, its plain text, or its command.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from autolambda.errors import printable
from autolambda.report.insights import difference_phrase
from autolambda.report.report import Report, too_few
from autolambda.report.results import ScheduleResult, guard_word
from autolambda.statistics.estimates import Difference, number
from autolambda.statistics.verdict import Verdict
from autolambda.study.connection import password_hint, shown_storage

Part = str | tuple[str, str]

STOP_WORDS = {
    "trials": "search.trials is reached",
    "tokens": "the search used its tokens",
    "gain": "no further finalist would gain enough",
    "spaces": "every schedule was tried",
}
"""Why a search ended, by ``Report.stop_reason``."""


@dataclass(frozen=True)
class Sentence:
    """One sentence. A part is a text, or a text with its rich style. ``command`` is an optional command to run next."""

    parts: tuple[Part, ...]
    command: str | None = None

    @property
    def text(self) -> str:
        """The sentence without styles and without its command."""
        return "".join(part if isinstance(part, str) else part[0] for part in self.parts)

    def __str__(self) -> str:
        return f"{self.text}: {self.command}" if self.command else self.text


@dataclass(frozen=True)
class AgainstThinking:
    """A result compared with the Thinking model on the same prompts.

    ``accuracy`` is the difference in accuracy (-1 to 1), and ``token_share`` the ratio of mean tokens. ``interval`` is
    the paired difference. It is known for merges that were confirmed together with both parents.
    """

    accuracy: float
    interval: Difference | None
    token_share: float


def against_thinking(report: Report, result: ScheduleResult) -> AgainstThinking | None:
    """Compares a result with the Thinking model; ``None`` unless both were measured on the same prompts.

    Also ``None`` for the Thinking model itself.
    """
    thinking = report.parents["thinking"]
    if thinking is None or thinking.confirmed != result.confirmed or result.parent == "thinking":
        return None
    paired = report.insights.gain_over("thinking", result)
    accuracy = paired.value if paired else result.score.accuracy - thinking.score.accuracy
    return AgainstThinking(accuracy, paired, result.score.mean_tokens / thinking.score.mean_tokens)


def verdict_sentences(report: Report, *, storage: str | None = None) -> Iterator[Sentence]:
    """Yields the verdict for the budget, its reasons, and last the command to continue with.

    ``storage`` is the value of ``--storage`` in that command.
    """
    study, best = report.study, report.best
    budget = "" if report.budget is None else f"--budget {report.budget:g}"
    if report.budget is None:
        yield Sentence(("No budget was given: the front is the answer.",))
        yield _leads_to("For a pick", "confirm", study, "--budget TOKENS", storage=storage)
    elif report.verdict is None:
        so_far: tuple[Part, ...] = (" By the search alone: ", *_numbers(best)) if best else ()
        yield Sentence((("Not confirmed yet.", "yellow"), *so_far))
        yield _leads_to("Continue with", "confirm", study, budget, storage=storage)
    elif report.verdict is Verdict.FEASIBLE and best and best.parent:
        yield from _about_parent(report, report.budget, best)
        yield from _about_likely(report, storage)
    elif report.verdict is Verdict.FEASIBLE and best:
        yield Sentence((("Feasible", "green bold"), f" within {report.budget:g} tokens: ", *_numbers(best), "."))
        yield from _about_pick(report, best)
        yield from _about_likely(report, storage)
        yield _leads_to(f"Export it{report.unchecked(best)}", "export", study, "OUT", budget, storage=storage)
    elif report.nearest:
        yield from _about_nearest(report, report.budget, report.nearest)
        yield from _about_likely(report, storage)
        if report.likely is None:
            out = f"OUT --trial {report.nearest.trial}"
            yield _leads_to("Export it anyway", "export", study, out, storage=storage)


def guard_sentences(result: ScheduleResult) -> Iterator[Sentence]:
    """Yields the loss on each guard task of a confirmed result, and whether it is allowed."""
    words: dict[str, Part] = {"kept": "kept", "broken": ("broken", "red"), "unsure": ("not shown to be kept", "yellow")}
    for task, drop in result.drops.items():
        lost = (
            f": {0.0 - 100 * drop.value:+.1f} points compared with the better parent "
            f"({-100 * drop.high:+.1f} to {-100 * drop.low:+.1f}); a loss of {100 * drop.max_drop:g} is allowed."
        )
        yield Sentence((f"Guard {printable(task)} is ", words[guard_word(drop.kept)], lost))


def is_held_by_guard(report: Report) -> bool:
    """Whether a confirmed result meets the budget, but may break its guards."""
    budget = report.budget
    return budget is not None and any(
        result.measured.mean_tokens.high <= budget and result.guards in ("broken", "unsure")
        for result in report.confirmed
    )


def slack_sentence(budget: float, parents: Mapping[str, float], *, bundled: bool) -> Sentence | None:
    """Returns advice if the budget is no limit: at least the mean tokens of both ``parents``."""
    if len(parents) < 2 or budget < max(parents.values()):
        return None
    longest = max(parents, key=lambda name: parents[name])
    said = (
        f"A budget of {budget:g} tokens is no limit here: the longest parent, {longest.capitalize()}, needs "
        f"{parents[longest]:.1f} tokens a response on average."
    )
    if bundled:
        command = f"autolambda search INSTRUCT THINKING --task my.jsonl --budget {budget:g}"
        return Sentence(((f"{said} For your own models", "yellow"),), command)
    return Sentence(((f"{said} Leave the budget out, or give a lower one, to see what tokens buy.", "yellow"),))


def slack_of(report: Report) -> Sentence | None:
    """Returns the ``slack_sentence`` if no parent, trial or confirmed result exceeds the budget."""
    parents = {name: result.score.mean_tokens for name, result in report.parents.items() if result}
    highest = max(result.score.mean_tokens for result in (*report.trials, *report.confirmed))
    if report.budget is None or report.budget < highest:
        return None
    return slack_sentence(report.budget, parents, bundled=report.config.models.bundled)


def _about_pick(report: Report, best: ScheduleResult) -> Iterator[Sentence]:
    """Yields why this result was picked, and how it compares with others."""
    if report.cheaper_than:
        margin = 100 * report.config.confirm.margin
        points = f"{margin:g} point{'' if margin == 1 else 's'}"
        end = f": it is cheaper, and shown to lose less than {points} of accuracy."
        yield Sentence(("It was picked over ", *_numbers(report.cheaper_than), end))
    yield from guard_sentences(best)
    for each in report.alike:
        yield Sentence(
            (
                f"Trial {each.result.trial} is as accurate within the error: {difference_phrase(each.difference)}, "
                f"at {number(each.result.score.mean_tokens)} tokens.",
            )
        )
    if found := against_thinking(report, best):
        points = difference_phrase(found.interval) if found.interval else f"{100 * found.accuracy:+.1f} points"
        share = f"{found.token_share:.0%} of its tokens"
        yield Sentence((f"Compared with the Thinking model: {points} of accuracy, {share}.",))
    yield from filter(None, [slack_of(report)])


def _about_parent(report: Report, budget: float, best: ScheduleResult) -> Iterator[Sentence]:
    """Yields that a parent is the answer, why, and what could show that a merge helps."""
    name, beaten = str(best.parent), report.beaten
    word = ("No merge helps", "green bold")
    yield Sentence((word, f" within {budget:g} tokens: ", (f"{name.capitalize()} itself", "bold"), _values(best), "."))
    if beaten:
        gain = report.insights.gain_over(name, beaten)
        points = 100 * (beaten.score.accuracy - best.score.accuracy)
        change = difference_phrase(gain) if gain else f"{points:+.1f} points"
        yield Sentence(("The best merge within the budget: ", *_numbers(beaten), f", {change}."))
    elif report.nearest:
        yield Sentence(
            ("No merge could be shown to be within the budget; the nearest: ", *_numbers(report.nearest), ".")
        )
    yield from _what_settles(report, least=best.score.accuracy)
    yield from filter(None, [slack_of(report)])


def _about_likely(report: Report, storage: str | None) -> Iterator[Sentence]:
    """Yields the finalist that is probably within the budget, with its export."""
    if report.likely:
        result, percent = report.likely.result, min(100 * report.likely.chance, 99)
        yield Sentence(
            (("Probably within", "yellow"), ": ", *_numbers(result), f", chance {percent:.0f} %; not proven.")
        )
        out = f"OUT --trial {result.trial}"
        yield _leads_to("Export it without proof", "export", report.study, out, storage=storage)


def _what_settles(report: Report, *, least: float = 0.0) -> Iterator[Sentence]:
    """Yields how many prompts would show the first finalist that is not, if it is more accurate than ``least``."""
    if report.budget is None or report.open is None or report.open.result.score.accuracy <= least:
        return
    result, enough = report.open.result, report.open.num_prompts
    tokens = result.measured.mean_tokens
    why = "its mean is over it" if tokens.value > report.budget else "it loses more than a guard allows"
    end = f": {why}, which more prompts would hardly change."
    if enough is not None:
        end = (
            f"; about {enough:,} prompts in the confirmation would probably settle it (it had {tokens.num_prompts:,})."
        )
    yield Sentence((f"Trial {result.trial} ({result.score.accuracy:.1%}) is not shown to be within the budget{end}",))


def _about_nearest(report: Report, budget: float, nearest: ScheduleResult) -> Iterator[Sentence]:
    """Yields that no result meets the budget for sure, the nearest result, and what may help."""
    is_held, is_uncertain = is_held_by_guard(report), report.verdict is Verdict.UNCERTAIN
    word = ("Uncertain", "yellow bold") if is_uncertain else ("Infeasible", "red bold")
    why = " because of a guard" if is_held else ""
    yield Sentence((word, f" within {budget:g} tokens{why}; the nearest: ", *_numbers(nearest), "."))
    yield from guard_sentences(nearest)
    if is_uncertain and (few := too_few(nearest.measured.mean_tokens.num_prompts, report.config.tasks)):
        return (yield Sentence((few,)))
    if is_uncertain:
        yield from _what_settles(report)
    yield from filter(None, [slack_of(report)])
    remedies = [
        *(["more prompts (a new study with a larger confirm.limit)"] if is_uncertain else []),
        *(["a larger guard.max_drop"] if is_held else []),
        "a higher budget",
    ]
    yield Sentence((f"What may help: {', '.join(remedies)} or a longer search (search.max_tokens_generated).",))


def _numbers(result: ScheduleResult) -> tuple[Part, ...]:
    """Returns a trial's result as a phrase, with its 95 % intervals."""
    return ((str(result.schedule), "bold"), f" (trial {result.trial}){_values(result)}")


def _values(result: ScheduleResult) -> str:
    accuracy, tokens = result.measured.accuracy, result.measured.mean_tokens
    return (
        f", accuracy {accuracy.value:.1%} ({accuracy.low:.1%} to {accuracy.high:.1%}) "
        f"at {number(tokens.value)} tokens ({number(tokens.low)} to {number(tokens.high)})"
    )


def _leads_to(words: str, *parts: str, storage: str | None) -> Sentence:
    """Returns a command to continue with. If it hides a password, the words say how to give it."""
    where = ["--storage", shlex.quote(shown_storage(storage))] if storage else []
    hint = password_hint(storage) if storage else ""
    return Sentence((f"{words}{hint}",), " ".join(["autolambda", *parts, *where]))
