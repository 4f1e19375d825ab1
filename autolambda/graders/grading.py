"""Graders by name, and the score of a response: correct, wrong, unparsed or truncated.

A grader sees the text after the last closing think tag, without the white space in front of it; a text without the tag
is graded whole. Targets are strings; a grader that needs more takes JSON. A target may name several right answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache

from autolambda.errors import TaskError
from autolambda.graders import custom
from autolambda.graders.base import AnyOf, Grader, ParsedAnswer
from autolambda.graders.choice import Choice
from autolambda.graders.ifeval import IFEval
from autolambda.graders.lm_eval import LMEval
from autolambda.graders.math import Math
from autolambda.graders.number import Number
from autolambda.graders.regex import Regex
from autolambda.graders.text import Contains, Exact
from autolambda.responses import Grade, Response

GRADERS: Mapping[str, Grader] = {
    "exact": Exact(),
    "number": Number(),
    "contains": Contains(),
    "math": Math(),
    "choice": Choice(),
    "regex": Regex(),
    "ifeval": IFEval(),
    "lm_eval": LMEval(),
}


_MOST = 0.95  # share of a task's answers that a grader must accept to suit it
_FORMULA = re.compile(r"\\[A-Za-z]|[\^$\u221a\u03c0]|\d\s?/\s?\d")


def is_custom(name: str) -> bool:
    """Returns whether a name has the form of a user's grader, such as ``package.module:function``."""
    return name not in GRADERS and (":" in name or "." in name)


@cache
def find_grader(name: str) -> Grader:
    """Returns the grader with this name, or the user's function at a dotted path. Raises ``TaskError``."""
    if name in GRADERS:
        return AnyOf(GRADERS[name])
    if is_custom(name):
        return AnyOf(custom.Custom(custom.load(name)))
    nearest = get_close_matches(name, GRADERS, n=3)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"known: {', '.join(GRADERS)};"
    raise TaskError(f"unknown grader {name!r}; {hint} A grader of your own is given as 'package.module:function'")


def likely_grader(targets: Sequence[str]) -> str:
    """Returns the grader that suits the right answers of a task: ``number``, ``choice``, ``math`` or ``exact``.

    A few answers (5 %) may be of another kind.
    """

    def accepted(name: str) -> int:
        number = 0
        for target in targets:
            with suppress(ValueError):
                find_grader(name).check_target(target)
                number += 1
        return number

    enough = _MOST * len(targets)
    for name in ("number", "choice"):
        if accepted(name) >= enough:
            return name
    num_formulas = sum(bool(_FORMULA.search(target)) for target in targets)
    return "math" if 2 * num_formulas >= len(targets) and accepted("math") >= enough else "exact"


@dataclass(frozen=True)
class Score:
    """A grade with the answer for which it was given."""

    grade: Grade
    answer: str | None


def answer_part(response: Response, *, think_end: str) -> str:
    """Returns the text that a grader sees: the part after the last closing think tag, without white space in front.

    Models write a blank line after the tag, at which a stop string would end the answer. lm-evaluation-harness removes
    it too, with or without a thought.
    """
    return response.text.rpartition(think_end)[2].lstrip()


def score_of(parsed: ParsedAnswer, response: Response) -> Score:
    """Returns the score: ``truncated`` for a response cut at ``max_tokens``, else ``unparsed`` without an answer."""
    if response.finish_reason == "length":
        return Score(Grade.TRUNCATED, parsed.answer)
    if parsed.answer is None:
        return Score(Grade.UNPARSED, None)
    return Score(Grade.CORRECT if parsed.correct else Grade.WRONG, parsed.answer)


def score(response: Response, target: str, *, grader: Grader, think_end: str) -> Score:
    """Returns the score of a response, graded in this process without a time limit."""
    return score_of(grader.grade(answer_part(response, think_end=think_end), target), response)
