"""The grader ``choice``: an option's letter, as ``ANSWER: $LETTER`` (simple-evals) or in another form that models use.

The last statement of an answer counts: ``Answer: C``, ``**Answer:** (c)``, ``the answer is (C)`` or
``\\boxed{\\text{C}}``. A text that is only a letter counts too. Of ``A or B`` none is read. No text takes long: every
repetition in the patterns is bounded, and only the last 65,536 characters are searched.
"""

from __future__ import annotations

import re
from collections import deque

from autolambda.graders.base import ParsedAnswer, QuickGrader

_OPEN = r"(?:[\s*_$({\[<\"'`\u201c\u2018]|\\[(\[]|\\(?:boxed|fbox|text(?:bf)?|math(?:bf|rm|sf)|rm|bf)\b){0,12}"
# A lower-case letter must be followed by an end: "answer: a good one" names no option. A capital letter need not.
_LETTER = (
    r"(?:(?P<capital>(?-i:[A-Z]))(?![A-Za-z0-9])|"
    r"(?P<small>(?-i:[a-z]))(?=[ \t*_$)}\]\\>\"'`\u201d\u2019]{0,8}(?:[.,:;)\]}]|\n|\Z)))"
)
_STATED = re.compile(
    rf"\banswer[\s*_\"']{{0,4}}[:\uff1a]{_OPEN}(?:(?:option|choice)\s{{1,4}}{_OPEN})?{_LETTER}"
    rf"|\banswer\s{{1,4}}is[\s:]{{1,4}}(?:(?:option|choice)\s{{1,4}})?{_OPEN}"
    r"(?P<said>(?-i:[A-Z])(?![A-Za-z0-9])(?!\s{0,4}[A-Za-z]))"
    rf"|\\(?:boxed|fbox)\s{{0,4}}\{{{_OPEN}(?P<boxed>[A-Za-z])[\s*_$)}}\]]{{0,8}}\}}",
    re.IGNORECASE,
)
# Another letter that is stated with it: "A or B", "A, B".
_ANOTHER = re.compile(
    r"[)*_$}\]]{0,4}(?:\s?[/&]\s?|\s(?:or|and)\s)[(*_$]{0,4}[A-HJ-Z](?![A-Za-z0-9'\u2019])"
    r"|[)*_$}\]]{0,4},\s?[(*_$]{0,4}[A-Z][)*_$}\] ]{0,4}(?:[.,;\n]|\Z|(?:and|or)\s)"
)
_MARKS = "()[]{}*_$.:\\\"' \t\r\n"
_TAIL = 65_536  # characters
_LONGEST = 40  # characters of a text that is only a letter with marks around it


class Choice(QuickGrader):
    """The last letter that is stated as the answer, in upper case."""

    def grade(self, text: str, target: str) -> ParsedAnswer:
        letter = _stated(text) or _alone(text)
        return ParsedAnswer(letter, letter == target.strip().upper()) if letter else ParsedAnswer(None)

    def check_target(self, target: str) -> None:
        letter = target.strip()
        if not (len(letter) == 1 and letter.isascii() and letter.isalpha()):
            raise ValueError("it is not a letter from A to Z")

    def canonical(self, target: str) -> str:
        """Returns the answer in the words that the prompt asks for."""
        return f"ANSWER: {target.strip()}"


def _stated(text: str) -> str | None:
    last = deque(_STATED.finditer(text[-_TAIL:]), maxlen=1)
    if not last or _ANOTHER.match(last[0].string, last[0].end()):
        return None
    return next(letter for letter in last[0].groups() if letter).upper()


def _alone(text: str) -> str | None:
    text = text.strip()
    if len(text) > _LONGEST:
        return None
    letter = text.strip(_MARKS)
    return letter.upper() if len(letter) == 1 and letter.isascii() and letter.isalpha() else None
