"""Rows of a user's file or a benchmark, each with its place for messages.

Cells hold the file's values. Nothing is guessed: an empty cell or one of the wrong type makes the row unusable, with
its place and the kind of its problem. ``formats`` reads the files; ``sources`` reads folders and the hub.
"""

from __future__ import annotations

import ast
import csv
import datetime
import decimal
import math
import re
import warnings
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from autolambda.errors import TaskError, in_short, one_line, reason
from autolambda.files import load_json
from autolambda.tasks.formats.readers import READERS
from autolambda.tasks.formats.text import MOST_CHARACTERS, form_of

LONGEST_ID = 256  # characters, the width of the database's column
_LONGEST_LITERAL = 100_000  # characters of a list as Python writes it
_NUMPY = re.compile(r"""['"]\s+['"]""")  # an array as numpy writes it, without commas: Python would join its texts


class UnusableRow(TaskError):
    """A row that cannot be used. Rows with one problem have equal ``kind``; ``detail`` is what this row holds."""

    def __init__(self, row: Row, kind: str, detail: str) -> None:
        super().__init__(f"{row.where}: {kind}{detail}")
        self.row, self.kind, self.detail = row, kind, detail


@dataclass(frozen=True)
class Row:
    """One row: its cells by column, its source (a file, a hub dataset) and its place there (``line 3``).

    ``problem`` is the kind and the details of a line that could not be read.
    """

    cells: Mapping[str, object]
    source: str
    place: str
    problem: tuple[str, str] | None = None

    @property
    def where(self) -> str:
        """The row's source and place, for messages."""
        return f"{self.source}, {self.place}"

    @property
    def number(self) -> str:
        """The number of the row or line, from 1."""
        return self.place.rpartition(" ")[2]

    @property
    def id(self) -> str:
        """The ``id`` column if it holds an id, else the number of the row or line."""
        try:
            return self.id_in("id") if "id" in self.cells else self.number
        except UnusableRow:
            return self.number

    def id_in(self, column: str) -> str:
        """Returns a cell as an id. Raises ``UnusableRow``."""
        text = self.filled(column, key="id")
        if len(text) > LONGEST_ID or "\0" in text:
            kind = f"{column!r} has at most {LONGEST_ID} characters and no \\0"
            raise UnusableRow(self, kind, f", seen {in_short(text)}")
        return text

    def cell(self, column: str, *, key: str | None = None) -> object:
        """Returns a cell; ``reward_model.ground_truth`` is a field in the cell of ``reward_model``.

        Raises ``UnusableRow`` if it is missing. ``key`` is the config key that names the column.
        """
        if self.problem:
            raise UnusableRow(self, *self.problem)
        if column in self.cells:
            return self.cells[column]
        first, *fields = column.split(".")
        value = self.cells.get(first)
        for name in fields:
            value = listed(value)
            if isinstance(value, list | tuple) and name.isascii() and name.isdigit() and int(name) < len(value):
                value = value[int(name)]
            elif isinstance(value, dict) and name in value:
                value = value[name]
            else:
                break
        else:
            if fields:
                return value
        hint = f". Name yours with the task's key '{key}' (tasks.0.{key}=COLUMN)" if key else ""
        if key and form_of(Path(self.source)) in (".csv", ".tsv"):
            hint += "; the first line of a table must name its columns"
        has = one_line(", ".join(map(repr, self.cells))) or "none"
        raise UnusableRow(self, f"no column {column!r}", f"; it has {has}{hint}")

    def has(self, column: str) -> bool:
        """Returns whether the row has the column, or the field of a dotted one."""
        try:
            self.cell(column)
        except UnusableRow:
            return False
        return True

    def text(self, column: str, *, key: str | None = None) -> str:
        """Returns a cell as text. Raises ``UnusableRow`` for an empty cell, a list or a structure."""
        return self.as_text(self.cell(column, key=key), repr(column))

    def filled(self, column: str, *, key: str | None = None) -> str:
        """Returns a cell as text that is not only white space. Raises ``UnusableRow``."""
        text = self.text(column, key=key)
        if not text.strip():
            raise UnusableRow(self, f"{column!r} is empty", "")
        return text

    def joined(self, columns: str, *, key: str) -> str:
        """Returns a column's text, or those of several (``instruction, input``) with a blank line between.

        Empty ones are left out. Raises ``UnusableRow``.
        """
        names = names_in(columns)
        if len(names) < 2 or columns in self.cells:
            return self.filled(columns, key=key)
        cells = [self.cell(name, key=key) for name in names]
        texts = [self.as_text(cell, repr(name)) for name, cell in zip(names, cells, strict=True) if not is_empty(cell)]
        if not texts:
            raise UnusableRow(self, f"{columns!r} are empty", "")
        return "\n\n".join(texts)

    def items(self, column: str, *, key: str | None = None) -> list[object]:
        """Returns a cell that holds a list, or a list written as JSON, as in CSV. Raises ``UnusableRow``."""
        cell = self.cell(column, key=key)
        found = listed(cell)
        if not isinstance(found, list | tuple) or not found:
            raise UnusableRow(self, f"{column!r} must be a list with something in it", f", seen {in_short(cell)}")
        return list(found)

    def as_text(self, value: object, name: str) -> str:
        """Returns a value as text: true and false as JSON has them, dates as ISO 8601.

        Raises ``UnusableRow`` for a list or a structure, and for NaN, which is an empty cell.
        """
        text = _text(value)
        if text is None:
            raise UnusableRow(self, f"{name} must be a text or a number", f", seen {in_short(value)}")
        if len(text) > MOST_CHARACTERS:
            raise UnusableRow(self, name, f" has {len(text):,} characters; at most {MOST_CHARACTERS:,} are read")
        if any("\ud800" <= character <= "\udfff" for character in text):
            problem = f"{name} holds half of a UTF-16 pair (\\ud800 to \\udfff), which no tokenizer takes"
            raise UnusableRow(self, problem, "")
        return text


def _text(value: object) -> str | None:
    match value:
        case str():
            return value
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case float() | decimal.Decimal() if not math.isnan(value):
            return str(value)
        case datetime.datetime() if value.time() == datetime.time() and value.tzinfo is None:
            return value.date().isoformat()  # a column of dates, as pandas stores it
        case datetime.datetime():
            return value.isoformat(sep=" ")
        case datetime.date() | datetime.time():
            return value.isoformat()
        case bytes():
            with suppress(UnicodeDecodeError):
                return value.decode("utf-8")
    return None


def is_empty(cell: object) -> bool:
    """Returns whether a cell is empty: null, NaN, or only white space."""
    return cell is None or cell != cell or (isinstance(cell, str) and not cell.strip())


def listed(cell: object) -> object:
    """Returns the list or structure that a text holds as JSON, or as Python writes it; any other cell as it is."""
    if not isinstance(cell, str) or cell.lstrip()[:1] not in ("[", "{"):
        return cell
    with suppress(ValueError):
        return load_json(cell)
    if len(cell) <= _LONGEST_LITERAL and not _NUMPY.search(cell):
        with warnings.catch_warnings(), suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            warnings.simplefilter("ignore", SyntaxWarning)  # for escapes such as \d
            return ast.literal_eval(cell.strip())
    return cell


def names_in(columns: str) -> list[str]:
    """Returns the names in a list of columns, such as ``A, B, C``."""
    return [name.strip() for name in columns.split(",") if name.strip()]


def read_file(path: Path) -> list[Row]:
    """Returns the rows of a file, read by its ending. Raises ``TaskError``."""
    reader = READERS.get(form_of(path))
    if reader is None:
        known = ".jsonl, .json, .csv, .tsv or .parquet (text may be packed: .jsonl.gz)"
        raise TaskError(f"task file '{path}': its ending must be {known}, or it must be a folder")
    try:
        return [Row(raw.cells, str(path), raw.place, raw.problem) for raw in reader(path)]
    except FileNotFoundError as error:
        raise TaskError(f"task file '{path}' does not exist") from error
    except UnicodeDecodeError as error:
        raise TaskError(
            f"{path}: cannot be read: it is not {error.encoding} ({error.reason}); save it as UTF-8"
        ) from error
    except (OSError, ValueError, RecursionError, EOFError, zlib.error, csv.Error) as error:
        raise TaskError(f"{path}: cannot be read: {reason(error)}") from error  # pyarrow's errors are ValueErrors


def numbered(cells: Iterable[Mapping[str, object]], source: str) -> list[Row]:
    """Returns rows with their numbers as places."""
    return [Row(each, source, f"row {i}") for i, each in enumerate(cells, start=1)]
