"""File formats by their endings: JSON Lines, JSON, CSV and Parquet.

Files are not trusted: a packed file (gzip) is read up to a limit. A text is UTF-8, or UTF-16 or UTF-32 if it says so
by its first bytes. A line that cannot be read is a row with a problem, so that one bad line does not cost the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from autolambda.tasks.formats.documents import json_rows
from autolambda.tasks.formats.tables import csv_rows, parquet_rows
from autolambda.tasks.formats.text import RawRow

READERS: Mapping[str, Callable[[Path], Iterator[RawRow]]] = {
    ".jsonl": json_rows,
    ".ndjson": json_rows,
    ".json": json_rows,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".parquet": parquet_rows,
}
