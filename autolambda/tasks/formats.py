"""File formats: JSON Lines, JSON, CSV and Parquet as cells by column, each row with its place (``line 3``).

Files are not trusted: a packed file (gzip) is read up to a limit. A text is UTF-8, or UTF-16 or UTF-32 if it says so
by its first bytes. A line that cannot be read is a row with a problem, so that one bad line does not cost the file.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from autolambda.errors import TaskError, in_short, one_line
from autolambda.files import load_json, open_bytes

MOST_CHARACTERS = 16_000_000  # of a cell: four times the text of a million tokens
MOST_BYTES = 4 << 30  # of all rows of a Parquet file
MOST_UNPACKED = 1 << 30  # bytes of a packed file, or of one JSON document
MOST_TIMES = 200  # that a packed file above 64 MB may grow; text grows 3 to 50 times
_MOST_LINE = 4 * MOST_CHARACTERS


@dataclass(frozen=True)
class RawRow:
    """The cells of a row and its place, or the ``problem`` for which it cannot be read: its kind, and the details."""

    place: str
    cells: Mapping[str, object] = field(default_factory=dict)
    problem: tuple[str, str] | None = None


def form_of(path: Path) -> str:
    """Returns a file's ending in lower case, that of the packed file for ``.gz``."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix == ".gz" else suffix


def open_unpacked(path: Path, *, newline: str | None = None) -> TextIO:
    """Opens a text, unpacked if it is packed with gzip. Raises ``OSError``; reading too much raises ``TaskError``."""
    stream: io.BufferedReader = cast(io.BufferedReader, open_bytes(path))
    if stream.peek(2)[:2] == b"\x1f\x8b":
        limit = min(MOST_UNPACKED, max(64 << 20, MOST_TIMES * path.stat().st_size))
        stream = io.BufferedReader(cast(io.RawIOBase, _Unpacked(stream, limit, path)))
    try:
        return io.TextIOWrapper(stream, encoding=_encoding(stream.peek(4)[:4]), newline=newline)
    except BaseException:
        stream.close()
        raise


class _Unpacked(io.RawIOBase):
    """The bytes in a gzip file, up to a limit."""

    def __init__(self, packed: BinaryIO, limit: int, path: Path) -> None:
        self._packed, self._file = packed, gzip.GzipFile(fileobj=packed)
        self._limit = self._left = limit
        self._path = path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]  # any writable buffer
        chunk = self._file.read(len(buffer))
        self._left -= len(chunk)
        if self._left < 0:
            raise TaskError(f"{self._path}: unpacked it has more than {self._limit >> 20:,} MB; give a smaller file")
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._file.close()
        self._packed.close()
        super().close()


def _encoding(head: bytes) -> str:
    """Returns the encoding that the first bytes of a text tell."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    empty = [not byte for byte in head]  # ASCII in UTF-16 has every second byte empty
    return "utf-16-le" if empty == [False, True] * 2 else "utf-16-be" if empty == [True, False] * 2 else "utf-8-sig"


def json_rows(path: Path) -> Iterator[RawRow]:
    """Yields the rows of a JSON file: one object a line, or one document that holds a table."""
    table = _table_of(path)
    if table is not None:
        yield from (_object_row(f"row {i}", each) for i, each in enumerate(table, start=1))
        return
    with open_unpacked(path) as file:
        # str.splitlines would also cut at U+2028, which JSON allows in texts
        for i, line in enumerate(_lines(file, path), start=1):
            if not line.strip():
                continue
            try:
                row = load_json(line)
            except ValueError as error:
                problem = error.msg if isinstance(error, json.JSONDecodeError) else one_line(error)
                yield RawRow(f"line {i}", problem=("not JSON", f" ({problem}); each line is one JSON object"))
            else:
                yield _object_row(f"line {i}", row, line.strip())


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    while line := file.readline(_MOST_LINE + 1):
        if len(line) > _MOST_LINE:
            raise TaskError(f"{path}: a line has more than {_MOST_LINE:,} characters; write one object a line")
        yield line


def _object_row(place: str, value: object, text: str | None = None) -> RawRow:
    if isinstance(value, dict):
        return RawRow(place, value)
    return RawRow(place, problem=("expected a JSON object", f", seen {in_short(value if text is None else text)}"))


def _table_of(path: Path) -> list[object] | None:
    """Returns the rows of a file that is one document, not one object a line. Raises ``TaskError`` for a broken one."""
    with open_unpacked(path) as file:
        lines = (line for line in _lines(file, path) if line.strip())
        first, second = next(lines, ""), next(lines, "")
    try:
        value = load_json(first)
    except ValueError:
        value = None
    if isinstance(value, dict) and second:
        return None
    if value is None or not second:
        try:
            return _rows_in(load_json(_document(path)), path)
        except ValueError as error:
            if value is None and first.lstrip().startswith("[") and second:
                raise TaskError(f"{path}: a JSON array that is not JSON ({one_line(error)}); correct it") from error
    return None


def _document(path: Path) -> str:
    """Returns the whole text of a file. Raises ``TaskError`` for a large one."""
    pieces, length = list[str](), 0
    with open_unpacked(path) as file:
        while piece := file.read(1 << 20):
            pieces.append(piece)
            length += len(piece)
            if length > MOST_UNPACKED:
                raise TaskError(f"{path}: one JSON document of more than 1 GB; write one object a line")
    return "".join(pieces)


def _rows_in(value: object, path: Path) -> list[object] | None:
    """Returns the rows of a list of objects, of an object around such a list, or of an object of columns or rows."""
    if isinstance(value, list):
        return value if not value or any(isinstance(each, dict) for each in value) else None
    if not isinstance(value, dict):
        return None
    lists = {name: each for name, each in value.items() if isinstance(each, list) and _are_rows(each)}
    if len(lists) > 1:
        names = ", ".join(map(repr, lists))
        raise TaskError(f"{path}: one JSON object with several lists of rows, {names}; give each a file of its own")
    if lists:
        return next(iter(lists.values()))
    columns = list(value.values())
    if columns and all(isinstance(each, list) and len(each) == len(columns[0]) > 1 for each in columns):
        return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]
    tables = [each for each in columns if isinstance(each, dict) and len(each) > 1]
    if len(tables) < len(columns) or len(columns) < 2:
        return None
    if not all(key.isdigit() for each in tables for key in each):
        return columns if all(list(each) == list(tables[0]) for each in tables) else None  # a row for each key
    if all(list(each) == list(tables[0]) for each in tables):  # a column for each key, as pandas writes them
        return [{name: cells[key] for name, cells in value.items()} for key in tables[0]]
    return None


def _are_rows(items: list[object]) -> bool:
    """Returns whether a list holds objects that are no chat messages."""
    return bool(items) and all(isinstance(each, dict) and not {"role", "from"} & each.keys() for each in items)


def csv_rows(path: Path) -> Iterator[RawRow]:
    """Yields the rows of a CSV file with a header, whose fields a comma, else a semicolon, else a tab separates."""
    before = csv.field_size_limit(MOST_CHARACTERS)
    try:
        with open_unpacked(path, newline="") as file:
            header, skipped = file.readline(_MOST_LINE), 0
            delimiter = _delimiter(header, "\t,;" if form_of(path) == ".tsv" else ",;\t")
            if told := re.match(r"sep=(.)\r?\n?\Z", header):  # Excel's first line
                header, skipped, delimiter = "", 1, told[1]
            reader = csv.DictReader(itertools.chain(filter(None, [header]), file), strict=True, delimiter=delimiter)
            check_once(filter(None, reader.fieldnames or ()), path)
            for row in reader:
                place = f"line {reader.line_num + skipped}"
                if None in row:
                    problem = ("more fields than the header has", "; put a text with commas in quotes")
                    yield RawRow(place, problem=problem)
                else:
                    yield RawRow(place, row)
    finally:
        csv.field_size_limit(before)


def _delimiter(header: str, candidates: str) -> str:
    bare = re.sub('"[^"]*"', "", header)
    return next((each for each in candidates if each in bare), candidates[0])


def parquet_rows(path: Path) -> Iterator[RawRow]:
    """Yields the rows of a Parquet file. Raises ``TaskError`` for one that unpacks to too much."""
    import pyarrow.parquet

    num_rows = num_bytes = 0
    try:
        with open_bytes(path) as file, pyarrow.parquet.ParquetFile(file) as table:
            check_once(table.schema_arrow.names, path)
            for batch in table.iter_batches(batch_size=1024):
                num_bytes += batch.nbytes
                if num_bytes > MOST_BYTES:  # a few bytes on disk can expand to terabytes
                    raise TaskError(f"{path}: its rows take more than {MOST_BYTES >> 30} GB; give a smaller file")
                for row in batch.to_pylist():
                    num_rows += 1
                    yield RawRow(f"row {num_rows}", row)
    except (pyarrow.ArrowException, TypeError, KeyError, OverflowError) as error:  # types without a Python equivalent
        raise TaskError(f"{path}: cannot be read: {one_line(error)}") from error


def check_once(columns: Iterable[str], path: Path) -> None:
    """Raises ``TaskError`` if two columns have one name; Python would keep only the last."""
    names = list(columns)
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise TaskError(f"{path}: the column {in_short(twice)} occurs twice; remove or rename one")


READERS: Mapping[str, Callable[[Path], Iterator[RawRow]]] = {
    ".jsonl": json_rows,
    ".ndjson": json_rows,
    ".json": json_rows,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".parquet": parquet_rows,
}
