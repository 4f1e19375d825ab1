"""The grader ``number``: the last number in the text equals the target as a number (``1,000`` is 1000, ``7.0`` is 7).

Thousands may be set apart by commas, apostrophes, LaTeX (``1{,}234``, ``1\\,234``) or spaces that do not break a line
(U+00A0, U+202F). A number that can be read in two ways or is malformed is no answer: ``3,5``, ``1,00``, ``3.14.15``,
``1 234`` with a plain space (one number, or two), ``1'234,567``, hundreds of digits. So is a part of a fraction
(``1/2``), of a power (``10^5``) or of a root. ``-$5`` is -5.
"""

from __future__ import annotations

import re
from collections import deque
from decimal import Decimal

from autolambda.graders.base import ParsedAnswer, QuickGrader

_MINUS = r"\-\u2212\u2013\uff0d"
# What joins digits, by the mark that it stands for: a comma, an apostrophe, or a space that sets thousands apart.
_COMMA = r",\\!|\{,\}|\{\\[,!]\}|\{,\\!\}|\\mathord\{,\}|\\text\{,\}|\u066c|,"
_APOSTROPHE = "['\u2019]"
_THIN = r"\\[,!;: ]"
_POINT = "[.\u066b\uff0e]"
_JOINT = rf"(?:{_POINT}|{_COMMA}|{_APOSTROPHE}|{_THIN})"
# These join digits only where a group of exactly three follows; the second kind may as well stand between two numbers.
_FIXED_SPACE = "\u00a0\u202f\u2009\u2007"
_LOOSE = rf"[{_FIXED_SPACE} _~\uff0c](?=\d{{3}}(?!\d))"
_RUN = re.compile(rf"\d+(?:(?:{_JOINT}|{_LOOSE})\d+)*(?:[eE][+-]?\d+)?")
_LOOSELY = re.compile(rf"(?<!\\)[{_FIXED_SPACE} _~\uff0c]")
_HEAD = re.compile(r"\d{1,3}|\d+\.\d{3}")  # before a loose group of three: of a whole number, or of decimals
_MARKS = (
    (re.compile(_POINT), "."),
    (re.compile(f"[{_MINUS}]"), "-"),
    (re.compile(_COMMA), ","),
    (re.compile(_APOSTROPHE), "'"),
    (re.compile(f"{_THIN}|[{_FIXED_SPACE}]"), "\u202f"),
)
# The part of a fraction, a power or a root, which is not the number that is meant.
_BEFORE = re.compile(
    r"(?:\d\s?[/\u2044]\s?|\^\s?\{?\s?|\\sqrt\s?(?:\[[^\][]{0,9}\])?\{?\s?|\\[dtc]?frac\s?(?:\d|\{[^{}]{0,40}\})?\s?\{?\s?)[-\u2212]?\Z"
)
_AFTER = re.compile("\\s?[\u00b2\u00b3\u00b9\u2070-\u2079\u00bc-\u00be\u2044\u2150-\u215e]")
# A minus sign directly after a digit, a letter or a closing bracket is an operator.
_LEAD = re.compile(rf"(?:(?<![\w)\]])[{_MINUS}](?:\\?[$\u20ac\u00a3\u00a5\u20b9])?)?(?:(?<![\w.])\.)?\Z")
_NUMBER = re.compile(r"[-+]?(?:(?:\d{1,3}([,'\u202f])\d{3}(?:\1\d{3})*|\d+)(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,2})?")
_LONGEST = 80  # characters


class Number(QuickGrader):
    """The last number is the answer; none if it is malformed or longer than 80 characters."""

    def grade(self, text: str, target: str) -> ParsedAnswer:
        last = deque(_RUN.finditer(text), maxlen=1)
        if not last:
            return ParsedAnswer(None)
        start, run = _last_number(last[0].start(), last[0][0])
        end = last[0].end()
        if _BEFORE.search(text[max(0, start - 60) : start]) or _AFTER.match(text[end : end + 2]):
            return ParsedAnswer(None)
        lead = _LEAD.search(text[max(0, start - 6) : start])
        answer = (re.sub(rf"[^{_MINUS}.]", "", lead[0]) if lead else "") + run
        value = _value(answer)
        return ParsedAnswer(None) if value is None else ParsedAnswer(answer, value == _value(target.strip()))

    def check_target(self, target: str) -> None:
        if _value(target.strip()) is None:
            raise ValueError("it is not a number")

    def canonical(self, target: str) -> str:
        return target


def _last_number(start: int, run: str) -> tuple[int, str]:
    """Returns the start and the text of the last number of a run: all of it if its loose groups are thousands."""
    head, *groups = _LOOSELY.split(run)
    if not groups or _HEAD.fullmatch(head):
        return start, run
    return start + len(run) - len(groups[-1]), groups[-1]


def _value(text: str) -> Decimal | None:
    if len(text) > _LONGEST:
        return None
    for pattern, mark in _MARKS:
        text = pattern.sub(mark, text)
    if not _NUMBER.fullmatch(text):
        return None
    return Decimal(re.sub("[,'\u202f]", "", text))
