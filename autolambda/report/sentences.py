"""The answer of a report as sentences, which the terminal, the HTML page and notebooks render.

The first sentence is the answer, then what it saves, how sure it is, and last the commands. Nothing parses a sentence:
a renderer takes its parts, its plain text, or its command.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from autolambda.errors import printable
from autolambda.report.answer.baselines import baseline_sentences
from autolambda.report.answer.beyond import beyond_sentences, front_sentences
from autolambda.report.answer.caps import cap_sentences
from autolambda.report.answer.phrases import (
    FOUND,
    AgainstThinking,
    Part,
    Sentence,
    against_thinking,
    answers,
    leads_to,
    named,
    titled,
    who,
    with_budget,
)
from autolambda.report.answer.undecided import about_nearest, guard_sentences, what_helps, what_settles
from autolambda.report.report import Report
from autolambda.report.results import ScheduleResult
from autolambda.statistics.stages import SATURATION_AT
from autolambda.statistics.verdict import Verdict
from autolambda.statistics.words import lead, limit, percent, points, signed, tokens, tokens_of

__all__ = [
    "AgainstThinking",
    "Part",
    "Sentence",
    "against_thinking",
    "guard_sentences",
    "slack_of",
    "slack_sentence",
    "stop_words",
    "verdict_sentences",
]

_STOP_WORDS = {
    "trials": "search.trials allows no more",
    "tokens": "its share of the token allowance is used up",
    "gain": "one more candidate would hardly improve the answer",
    "spaces": "every merge was tried",
}


def stop_words(reason: str) -> str:
    """Returns why a search ended, for a ``Report.stop_reason`` that is not ``unfinished``."""
    return _STOP_WORDS[reason]


def verdict_sentences(report: Report, *, storage: str | None = None) -> Iterator[Sentence]:
    """Yields the answer, what it saves, how sure it is, other choices, and last the commands to continue with.

    ``storage`` is the value of ``--storage`` in these commands.
    """
    best = report.best
    if report.budget is None:
        yield from _about_front(report)
        yield leads_to("For a pick", "confirm", report.study, "--budget TOKENS", storage=storage)
    elif report.verdict is None:
        yield Sentence((("Not confirmed yet.", "yellow"), *_so_far(report, report.budget)))
        yield from filter(None, [slack_of(report)])
        yield leads_to("Continue with", "confirm", report.study, with_budget(report), storage=storage)
    elif report.verdict is Verdict.FEASIBLE and best:
        yield from _about_parent(report, best) if best.parent else _about_pick(report, report.budget, best)
        yield from cap_sentences(report)
        yield from baseline_sentences(report)
        yield from filter(None, [slack_of(report), without_budget(report)])
        yield from _about_likely(report, storage)
        if best.parent is None:
            words = f"Export it{report.unchecked(best)}"
            yield leads_to(words, "export", report.study, "OUT", with_budget(report), storage=storage)
        yield from _serve(report, best)
    elif report.nearest:
        yield from about_nearest(report, report.budget, report.nearest)
        yield from cap_sentences(report)
        yield from baseline_sentences(report)
        yield from filter(None, [slack_of(report)])
        yield what_helps(report)
        yield from filter(None, [without_budget(report)])
        yield from _about_likely(report, storage)
        if report.likely is None:
            out = f"OUT --trial {report.nearest.trial}"
            yield leads_to("Export it anyway", "export", report.study, out, storage=storage)


def without_budget(report: Report) -> Sentence | None:
    """Returns what would be picked without a budget, by the search's estimates; ``None`` if it is the pick."""
    sweet, highest = report.insights.sweet_spot, report.insights.highest
    if report.budget is not None and report.best and sweet.schedule == report.best.schedule:
        return None
    near = "nothing cheaper is within a point of it"
    if sweet is not highest:
        near = f"within a point of the most accurate, {_estimated(highest)}"
    given = "Without a budget we would take" if report.budget is not None else "We would take"
    return Sentence((f"{given} {_estimated(sweet)}: {near} (estimates of the search).",))


def slack_sentence(budget: float, parents: Mapping[str, float], *, bundled: bool) -> Sentence | None:
    """Returns advice if the budget is no limit: at least the mean tokens of both ``parents``."""
    if len(parents) < 2 or budget < max(parents.values()):
        return None
    longest = max(parents, key=lambda name: parents[name])
    said = f"{limit(budget)} is no limit for these models: {longest.capitalize()}, the longer one, needs "
    said += f"{tokens(parents[longest])} a response."
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


def _so_far(report: Report, budget: float) -> tuple[Part, ...]:
    """Returns what the search alone says of the budget."""
    if report.best:
        return (" By the search alone, ", *named(report.best), ".")
    cheapest = min(report.smoothed, key=lambda each: each.score.mean_tokens, default=None)
    if cheapest is None:
        return ()
    needs = f"the cheapest, {who(cheapest)}, needs {tokens(cheapest.score.mean_tokens)}"
    return (f" By the search alone, no merge is surely within {limit(budget)}; {needs}.",)


def _about_front(report: Report) -> Iterator[Sentence]:
    """Yields the front as the answer: what its two ends give, and what we would take."""
    front = report.front
    cheap, best = front[0], front[-1]
    checked = "checked on new prompts" if report.confirmed_front else "not confirmed yet"
    span = f"from {percent(cheap.score.accuracy)} right with {tokens(cheap.score.mean_tokens)}"
    if best is not cheap:
        span += f" to {percent(best.score.accuracy)} with {tokens(best.score.mean_tokens)}"
    yield Sentence((("The front is the answer", "bold"), f", since no budget was given: {span} ({checked})."))
    yield from front_sentences(report)
    yield from filter(None, [without_budget(report)])


def _about_pick(report: Report, budget: float, best: ScheduleResult) -> Iterator[Sentence]:
    """Yields the pick, what it saves, how sure it is, and why it was picked over others."""
    within = f", budget {limit(budget).removesuffix(' tokens')}."
    yield Sentence((FOUND, ": ", (best.schedule.in_words, "bold"), f" {answers(best)}{within}"))
    yield from _compared(report, best)
    yield _how_sure(budget, best)
    yield from guard_sentences(best)
    if report.cheaper_than:
        margin = points(report.config.confirm.margin)
        end = f". The pick is cheaper, and shown to lose less than {margin}."
        yield Sentence((titled(report.cheaper_than), f" {answers(report.cheaper_than)}", end))
    yield from _about_uniform(report, best)
    yield from beyond_sentences(report)
    cheaper = [each for each in report.alike if each.result.score.mean_tokens < best.score.mean_tokens]
    cheaper = [each for each in cheaper if each.result not in (report.uniform, report.preferred_over)]
    for each in sorted(cheaper, key=lambda each: each.result.score.mean_tokens)[:1]:
        mean, change = tokens_of(each.result.measured.mean_tokens), lead(each.difference.value, each.difference)
        yield Sentence((f"{titled(each.result)} is cheaper, with {mean}, and {change}.",))


def _about_uniform(report: Report, best: ScheduleResult) -> Iterator[Sentence]:
    """Yields how the best single lambda compares with the pick, or with the schedule that it was preferred over."""
    if report.preferred_over:
        other = report.preferred_over
        gain = signed(other.score.accuracy - best.score.accuracy)
        less = f"is expected to gain less than {points(report.config.confirm.margin)} ({gain} measured)"
        yield Sentence((f"{titled(other)} {less}: a single lambda is simpler.",))
    if report.uniform:
        change = report.uniform.score.accuracy - best.score.accuracy
        said = f"The best single lambda within the budget: {who(report.uniform)} {answers(report.uniform)}"
        yield Sentence((f"{said}, {signed(change)} points.",))


def _compared(report: Report, best: ScheduleResult) -> Iterator[Sentence]:
    if found := against_thinking(report, best):
        yield Sentence(("Compared with Thinking: ", (found.saving, "bold"), f", {found.lead}."))


def _how_sure(budget: float, best: ScheduleResult) -> Sentence:
    mean = best.measured.mean_tokens
    return Sentence(
        (
            f"Checked on {mean.num_prompts:,} prompts that the search never saw ({mean.num_responses:,} responses): "
            f"its mean is within {limit(budget)} with 95 % confidence (one-sided). Ranges are 95 % intervals.",
        )
    )


def _about_parent(report: Report, best: ScheduleResult) -> Iterator[Sentence]:
    """Yields that a parent is the answer, why, and what could show that a merge helps."""
    name, beaten, budget = str(best.parent), report.beaten, report.budget or 0.0
    model = (f"the {name.capitalize()} model itself", "bold")
    better = "shown to be better" if report.beyond and not report.beyond.is_shown else "better"
    yield Sentence((FOUND, ": ", model, f" {answers(best)}; no merge is {better} within {limit(budget)}."))
    yield from _compared(report, best)
    yield from beyond_sentences(report)
    if beaten:
        gain = report.insights.gain_over(name, beaten)
        change = lead(beaten.score.accuracy - best.score.accuracy, gain)
        yield Sentence(("The best merge within the budget: ", *named(beaten), f", {change}."))
    elif report.nearest:
        nearest = named(report.nearest)
        yield Sentence(("No merge could be shown to be within the budget; the nearest: ", *nearest, "."))
    yield from what_settles(report, least=best.score.accuracy)


def _about_likely(report: Report, storage: str | None) -> Iterator[Sentence]:
    """Yields the finalist that is probably within the budget, with its export."""
    if report.likely:
        result, chance = report.likely.result, min(100 * report.likely.chance, 99)
        word = ("Probably within the budget", "yellow")
        yield Sentence((word, f" (chance {chance:.0f} %, not proven): ", *named(result), "."))
        out = f"OUT --trial {result.trial}"
        yield leads_to("Export that one without proof", "export", report.study, out, storage=storage)


def _serve(report: Report, best: ScheduleResult) -> Iterator[Sentence]:
    """Yields the command that serves the answer, with the trap of reasoning parsers."""
    model = "OUT" if best.parent is None else getattr(report.config.models, best.parent)
    if model is None:
        return
    ratio, tag = best.measured.think_ratio.value, printable(report.identity["models.think_end"])
    words = "Serve it"
    if ratio < SATURATION_AT:
        words += (
            f" without --reasoning-parser ({percent(1 - ratio)} of its responses have no {tag}, and a parser leaves "
            "their content empty)"
        )
    yield Sentence((words,), f"vllm serve {shlex.quote(model)}")


def _estimated(result: ScheduleResult) -> str:
    """Returns a smoothed result in short, as ``lambda 0.75 (trial 3) with 95.6 % and 66.1 tokens``."""
    name = f"the {result.parent.capitalize()} model" if result.parent else who(result)
    return f"{name} with {percent(result.score.accuracy)} and {tokens(result.score.mean_tokens)}"
