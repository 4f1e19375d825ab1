"""The grader ``math``: the last balanced ``\\boxed{...}`` equals the target as mathematics, by the library math-verify.

Without a box there is no answer, because the last number of a trace could be right by luck. A box with more than 1,000
characters or 20 levels of brackets is no answer either: parsers break on it. Only the last 65,536 characters are
searched. Of a target that is a solution with a box, the last box counts. The table in tests/graders/test_math.py shows
which spellings are equal.
"""

from __future__ import annotations

import re
from fractions import Fraction

from autolambda.graders import latex
from autolambda.graders.base import Grader, ParsedAnswer, refuse_solution

_TAIL = 65_536  # characters
_LONGEST = 1_000  # characters of a box
_DEEPEST = 20
_TOKEN = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s{0,20}(?:\{|[^\s{}$\\]+)|\\.|[{}]", re.DOTALL)
# Thousands: 1,234 and 1{,}234 and 1\,234 and 1,\!234, and spaces that do not break a line.
_INTEGER = re.compile(r"([+-]?)(\d{1,3}(?:(?:,|\{,\}|,\\!|\\,|\\!)\d{3})+|\d+)")
_SEPARATOR = re.compile(r"(?<=\d)(?:\{,\}|,\\!|\\[,!]|[\u00a0\u202f\u2009])(?=\d{3}(?!\d))")
_NOT_DIGIT = re.compile(r"\D+", re.ASCII)
_SPELLINGS = (
    (re.compile(r"\\(?:left|right)(?![A-Za-z])"), ""),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\frac\s{0,3}(\d)\s{0,3}(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"(?:\\[,;:! ]|~|\s)+"), " "),
    # A space ends a command and separates numbers: 1, 234 is two numbers.
    (re.compile(r"(?<![A-Za-z0-9,]) | (?![A-Za-z0-9])"), ""),
)
_RATIONAL = re.compile(
    r"(-?)(?:(\d{1,30}(?:\.\d{1,30})?|\.\d{1,30})|\\frac\{(-?\d{1,30})\}\{(\d{1,30})\}|(\d{1,30})/(\d{1,30}))", re.ASCII
)
_CLOSE = Fraction(1, 10_000)  # math-verify rounds to 6 decimals; values this close are left to it


def boxed(text: str) -> str | None:
    """Returns the content of the balanced box that closes last, or of a bare ``\\boxed 5``; ``None`` without a box."""
    text = text[-_TAIL:]
    if "\\boxed" not in text and "\\fbox" not in text:
        return None
    box, opened = None, list[int | None]()
    for token in _TOKEN.finditer(text):
        word = token[0]
        if word == "}":
            start = opened.pop() if opened else None
            if start is not None:
                box = text[start : token.start()]
        elif word == "{":
            opened.append(None)
        elif word[-1] == "{" and len(word) > 2:
            opened.append(token.end())
        elif len(word) > 2:
            box = re.sub(r"\\(?:boxed|fbox)\s*", "", word).rstrip(".,;:*")
    return box


class Math(Grader):
    """The content of the last box is the answer."""

    def quick(self, text: str, target: str) -> ParsedAnswer | None:
        """Decides the cases without a parser: no usable box, one expression in two spellings, or two plain numbers."""
        answer = boxed(text)
        if answer is None or not answer.strip() or len(answer) > _LONGEST or _depth(answer) > _DEEPEST:
            return ParsedAnswer(None)
        answer = answer.strip()
        one, other = _plain(answer), _plain(_final(target))
        whole, wanted = _integer(one), _integer(other)
        if whole is not None and wanted is not None:
            return ParsedAnswer(answer, whole == wanted)
        one, other = _spelling(one), _spelling(other)
        if one == other:
            return ParsedAnswer(answer, True)
        value, target_value = _rational(one), _rational(other)
        if value is None or target_value is None or 0 < abs(value - target_value) < _CLOSE:
            return None
        return ParsedAnswer(answer, value == target_value)

    def grade(self, text: str, target: str) -> ParsedAnswer:
        parsed = self.quick(text, target)
        if parsed is not None:
            return parsed
        answer = (boxed(text) or "").strip()
        return ParsedAnswer(answer, latex.is_equal(_plain(answer), _plain(_final(target))))

    def check_target(self, target: str) -> None:
        if not target.strip():
            raise ValueError("it is empty")
        refuse_solution(target)
        target = _final(target)
        if len(target) > _LONGEST or _depth(target) > _DEEPEST:
            raise ValueError(f"it is longer than {_LONGEST} characters or nested deeper than {_DEEPEST} brackets")
        if boxed(self.canonical(target)) != target:
            raise ValueError("its braces are not balanced")

    def canonical(self, target: str) -> str:
        return f"\\boxed{{{_final(target)}}}"

    def preload(self, target: str | None) -> None:
        latex.preload()

    def cache_key(self, text: str) -> str:
        """Returns only the box of the text."""
        return f"\\boxed{{{boxed(text)}}}"


def _final(target: str) -> str:
    """Returns the last box of a target that is a solution, else the target."""
    return boxed(target) or target


def _plain(text: str) -> str:
    """Returns the text without dollar signs, LaTeX thousands separators and full stop, with ASCII minus signs."""
    text = text.strip().rstrip(".").strip().strip("$").strip().replace("\u2212", "-")
    return _SEPARATOR.sub("", text)


def _integer(text: str) -> str | None:
    """Returns the canonical digits of a whole number as text, since thousands of digits are slow to convert."""
    whole = _INTEGER.fullmatch(text)
    if not whole or not text.isascii():
        return None
    digits = _NOT_DIGIT.sub("", whole[2]).lstrip("0") or "0"
    return f"-{digits}" if whole[1] == "-" and digits != "0" else digits


def _spelling(text: str) -> str:
    """Returns the text with one spelling of fractions, sized brackets and spaces."""
    for pattern, spelling in _SPELLINGS:
        text = pattern.sub(spelling, text)
    return text


def _rational(text: str) -> Fraction | None:
    """Returns the value of a plain decimal or fraction."""
    match = _RATIONAL.fullmatch(text)
    if not match:
        return None
    sign, decimal, *parts = match.groups()
    over, under = parts[:2] if parts[0] else parts[2:]
    if decimal is None and not int(under):
        return None
    value = Fraction(decimal) if decimal else Fraction(int(over), int(under))
    return -value if sign else value


def _depth(text: str) -> int:
    """Returns the greatest number of brackets that are open at once."""
    depth = deepest = 0
    for letter in text:
        if letter in "{([":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in "})]":
            depth = max(0, depth - 1)
    return deepest
