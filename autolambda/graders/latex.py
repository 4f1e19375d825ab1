"""LaTeX, parsed and compared as mathematics by the library math-verify.

The library parses with ANTLR. Here ANTLR tries its fast strategy (SLL) first, and its full one (LL) if the fast one
fails. This parses sets and intervals 8 times faster. LL gives an equal tree for every text that SLL accepts (Parr,
Harwell and Fisher, Adaptive LL(*) Parsing, 2014); a test compares the two. The library's time limits are off, because
they work in a main thread only. The grading process has a time limit instead.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=1)
def _library() -> Any:
    import math_verify
    from latex2sympy2_extended import latex2sympy2

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its time limits are off
    latex2sympy2._Latex2Sympy = two_stage(latex2sympy2._Latex2Sympy)
    return math_verify


def two_stage(converter: Any) -> Any:
    """Returns the library's converter class, changed to try SLL mode first."""
    from antlr4.atn.PredictionMode import PredictionMode

    class TwoStage(converter):  # type: ignore[misc]  # the library has no types
        mode = PredictionMode.SLL

        def create_parser(self, latex: str) -> Any:
            parser = super().create_parser(latex)
            parser._interp.predictionMode = self.mode
            return parser

        def parse(self, latex: str) -> Any:
            try:
                return super().parse(latex)
            except Exception:  # the library raises Exception itself for a syntax error
                self.mode = PredictionMode.LL
                return super().parse(latex)

    return TwoStage


def parse(latex: str) -> list[Any]:
    """Returns the library's candidates for an answer: an expression, if it can parse one, and the text."""
    library = _library()
    config = library.LatexExtractionConfig(boxed_match_priority=0)
    parsed: list[Any] = library.parse(f"\\boxed{{{latex}}}", [config], parsing_timeout=None)
    return parsed


@lru_cache(maxsize=4096)
def _target(latex: str) -> list[Any]:
    return parse(latex)


def is_equal(answer: str, target: str) -> bool:
    """Returns whether they are equal. The order matters: ``x=5`` answers 5, but ``y=5`` does not answer ``x=5``."""
    return bool(_library().verify(_target(target), parse(answer), timeout_seconds=None))


@lru_cache(maxsize=1)
def preload() -> None:
    """Loads the library and builds its patterns."""
    if not is_equal("1/2", "\\frac12"):
        raise RuntimeError("math-verify does not parse 1/2 as a fraction")
