"""The process that grades texts for a pool, one after another. It may hang or crash without harm to the others.

It sends a hello when it is ready, then answers the jobs in order. A C thread ends the process if a text takes too long,
even while the interpreter is blocked. Its memory is limited, it ignores Ctrl-C, and it ends when its parent ends.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import threading
import time
from collections.abc import Iterable
from multiprocessing.connection import Connection

from autolambda.errors import AutolambdaError, reason
from autolambda.graders.base import ParsedAnswer
from autolambda.graders.grading import find_grader

HELLO = "hello"


def serve(connection: Connection, graders: Iterable[str], seconds: float, num_bytes: int) -> None:
    """Runs the process: answers jobs ``(grader, text, target)`` with a ``ParsedAnswer`` until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger().addHandler(logging.NullHandler())  # else a library could print a model's text on the terminal
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
                connection.send(_graded(grader, text, target, seconds=seconds, log=nowhere.fileno()))
    except (EOFError, OSError):  # the parent closed the pipe or ended
        return


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


def limit_memory(num_bytes: int) -> None:
    """Limits the memory that the process allocates, if the platform can. Reserved address space does not count."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = num_bytes if hard == resource.RLIM_INFINITY else min(num_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _load(grader: str, target: str | None) -> ParsedAnswer | None:
    """Loads what a grader needs. If this fails, returns the refusal that answers every job."""
    try:
        find_grader(grader).preload(target)
    except AutolambdaError as error:
        return ParsedAnswer(None, failure=str(error), refused=True)
    except Exception as error:  # a user's module may raise anything when it is imported
        failure = f"grader '{grader}' cannot be loaded ({reason(error, limit=300, with_type=True)})"
        return ParsedAnswer(None, failure=failure, refused=True)
    return None


def _graded(grader: str, text: str, target: str, *, seconds: float, log: int) -> ParsedAnswer:
    if failed := _load(grader, target):
        return failed
    faulthandler.dump_traceback_later(seconds, exit=True, file=log)
    try:
        return find_grader(grader).grade(text, target)
    except BaseException as error:  # a user's function may do anything, even exit
        return ParsedAnswer(None, failure=reason(error, limit=300, with_type=True))
    finally:
        faulthandler.cancel_dump_traceback_later()
