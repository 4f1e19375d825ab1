"""A task from the user's own file: JSONL, CSV or Parquet with a question and an answer in each row.

The rows are shuffled by a seed and cut in two, so that the search and the confirmation never share a prompt.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from autolambda.errors import TaskError
from autolambda.graders import GRADERS
from autolambda.responses import Sample
from autolambda.tasks.base import Phase

Row = Mapping[str, object]


class FileTask:
    """Samples of one file; the line or row (from 1) is a sample's id unless the file has an ``id`` column."""

    def __init__(self, path: Path, *, question: str, answer: str, grader: str, confirm_share: float, seed: int) -> None:
        """Reads and checks the whole file. Raises ``TaskError`` with the row and what is wrong with it."""
        self.name = path.stem
        self.grader = grader
        rows = [(at, _sample(row, at, path, question=question, answer=answer)) for at, row in _rows(path)]
        if len(rows) < 2:
            raise TaskError(f"{path}: {len(rows)} rows; at least 2 are needed, to search and to confirm on others")
        _check_distinct(rows, path)
        _check_targets(rows, path, grader)
        samples = [sample for _, sample in rows]
        random.Random(seed).shuffle(samples)
        num_confirm = min(max(round(len(samples) * confirm_share), 1), len(samples) - 1)
        self._slices = {"confirm": samples[:num_confirm], "search": samples[num_confirm:]}

    def samples(self, phase: Phase) -> Sequence[Sample]:
        return self._slices[phase]


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Each row with its place in the file, for messages."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise TaskError(f"task file '{path}': its ending must be .jsonl, .csv or .parquet")
    try:
        yield from reader(path)
    except FileNotFoundError as error:
        raise TaskError(f"task file '{path}' does not exist") from error
    except (OSError, ValueError, RecursionError, csv.Error) as error:  # pyarrow's and Unicode's errors are ValueErrors
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise TaskError(f"{path}: cannot be read: {reason}") from error


def _json_rows(path: Path) -> Iterator[tuple[str, Row]]:
    with path.open(encoding="utf-8-sig") as file:  # str.splitlines would also cut at U+2028, which JSON allows in texts
        for i, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise TaskError(f"{path}, line {i}: not JSON ({error.msg}); each line is one JSON object") from error
            if not isinstance(row, dict):
                raise TaskError(f"{path}, line {i}: expected a JSON object, seen {line.strip()[:60]!r}")
            yield f"line {i}", row


def _csv_rows(path: Path) -> Iterator[tuple[str, Row]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        for row in reader:
            at = f"line {reader.line_num}"
            if None in row:
                raise TaskError(f"{path}, {at}: more fields than the header has; put a text with commas in quotes")
            yield at, row


def _parquet_rows(path: Path) -> Iterator[tuple[str, Row]]:
    import pandas

    with path.open("rb") as file:
        frame = pandas.read_parquet(file)
    for i, row in enumerate(frame.to_dict("records"), start=1):
        yield f"row {i}", {str(key): value for key, value in row.items()}


READERS: Mapping[str, Callable[[Path], Iterator[tuple[str, Row]]]] = {
    ".jsonl": _json_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}


def _sample(row: Row, at: str, path: Path, *, question: str, answer: str) -> Sample:
    for column, key in ((question, "question"), (answer, "answer")):
        if column not in row:
            raise TaskError(
                f"{path}, {at}: no column {column!r}; it has {', '.join(map(repr, row)) or 'none'}. "
                f"Name yours with the task's key '{key}' (--set tasks.0.{key}=COLUMN)"
            )
    texts = {column: _text(row[column], f"{path}, {at}: {column!r}") for column in (question, answer)}
    if not texts[question].strip():
        raise TaskError(f"{path}, {at}: {question!r} is empty")
    sample_id = _text(row["id"], f"{path}, {at}: 'id'") if "id" in row else at.rpartition(" ")[2]
    return Sample(sample_id, ({"role": "user", "content": texts[question]},), texts[answer])


def _text(value: object, where: str) -> str:
    """A cell as text. Raises ``TaskError`` for anything but a text or a number: an empty cell is None or NaN."""
    if not isinstance(value, str | int | float) or isinstance(value, bool) or value != value:
        raise TaskError(f"{where} must be a text or a number, seen {str(value)[:60]!r}")
    text = str(value)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise TaskError(f"{where} holds half of a UTF-16 pair (\\ud800 to \\udfff), which no tokenizer takes")
    return text


def _check_distinct(rows: Sequence[tuple[str, Sample]], path: Path) -> None:
    """The same id or the same prompt twice would let the search see what the confirmation asks."""
    seen: dict[tuple[str, str], str] = {}
    for at, sample in rows:
        prompt = " ".join(sample.messages[0]["content"].split())
        for kind, value in (("id", sample.id), ("prompt", prompt)):
            if first := seen.get((kind, value)):
                raise TaskError(f"{path}: the {kind} {value[:60]!r} stands twice ({first} and {at}); remove one")
            seen[kind, value] = at


def _check_targets(rows: Sequence[tuple[str, Sample]], path: Path, grader: str) -> None:
    """A target that its own grader would not accept could never be met."""
    for at, sample in rows:
        if not GRADERS[grader].read(sample.target, sample.target).correct:
            raise TaskError(
                f"{path}, {at}: grader '{grader}' cannot compare with the answer {sample.target[:60]!r}; "
                f"correct it, or take another grader ({', '.join(GRADERS)})"
            )
