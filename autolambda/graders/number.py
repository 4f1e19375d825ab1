"""The grader ``number``: the last number in the text equals the target as a number (``1,000`` is 1000, ``7.0`` is 7).

A number that can be read in two ways or is malformed (``3,5``, ``1,00``, ``3.14.15``, hundreds of digits) is no answer.
"""

from __future__ import annotations

import re
from collections import deque
from decimal import Decimal

from autolambda.graders.base import ParsedAnswer, QuickGrader

_RUN = re.compile(r"\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?")
# A minus sign directly after a digit, a letter or a closing bracket is an operator.
_LEAD = re.compile(r"(?:(?<![\w)\]])[-\u2212])?(?:(?<![\w.])\.)?\Z")
_NUMBER = re.compile(r"[-+\u2212]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,2})?")
_LONGEST = 80  # characters


class Number(QuickGrader):
    """The last number is the answer; none if it is malformed or longer than 80 characters."""

    def grade(self, text: str, target: str) -> ParsedAnswer:
        last = deque(_RUN.finditer(text), maxlen=1)
        if not last:
            return ParsedAnswer(None)
        lead = _LEAD.search(text[max(0, last[0].start() - 3) : last[0].start()])
        answer = (lead[0] if lead else "") + last[0][0]
        value = _value(answer)
        return ParsedAnswer(None) if value is None else ParsedAnswer(answer, value == _value(target.strip()))

    def check_target(self, target: str) -> None:
        if _value(target.strip()) is None:
            raise ValueError("it is not a number")

    def canonical(self, target: str) -> str:
        return target


def _value(text: str) -> Decimal | None:
    if len(text) > _LONGEST or not _NUMBER.fullmatch(text):
        return None
    return Decimal(text.replace(",", "").replace("\u2212", "-"))
