"""The grader ``ifeval``: Google's checkers of verifiable instructions, from lm-evaluation-harness (extra ``ifeval``).

The target is JSON with the row's ``key``, ``prompt``, ``instruction_id_list`` and ``kwargs``. A text is correct if it
follows every instruction (prompt-level strict). The answer is JSON with all four scores. Nothing is downloaded: if
something is missing, ``check`` raises an error with the command that installs it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from autolambda.errors import TaskError
from autolambda.graders.base import Grader, ParsedAnswer

CORRECT = "prompt_level_strict_acc"
NAMES = (CORRECT, "inst_level_strict_acc", "prompt_level_loose_acc", "inst_level_loose_acc")
INSTRUCTIONS = frozenset(
    {
        "change_case:capital_word_frequency",
        "change_case:english_capital",
        "change_case:english_lowercase",
        "combination:repeat_prompt",
        "combination:two_responses",
        "detectable_content:number_placeholders",
        "detectable_content:postscript",
        "detectable_format:constrained_response",
        "detectable_format:json_format",
        "detectable_format:multiple_sections",
        "detectable_format:number_bullet_lists",
        "detectable_format:number_highlighted_sections",
        "detectable_format:title",
        "keywords:existence",
        "keywords:forbidden_words",
        "keywords:frequency",
        "keywords:letter_frequency",
        "language:response_language",
        "length_constraints:nth_paragraph_first_word",
        "length_constraints:number_paragraphs",
        "length_constraints:number_sentences",
        "length_constraints:number_words",
        "punctuation:no_comma",
        "startend:end_checker",
        "startend:quotation",
    }
)
_PACKAGES = ("lm_eval", "langdetect", "immutabledict", "nltk")


def check() -> None:
    """Raises ``TaskError`` if a package or nltk's data is missing. Needs no network."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise TaskError(f"IFEval needs the packages {', '.join(missing)}; run: pip install 'autolambda[ifeval]'")
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab/english")
    except LookupError:
        raise TaskError(
            "IFEval needs nltk's sentence splitter punkt_tab, which is in none of nltk's folders; run: python -m "
            "nltk.downloader punkt_tab (without a network: copy tokenizers/punkt_tab and point NLTK_DATA at its parent)"
        ) from None


@lru_cache(maxsize=1)
def _checkers() -> Any:
    check()  # first: the import below starts a download if punkt_tab is missing
    import langdetect
    from lm_eval.tasks.ifeval import utils

    langdetect.DetectorFactory.seed = 0  # otherwise the language found in a text varies from call to call
    return utils


class IFEval(Grader):
    """The four scores are the answer."""

    def grade(self, text: str, target: str) -> ParsedAnswer:
        if not text.strip():
            return ParsedAnswer(None)
        row, state = json.loads(target), random.getstate()
        random.seed(0)  # a checker draws an argument that its row leaves out
        try:
            scores: dict[str, Any] = _checkers().process_results(row, [text])
        finally:
            random.setstate(state)
        return ParsedAnswer(json.dumps(scores, separators=(",", ":")), bool(scores[CORRECT]))

    def check_target(self, target: str) -> None:
        """Raises ``ValueError`` if the row is incomplete or names an instruction that is not one of the 25."""
        try:
            row = json.loads(target)
        except ValueError as error:
            raise ValueError("it is not JSON") from error
        if not isinstance(row, dict) or not {"key", "prompt", "instruction_id_list", "kwargs"} <= row.keys():
            raise ValueError("it lacks one of key, prompt, instruction_id_list and kwargs")
        ids, arguments = row["instruction_id_list"], row["kwargs"]
        if not isinstance(ids, list) or not isinstance(arguments, list) or not ids or len(ids) != len(arguments):
            raise ValueError("instruction_id_list and kwargs are not two lists of one length, at least 1")
        if unknown := sorted(str(each) for each in ids if each not in INSTRUCTIONS):
            raise ValueError(f"unknown instructions: {', '.join(unknown)}")
        if not all(isinstance(each, dict) for each in arguments):
            raise ValueError("kwargs holds something other than a mapping per instruction")

    def preload(self, target: str | None) -> None:
        _checkers()


def scores(answers: Iterable[str]) -> Mapping[str, float]:
    """Returns the four scores over graded answers, as shares of prompts and of instructions; empty without answers."""
    rows = [json.loads(answer) for answer in answers]
    shares: dict[str, float] = {}
    for name in NAMES:
        values = [value for row in rows for value in (row[name] if isinstance(row[name], list) else [row[name]])]
        if values:
            shares[name] = sum(values) / len(values)
    return shares
