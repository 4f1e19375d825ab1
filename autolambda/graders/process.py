"""Worker: the process that reads texts for a pool, one after another, and that anything may happen to.

It says hello when it is ready, then answers each job in order. A C thread ends the process where one text takes too
long, whatever holds the interpreter; its memory has a limit; Ctrl-C is the driver's; it ends with the driver.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection

from autolambda.errors import AutolambdaError, one_line
from autolambda.graders.base import ParsedAnswer
from autolambda.graders.grading import find_grader

HELLO = "hello"


@dataclass(frozen=True)
class Outcome:
    """What came of a job: a reading, or why there is none. ``refused``: no text could have been read."""

    reading: ParsedAnswer | None
    failure: str = ""
    refused: bool = False


def serve(connection: Connection, graders: Iterable[str], seconds: float, num_bytes: int) -> None:
    """The main function of the process: jobs ``(grader, text, target)`` in, outcomes out, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger().addHandler(logging.NullHandler())  # lest a library shows a model's text on the terminal
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    for name in ("OMP_NUM_THREADS", "HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
    limit_memory(num_bytes)
    for grader in graders:
        _load(grader, None)
    try:
        connection.send(HELLO)
        with open(os.devnull, "w") as nowhere:
            while True:
                grader, text, target = connection.recv()
                connection.send(_outcome(grader, text, target, seconds=seconds, log=nowhere.fileno()))
    except (EOFError, OSError):  # the driver closed the pipe, or is gone
        return


def _end_with(driver: int) -> None:
    while os.getppid() == driver:
        time.sleep(0.5)
    os._exit(0)


def limit_memory(num_bytes: int) -> None:
    """Limits what the process allocates, where the platform can; address space that is only reserved is not counted."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = num_bytes if hard == resource.RLIM_INFINITY else min(num_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _load(grader: str, target: str | None) -> Outcome | None:
    """Loads what a grader needs; the outcome of every job where that fails."""
    try:
        find_grader(grader).ready(target)
    except AutolambdaError as error:
        return Outcome(None, str(error), refused=True)
    except Exception as error:
        return Outcome(None, f"grader '{grader}' cannot be loaded ({describe(error)})", refused=True)
    return None


def _outcome(grader: str, text: str, target: str, *, seconds: float, log: int) -> Outcome:
    if failed := _load(grader, target):
        return failed
    faulthandler.dump_traceback_later(seconds, exit=True, file=log)
    try:
        return Outcome(find_grader(grader).read(text, target))
    except BaseException as error:  # a grader of the user's own may do anything, even leave
        return Outcome(None, describe(error))
    finally:
        faulthandler.cancel_dump_traceback_later()


def describe(error: BaseException) -> str:
    """An error in one line: its type and message."""
    return f"{type(error).__name__}: {one_line(error, limit=300)}".rstrip(": ")
