"""Rows of a user's file or a benchmark, each with its place for messages.

Cells hold the file's values. Nothing is guessed: an empty cell or one of the wrong type is an error with its place.
JSON Lines, CSV and Parquet are read here; ``sources`` reads folders and the hub.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from autolambda.errors import TaskError, in_short, one_line, reason
from autolambda.files import load_json, open_bytes, open_text

LONGEST_ID = 256  # characters, the width of the database's column
MOST_CHARACTERS = 16_000_000  # of a cell: four times the text of a million tokens
MOST_BYTES = 4 << 30  # of all rows of a Parquet file


@dataclass(frozen=True)
class Row:
    """One row: its cells by column, its source (a file, a hub dataset) and its place there (``line 3``)."""

    cells: Mapping[str, object]
    source: str
    place: str

    @property
    def where(self) -> str:
        """The row's source and place, for messages."""
        return f"{self.source}, {self.place}"

    @property
    def id(self) -> str:
        """The ``id`` column, else the number of the row or line (from 1)."""
        if "id" not in self.cells:
            return self.place.rpartition(" ")[2]
        text = self.text("id")
        if len(text) > LONGEST_ID or "\0" in text:
            raise TaskError(f"{self.where}: 'id' has at most {LONGEST_ID} characters and no \\0, seen {in_short(text)}")
        return text

    def cell(self, column: str, *, key: str | None = None) -> object:
        """Returns a cell. Raises ``TaskError`` if it is missing. ``key`` is the config key that names the column."""
        if column not in self.cells:
            hint = f". Name yours with the task's key '{key}' (tasks.0.{key}=COLUMN)" if key else ""
            has = one_line(", ".join(map(repr, self.cells))) or "none"
            raise TaskError(f"{self.where}: no column {column!r}; it has {has}{hint}")
        return self.cells[column]

    def text(self, column: str, *, key: str | None = None) -> str:
        """Returns a cell as text. Raises ``TaskError`` for anything but a text or a number."""
        return as_text(self.cell(column, key=key), f"{self.where}: {column!r}")

    def filled(self, column: str, *, key: str | None = None) -> str:
        """Returns a cell as text that is not only white space. Raises ``TaskError``."""
        text = self.text(column, key=key)
        if not text.strip():
            raise TaskError(f"{self.where}: {column!r} is empty")
        return text

    def items(self, column: str, *, key: str | None = None) -> list[object]:
        """Returns a cell that holds a list, or a list written as JSON, as in CSV. Raises ``TaskError``."""
        cell = self.cell(column, key=key)
        if isinstance(cell, str):
            with suppress(ValueError):  # not JSON: refused below, as any cell without a list
                cell = load_json(cell)
        if not isinstance(cell, list | tuple) or not cell:
            raise TaskError(f"{self.where}: {column!r} must be a list with something in it, seen {in_short(cell)}")
        return list(cell)


def as_text(value: object, where: str) -> str:
    """Returns a value as text. Raises ``TaskError`` for anything but a text or a number (NaN is an empty cell)."""
    if not isinstance(value, str | int | float) or isinstance(value, bool) or value != value:
        raise TaskError(f"{where} must be a text or a number, seen {in_short(value)}")
    text = str(value)
    if len(text) > MOST_CHARACTERS:
        raise TaskError(f"{where} has {len(text):,} characters; at most {MOST_CHARACTERS:,} are read")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise TaskError(f"{where} holds half of a UTF-16 pair (\\ud800 to \\udfff), which no tokenizer takes")
    return text


def read_file(path: Path) -> list[Row]:
    """Returns the rows of a file, read by its ending. Raises ``TaskError``."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise TaskError(f"task file '{path}': its ending must be .jsonl, .csv or .parquet, or it must be a folder")
    try:
        return [Row(cells, str(path), place) for place, cells in reader(path)]
    except FileNotFoundError as error:
        raise TaskError(f"task file '{path}' does not exist") from error
    except (OSError, ValueError, RecursionError, csv.Error) as error:  # pyarrow's and Unicode's errors are ValueErrors
        raise TaskError(f"{path}: cannot be read: {reason(error)}") from error


def numbered(cells: Iterable[Mapping[str, object]], source: str) -> list[Row]:
    """Returns rows with their numbers as places."""
    return [Row(each, source, f"row {i}") for i, each in enumerate(cells, start=1)]


def _json_rows(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    # str.splitlines would also cut at U+2028, which JSON allows in texts
    with open_text(path, encoding="utf-8-sig") as file:
        for i, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = load_json(line)
            except ValueError as error:
                problem = error.msg if isinstance(error, json.JSONDecodeError) else one_line(error)
                raise TaskError(f"{path}, line {i}: not JSON ({problem}); each line is one JSON object") from error
            if not isinstance(row, dict):
                raise TaskError(f"{path}, line {i}: expected a JSON object, seen {in_short(line.strip())}")
            yield f"line {i}", row


def _csv_rows(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    with open_text(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        _check_once(filter(None, reader.fieldnames or ()), path)
        for row in reader:
            place = f"line {reader.line_num}"
            if None in row:
                raise TaskError(f"{path}, {place}: more fields than the header has; put a text with commas in quotes")
            yield place, row


def _parquet_rows(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    import pyarrow.parquet

    num_rows = num_bytes = 0
    try:
        with open_bytes(path) as file, pyarrow.parquet.ParquetFile(file) as table:
            _check_once(table.schema_arrow.names, path)
            for batch in table.iter_batches(batch_size=1024):
                num_bytes += batch.nbytes
                if num_bytes > MOST_BYTES:  # a few bytes on disk can expand to terabytes
                    raise TaskError(f"{path}: its rows take more than {MOST_BYTES >> 30} GB; give a smaller file")
                for row in batch.to_pylist():
                    num_rows += 1
                    yield f"row {num_rows}", row
    except (pyarrow.ArrowException, TypeError, KeyError, OverflowError) as error:  # types without a Python equivalent
        raise TaskError(f"{path}: cannot be read: {one_line(error)}") from error


def _check_once(columns: Iterable[str], path: Path) -> None:
    """Raises ``TaskError`` if two columns have one name; Python would keep only the last."""
    names = list(columns)
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise TaskError(f"{path}: the column {in_short(twice)} occurs twice; remove or rename one")


READERS: Mapping[str, Callable[[Path], Iterator[tuple[str, Mapping[str, object]]]]] = {
    ".jsonl": _json_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}
