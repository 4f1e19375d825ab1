"""Texts as rows need them: unpacked up to a limit, in the encoding that they tell, line by line."""

from __future__ import annotations

import codecs
import gzip
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from autolambda.errors import TaskError
from autolambda.files import open_bytes

MOST_CHARACTERS = 16_000_000  # of a cell: four times the text of a million tokens
MOST_LINE = 4 * MOST_CHARACTERS
MOST_UNPACKED = 1 << 30  # bytes of a packed file, or of one JSON document
MOST_TIMES = 200  # that a packed file above 64 MB may grow; text grows 3 to 50 times


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


def lines_of(file: TextIO, path: Path) -> Iterator[str]:
    while line := file.readline(MOST_LINE + 1):
        if len(line) > MOST_LINE:
            raise TaskError(f"{path}: a line has more than {MOST_LINE:,} characters; write one object a line")
        yield line
