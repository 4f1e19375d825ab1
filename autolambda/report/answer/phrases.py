"""Parts of the answer's sentences: a sentence as a value, a result's numbers in words, a command to continue with."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from autolambda.report.report import Report
from autolambda.report.results import ScheduleResult
from autolambda.statistics.estimates import Difference
from autolambda.statistics.words import lead, percent_of, saving, tokens_of
from autolambda.study.databases.connection import password_hint, shown_storage

Part = str | tuple[str, str]

FOUND, UNSURE, NONE_FOUND = ("Found", "green bold"), ("Not sure", "yellow bold"), ("None found", "red bold")
"""The verdicts feasible, uncertain and infeasible as people read them, with their rich styles."""


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

    @property
    def saving(self) -> str:
        """The difference in tokens, as ``59 % fewer tokens``."""
        return saving(self.token_share)

    @property
    def lead(self) -> str:
        """The difference in accuracy, as ``12.1 points less accurate (2.4 to 21.1)``."""
        return lead(self.accuracy, self.interval)


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


def who(result: ScheduleResult) -> str:
    """Returns what a result is of: ``lambda 0.5312 (trial 8)``, or ``the Thinking model itself``."""
    if result.parent and result.trial is None:
        return f"the {result.parent.capitalize()} model itself"
    return f"{result.schedule.in_words} (trial {result.trial})"


def titled(result: ScheduleResult) -> str:
    """Returns what a result is of, at the start of a sentence: ``Trial 8 (lambda 0.5312)``."""
    return f"Trial {result.trial} ({result.schedule})"


def answers(result: ScheduleResult) -> str:
    """Returns a result's numbers: ``answers 88.5 % (85.8 to 90.8) right with 33.8 tokens (31.5 to 36.5)``."""
    measured = result.measured
    return f"answers {percent_of(measured.accuracy)} right with {tokens_of(measured.mean_tokens)}"


def named(result: ScheduleResult) -> tuple[Part, ...]:
    """Returns a result and its numbers as a phrase."""
    return ((who(result), "bold"), f" {answers(result)}")


def leads_to(words: str, *parts: str, storage: str | None) -> Sentence:
    """Returns a command to continue with. If it hides a password, the words say how to give it."""
    where = ["--storage", shlex.quote(shown_storage(storage))] if storage else []
    hint = password_hint(storage) if storage else ""
    return Sentence((f"{words}{hint}",), " ".join(["autolambda", *parts, *where]))


def with_budget(report: Report) -> str:
    """Returns the option that repeats the report's budget in a command; empty without one."""
    return "" if report.budget is None else f"--budget {report.budget:g}"
