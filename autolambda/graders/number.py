"""Number: the last number in the text equals the target as a number (``1,000`` is 1000, ``7.0`` is 7)."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from autolambda.graders.reading import Reading

# a minus sign directly after a digit or a closing bracket is an operator, not a sign; digits are bounded so that no
# text can make a number that takes long to compare
_NUMBER = re.compile(
    r"(?<![\d.,])(?:(?<![\w)\]])-)?\d{1,3}(?:,\d{3}){1,12}(?:\.\d{1,40})?(?![\d])"
    r"|(?<![\d.,])(?:(?<![\w)\]])-)?\d{1,40}(?:\.\d{1,40})?(?![\d])"
)


def read(text: str, target: str) -> Reading:
    """The last number of up to 40 digits as the answer."""
    found = _NUMBER.findall(text)
    if not found:
        return Reading(None)
    return Reading(found[-1], _value(found[-1]) == _value(target))


def _value(text: str) -> Decimal | str:
    """The number, or the text itself where it is none (it then equals no number)."""
    try:
        return Decimal(text.strip().replace(",", ""))
    except InvalidOperation:
        return text
