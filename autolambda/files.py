"""Files that a user names: opened only where they are regular, and read whole only up to a size.

A pipe would be waited for without end and a device read without end. Both, and a file larger than what it should hold,
are an ``OSError`` like the system's own; the caller says what the file is for.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path
from typing import BinaryIO, TextIO

SMALL = 256 * 1024
"""Bytes that a text written by hand, such as a config, has at most."""


def open_bytes(path: Path) -> BinaryIO:
    """A regular file, opened to read. Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(code, os.strerror(code) if code == errno.EISDIR else "it is not a regular file", str(path))


def open_text(path: Path, *, encoding: str = "utf-8", newline: str | None = None) -> TextIO:
    """A regular file, opened to read as text. Raises ``OSError``."""
    return io.TextIOWrapper(open_bytes(path), encoding=encoding, newline=newline)


def read_text(path: Path, *, max_bytes: int = SMALL) -> str:
    """The whole of a regular file in UTF-8. Raises ``OSError``, also where it is larger, and ``UnicodeDecodeError``."""
    with open_bytes(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes // 1024:,} kB", str(path))
    return content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")  # as the system's text files
