"""A task from the user's own file: JSONL, CSV or Parquet with a question and an answer in each row.

The rows are shuffled by a seed and cut in two, so that the search and the confirmation never share a prompt.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas

from autolambda.errors import TaskError
from autolambda.responses import Sample
from autolambda.tasks.base import Phase

READERS: dict[str, Callable[..., pandas.DataFrame]] = {".csv": pandas.read_csv, ".parquet": pandas.read_parquet}


class FileTask:
    """Samples of one file; the row's number (from 1) is a sample's id unless the file has an ``id`` column."""

    def __init__(self, path: Path, *, question: str, answer: str, grader: str, confirm_share: float, seed: int) -> None:
        """Reads and checks the whole file. Raises ``TaskError`` with the row and what is wrong with it."""
        self.name = path.stem
        self.grader = grader
        samples = [_sample(row, at, path, question=question, answer=answer) for at, row in _rows(path)]
        if len(samples) < 2:
            raise TaskError(f"{path}: {len(samples)} rows; at least 2 are needed, to search and to confirm on others")
        _check_distinct(samples, path)
        random.Random(seed).shuffle(samples)
        num_confirm = min(max(round(len(samples) * confirm_share), 1), len(samples) - 1)
        self._slices = {"confirm": samples[:num_confirm], "search": samples[num_confirm:]}

    def samples(self, phase: Phase) -> Sequence[Sample]:
        return self._slices[phase]


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Each row with its place in the file, for messages."""
    if not path.is_file():
        raise TaskError(f"task file '{path}' does not exist")
    try:
        if path.suffix in (".jsonl", ".json"):
            yield from _json_rows(path)
        elif path.suffix in READERS:
            frame = READERS[path.suffix](path, **({"dtype": str} if path.suffix == ".csv" else {}))
            for i, row in enumerate(frame.to_dict("records"), start=1):
                yield f"row {i}", {str(key): value for key, value in row.items()}
        else:
            raise TaskError(f"task file '{path}': its ending must be .jsonl, .csv or .parquet")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise TaskError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error


def _json_rows(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    for i, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise TaskError(f"{path}, line {i}: not JSON ({error.msg}); each line must be one JSON object") from error
        if not isinstance(row, dict):
            raise TaskError(f"{path}, line {i}: expected a JSON object, seen {line.strip()[:60]!r}")
        yield f"line {i}", row


def _sample(row: Mapping[str, object], at: str, path: Path, *, question: str, answer: str) -> Sample:
    for column, key in ((question, "question"), (answer, "answer")):
        if column not in row:
            raise TaskError(
                f"{path}, {at}: no column '{column}'; it has {', '.join(map(str, row)) or 'none'}. "
                f"Name yours with tasks.0.{key}"
            )
        value = row[column]
        if not isinstance(value, str | int | float) or isinstance(value, bool) or value != value:  # NaN: an empty cell
            raise TaskError(f"{path}, {at}: '{column}' must be a text or a number, seen {value!r}")
    text = str(row[question])
    if not text.strip():
        raise TaskError(f"{path}, {at}: '{question}' is empty")
    return Sample(str(row.get("id", at.rpartition(" ")[2])), ({"role": "user", "content": text},), str(row[answer]))


def _check_distinct(samples: Sequence[Sample], path: Path) -> None:
    """The same id or the same prompt twice would let the search see what the confirmation asks."""
    seen: dict[tuple[str, str], str] = {}
    for sample in samples:
        for kind, value in (("id", sample.id), ("prompt", sample.messages[0]["content"])):
            if (first := seen.setdefault((kind, value), sample.id)) is not sample.id:
                raise TaskError(
                    f"{path}: the {kind} {value[:60]!r} stands twice (ids {first!r} and {sample.id!r}); remove one"
                )
