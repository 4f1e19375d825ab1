"""Number: the last number in the text equals the target as a number (``1,000`` is 1000, ``7.0`` is 7).

What looks like a number and has no one meaning (``3,5``, ``1,00``, ``3.14.15``, hundreds of digits) is no answer.
"""

from __future__ import annotations

import re
from decimal import Decimal

from autolambda.graders.reading import Reading

# A minus sign directly after a digit, a letter or a closing bracket is an operator. Every part of a run is found in one
# pass: no text takes long.
_SIGN = r"(?:(?<![\w)\]])[-\u2212])?"
_RUN = re.compile(rf"{_SIGN}(?:(?<![\w.])\.)?\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?")
_NUMBER = re.compile(r"[-\u2212]?(?:\d{1,3}(?:,\d{3})+|\d*)(?:\.\d+)?(?:[eE][+-]?\d{1,2})?")
_LONGEST = 80  # characters


def read(text: str, target: str) -> Reading:
    """The last number as the answer; none where it is malformed or longer than 80 characters."""
    last = None
    for last in _RUN.finditer(text):
        pass
    value = _value(last[0]) if last else None
    return Reading(None) if last is None or value is None else Reading(last[0], value == _value(target.strip()))


def _value(text: str) -> Decimal | None:
    if len(text) > _LONGEST or not _NUMBER.fullmatch(text):
        return None
    return Decimal(text.replace(",", "").replace("\u2212", "-"))
