"""Looks at a task file: the columns of its questions and answers, and the grader that its answers suit.

What cannot be found is a question to the user, which the project file asks in a comment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autolambda.errors import TaskError
from autolambda.graders.grading import likely_grader
from autolambda.tasks.config import SourceConfig, source_in_short
from autolambda.tasks.items import open_pool
from autolambda.tasks.recognition import recognised
from autolambda.tasks.rows import Row
from autolambda.tasks.sources import read_path

_NAMES: Mapping[str, tuple[str, ...]] = {
    "question": ("question", "prompt", "problem", "query", "input", "instruction", "text", "task"),
    "answer": (
        "answer", "final_answer", "target", "solution", "label", "output", "expected", "expected_answer",
        "ground_truth", "reference", "gold", "response", "correct_answer", "result",
    ),
}  # fmt: skip
"""Usual names of the two columns, in any letter case."""

_GRADED = {
    "number": "the last number of a response is compared",
    "choice": "a response must state a letter, as in 'ANSWER: C'",
    "math": "the \\boxed{} of a response is compared",
    "exact": "all after the thinking must equal it; contains is laxer",
}


@dataclass(frozen=True)
class FoundTask:
    """A task as the project file names it. ``keys`` are its config keys, ``why`` says of a key how it was found.

    ``asked`` holds the keys that the user has to give, each with what to put there.
    """

    keys: dict[str, object]
    why: dict[str, str] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)
    num_rows: int | None = None


def look_at_task(text: str, *, grader: str | None) -> FoundTask:
    """Returns what a task file holds; a benchmark or a hub id is taken as it is. Raises ``TaskError``."""
    keys: dict[str, object] = dict(source_in_short(text))
    given = {} if grader is None else {"grader": grader}
    if set(keys) != {"path"}:
        return FoundTask(keys | given)
    path = Path(text)
    if not path.exists():
        raise TaskError(f"task file '{text}' does not exist")
    rows = read_path(path)
    readable = [row for row in rows if not row.problem]
    if not readable:
        raise TaskError(f"{text}: no row can be read; give one JSON object a line, or a table with named columns")
    if _are_of_gsm8k(readable):
        why = {"name": "the answers are solutions that end with '#### NUMBER', as in GSM8K"}
        return FoundTask({"name": "gsm8k", "path": text}, why, num_rows=len(rows))
    columns = list(dict.fromkeys(column for row in readable for column in row.cells))
    found = _with_columns(SourceConfig(path=text, grader=grader), readable, columns)
    return _with_grader(found, grader, len(rows))


def _are_of_gsm8k(rows: Sequence[Row]) -> bool:
    answers = [row.cells.get("answer") for row in rows]
    marked = sum(isinstance(each, str) and "#### " in each for each in answers)
    return all("question" in row.cells for row in rows) and 2 * marked > len(rows)


def _with_columns(source: SourceConfig, rows: Sequence[Row], columns: Sequence[str]) -> FoundTask:
    """Returns the columns of the questions and the answers: as the usual forms have them, else by their names."""
    known, _ = recognised(source, rows, columns)
    keys: dict[str, object] = {"path": source.path}
    why, asked = dict[str, str](), dict[str, str]()
    for key in ("messages", "choices"):
        if (column := getattr(known, key)) is not None:
            keys[key], why[key] = column, "the chat of a row" if key == "messages" else "the options of a row"
    if known.answer not in columns and known.messages is not None:
        return FoundTask(keys, why | {"messages": "a chat; its last turn, the assistant's, is the answer"})
    for key in ("question", "answer"):
        if key == "question" and known.messages is not None:
            continue
        column = _column(getattr(known, key), key, rows, columns, taken=[str(each) for each in keys.values()])
        if column is None:
            asked[key] = f"which column holds the {key}? There are {', '.join(columns)}"
        else:
            keys[key] = column
    return FoundTask(keys, why, asked)


def _column(now: str, key: str, rows: Sequence[Row], columns: Sequence[str], *, taken: Sequence[str]) -> str | None:
    """Returns the column of a key: the one it has if the rows hold it, else one of a usual name."""
    if now in columns or "," in now or all(row.has(now) for row in rows[:50]):
        return now
    plain = {column.casefold(): column for column in columns if column not in taken}
    return next((plain[name] for name in _NAMES[key] if name in plain), None)


def _with_grader(found: FoundTask, grader: str | None, num_rows: int) -> FoundTask:
    """Returns the task with the grader that its answers suit, unless one is given or the columns are not known."""
    keys, why = dict(found.keys), dict(found.why)
    if grader is not None:
        keys["grader"] = grader
    elif "choices" in keys:
        keys["grader"], why["grader"] = "choice", "a response states the letter of an option"
    elif not found.asked:
        lax = SourceConfig.model_validate(keys | {"grader": "contains", "max_unusable": 0.99})
        targets = [item.sample.target for item in open_pool(lax).items]
        keys["grader"] = likely_grader(targets)
        why["grader"] = _GRADED[str(keys["grader"])]
    return FoundTask(keys, why, found.asked, num_rows)
