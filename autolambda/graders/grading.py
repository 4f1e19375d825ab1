"""Graders: the text of a response and the target -> what was read and whether it is right. One file a grader.

The answer is read after the last closing think tag; text without the tag is graded whole. A grader reads nothing
(``answer`` is ``None``) rather than guess. Targets are strings; a grader that needs more takes JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache

from autolambda.errors import TaskError
from autolambda.graders import choice, custom, ifeval, lm_eval, math, number, regex, text
from autolambda.graders.base import ParsedAnswer, glance
from autolambda.responses import Grade, Response

Read = Callable[[str, str], ParsedAnswer]


def _no_check(target: str) -> None: ...


def _no_ideal(target: str) -> str | None:
    return None


def _is_ready(target: str | None) -> None: ...


@dataclass(frozen=True)
class Grader:
    """A way to grade.

    ``read`` takes a text and a target. It may be slow, hang or die on what a model wrote, and then runs in a process of
    its own; ``glance`` tells at once what can be told safely, ``None`` where it takes a ``read``. ``check`` raises
    ``ValueError`` for a target that could never be met, as far as that can be told at once. ``ideal`` is a text that
    should be graded correct, if one can be made up. ``ready`` loads what ``read`` needs, for one target or at all
    (``None``): that is not part of the time a text may take. ``essence`` is the part of a text that ``read`` goes by,
    so that texts with the same one need to be read once; ``None``: it goes by the whole text.
    """

    read: Read
    glance: Callable[[str, str], ParsedAnswer | None]
    check: Callable[[str], None] = _no_check
    ideal: Callable[[str], str | None] = _no_ideal
    ready: Callable[[str | None], None] = _is_ready
    essence: Callable[[str], str] | None = None

    @property
    def is_quick(self) -> bool:
        """Whether a glance is all there is, so that no process is needed."""
        return self.read is self.glance


def _same(target: str) -> str:
    return target


def _never(text: str, target: str) -> ParsedAnswer | None:
    return None


GRADERS: Mapping[str, Grader] = {
    "exact": Grader(text.exact, text.exact, check=text.check, ideal=_same),
    "number": Grader(number.read, number.read, check=number.check, ideal=_same),
    "contains": Grader(text.contains, text.contains, check=text.check, ideal=_same),
    "math": Grader(math.read, math.glance, check=math.check, ideal=math.ideal, ready=math.ready, essence=math.essence),
    "choice": Grader(choice.read, choice.read, check=choice.check, ideal=choice.ideal),
    "regex": Grader(regex.read, glance, check=regex.check),
    "ifeval": Grader(ifeval.read, glance, check=ifeval.check_target, ready=ifeval.ready),
    "lm_eval": Grader(lm_eval.read, glance, check=lm_eval.check, ready=lm_eval.ready),
}


def is_own(name: str) -> bool:
    """Whether a name is that of a user's own grader, as far as its form tells."""
    return name not in GRADERS and (":" in name or "." in name)


@cache
def find_grader(name: str) -> Grader:
    """The grader of that name, or the user's own at a dotted path. Raises ``TaskError``."""
    if name in GRADERS:
        return GRADERS[name]
    if is_own(name):
        return Grader(custom.reader(custom.load(name), name=name), _never)
    nearest = get_close_matches(name, GRADERS, n=3)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"known: {', '.join(GRADERS)};"
    raise TaskError(f"unknown grader {name!r}; {hint} A grader of your own is given as 'package.module:function'")


def check_target(name: str, target: str) -> None:
    """Raises ``ValueError`` with the reason where a grader could never find the target met.

    It answers at once; what only a full read can tell is told by grading ``self_answer``.
    """
    find_grader(name).check(target)


def self_answer(name: str, target: str) -> str | None:
    """A text that the grader should call correct for the target; ``None`` where none can be made up."""
    return find_grader(name).ideal(target)


@dataclass(frozen=True)
class Mark:
    """A grade with the answer that it was given for."""

    grade: Grade
    answer: str | None


def answer_part(response: Response, *, think_end: str) -> str:
    """What a grader reads of a response: the text after the last closing think tag."""
    return response.text.rpartition(think_end)[2]


def mark_of(reading: ParsedAnswer, response: Response) -> Mark:
    """The grade of a response: a cut one is ``truncated`` whatever it holds, one without an answer ``unparsed``."""
    if response.finish_reason == "length":
        return Mark(Grade.TRUNCATED, reading.answer)
    if reading.answer is None:
        return Mark(Grade.UNPARSED, None)
    return Mark(Grade.CORRECT if reading.correct else Grade.WRONG, reading.answer)


def grade(response: Response, target: str, *, grader: Grader, think_end: str) -> Mark:
    """The grade of a response by ``read`` itself, in this process."""
    return mark_of(grader.read(answer_part(response, think_end=think_end), target), response)
