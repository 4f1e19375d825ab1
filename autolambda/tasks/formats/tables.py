"""CSV and Parquet as cells by column, each row with its place (``line 3``)."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from autolambda.errors import TaskError, in_short, one_line
from autolambda.files import open_bytes
from autolambda.tasks.formats.text import MOST_CHARACTERS, MOST_LINE, RawRow, form_of, open_unpacked

MOST_BYTES = 4 << 30  # of all rows of a Parquet file


def csv_rows(path: Path) -> Iterator[RawRow]:
    """Yields the rows of a CSV file with a header, whose fields a comma, else a semicolon, else a tab separates."""
    before = csv.field_size_limit(MOST_CHARACTERS)
    try:
        with open_unpacked(path, newline="") as file:
            header, skipped = file.readline(MOST_LINE), 0
            delimiter = _delimiter(header, "\t,;" if form_of(path) == ".tsv" else ",;\t")
            if told := re.match(r"sep=(.)\r?\n?\Z", header):  # Excel's first line
                header, skipped, delimiter = "", 1, told[1]
            reader = csv.DictReader(itertools.chain(filter(None, [header]), file), strict=True, delimiter=delimiter)
            check_once(filter(None, reader.fieldnames or ()), path)
            yield from _csv_rows(reader, skipped, path)
    finally:
        csv.field_size_limit(before)


def _csv_rows(reader: csv.DictReader[str], skipped: int, path: Path) -> Iterator[RawRow]:
    """Yields the rows after the header. A row with a wrong quote costs each line that it takes."""
    advice = "; put a text with commas, quotes or line ends in quotes, and double the quotes in it"
    while True:
        first = reader.reader.line_num + 1  # that of DictReader misses errors
        try:
            row = next(reader, None)
        except csv.Error as error:
            if "limit" in str(error):
                raise
            if "end of data" in str(error):
                line = first + skipped
                raise TaskError(f"{path}: cannot be read: a quote in line {line} never closes{advice}") from error
            for line in range(first, reader.reader.line_num + 1):
                yield RawRow(f"line {line + skipped}", problem=("not CSV", f" ({one_line(error)}){advice}"))
            continue
        if row is None:
            return
        place = f"line {reader.line_num + skipped}"
        if None in row:
            yield RawRow(place, problem=("more fields than the header has", "; put a text with commas in quotes"))
        else:
            yield RawRow(place, row)


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
