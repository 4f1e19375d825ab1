"""Limits of time and memory for untrusted code, such as a chat template.

They hold in the main thread of a POSIX system; elsewhere nothing is limited. The limited code must run in Python, which
checks for signals and raises ``MemoryError``.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_STATM = Path("/proc/self/statm")


class LimitError(BaseException):
    """The time limit is reached. It is not an ``Exception``, so the limited code does not catch it."""


@contextmanager
def limited(*, seconds: float, num_bytes: int) -> Iterator[None]:
    """Raises ``LimitError`` after ``seconds``, and ``MemoryError`` beyond ``num_bytes`` of further memory."""
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGALRM, _out_of_time)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # repeated, because an error in a destructor is lost
    try:
        with _memory(num_bytes):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


@contextmanager
def _memory(num_bytes: int) -> Iterator[None]:
    if not _STATM.exists():
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = int(_STATM.read_text().split()[0]) * resource.getpagesize() + num_bytes
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(wanted, *limits), hard) if limits else (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _out_of_time(signum: int, frame: FrameType | None) -> None:
    raise LimitError
