"""A user's function as a grader, named ``package.module:function``.

It is called as ``function(text, target)``. It returns whether the text is correct, or ``(answer, correct)``, or
``None`` for a text without an answer. The module is imported as in a script: the current directory comes first.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from autolambda.errors import TaskError, one_line, reason
from autolambda.graders.base import Grader, ParsedAnswer

Function = Callable[[str, str], Any]


def load(name: str) -> Function:
    """Returns the function at a dotted path. Raises ``TaskError``."""
    module_name, attribute = _parts(name)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()  # finds a file that was written a moment ago
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise TaskError(
            f"grader {name!r}: the module {module_name!r} cannot be imported ({reason(error, with_type=True)}); "
            f"it is looked for in {os.getcwd()} and where Python finds packages"
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        callables = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
        nearest = get_close_matches(attribute, callables, n=3) or callables[:5]
        problem = "has no function" if function is None else f"has a {type(function).__name__}, not a function, called"
        hint = f"; it has {', '.join(nearest)}" if nearest else ""
        raise TaskError(f"grader {name!r}: the module {module_name!r} {problem} {attribute!r}{hint}")
    return function  # type: ignore[no-any-return]  # what it returns is checked at each call


def _parts(name: str) -> tuple[str, str]:
    module, _, attribute = name.partition(":") if ":" in name else name.rpartition(".")
    if not all(part.isidentifier() for part in [*module.split("."), attribute]):
        raise TaskError(f"grader {name!r} is not a dotted path; give your function as 'package.module:function'")
    return module, attribute


class Custom(Grader):
    """Grades by a user's function."""

    def __init__(self, function: Function) -> None:
        self._function = function

    def quick(self, text: str, target: str) -> None:
        """Decides nothing: the function may find an answer in an empty text too."""
        return

    def grade(self, text: str, target: str) -> ParsedAnswer:
        """Returns the function's answer. Raises the function's errors, and ``TypeError`` for any other return value."""
        match self._function(text, target):
            case None:
                return ParsedAnswer(None)
            case bool(correct):
                return ParsedAnswer(text.strip() or None, correct)
            case (str() | None as answer, bool(correct)):
                return ParsedAnswer(answer, correct)
            case other:
                raise TypeError(
                    f"it returned {one_line(repr(other))}, not a bool, (answer, bool) with a text or None, or None"
                )
