"""A run of the command in a process of its own, which ends by itself, by the clock, or at a step of its storing."""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from autolambda.cli.main import main as autolambda_main

SECONDS_TO_DIE = 5.0
TIME = len("21:24:17 ")  # at the start of each line that a run says
PR_SET_CHILD_SUBREAPER = 36  # of prctl


def adopt_orphans() -> None:
    """Makes the processes that a killed run leaves this process's children."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


@dataclass(frozen=True)
class Ended:
    """A run that ended: whether it was killed, what it said, its steps if it was not, and the processes that stayed."""

    was_killed: bool
    said: str
    num_steps: int
    left: tuple[str, ...] = ()

    @property
    def is_starting(self) -> bool:
        """Whether vLLM had not opened yet."""
        return "engine: vLLM" in self.said and ", merged by " not in self.said

    @property
    def last(self) -> str:
        """The start of the last line that it had said."""
        lines = [line[TIME:].split("  ")[0] for line in self.said.splitlines() if line[TIME:].strip()]
        return lines[-1][:24] if lines else "(nothing said)"


def run(folder: Path, *arguments: str, step: int = 0, seconds: float = 3600.0) -> Ended:
    """Runs the command in a process of its own until its end, its death at ``step``, or ``seconds`` have passed."""
    paths = [folder / f"{name}.txt" for name in ("said", "errors", "steps")]
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _become(folder, arguments, step, paths)
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() - began > seconds:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    left = end_orphans()
    code = os.waitstatus_to_exitcode(status)
    said, errors, steps = (path.read_text(encoding="utf-8") if path.exists() else "" for path in paths)
    assert code in (0, -signal.SIGKILL), f"{arguments[0]} ended with {code}: {errors or said}"
    return Ended(code != 0, said, int(steps or 0) if code == 0 else 0, left)


def end_orphans() -> tuple[str, ...]:
    """Waits for the processes of a run that has ended, which are this one's children now.

    Returns the command lines of those that stay, and kills them.
    """
    end = time.monotonic() + SECONDS_TO_DIE
    while time.monotonic() < end:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.02)
        except ChildProcessError:
            return ()
    left = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    names = [Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").replace("\0", " ").strip() for pid in left]
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)
    return tuple(names)


def _become(folder: Path, arguments: tuple[str, ...], step: int, paths: list[Path]) -> None:
    """The forked process: runs the command and does not return."""
    os.chdir(folder)
    for descriptor, path in zip((1, 2), paths, strict=False):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), descriptor)
    os.environ["COLUMNS"] = "200"
    sys.argv = ["autolambda", *arguments]
    count = _kill_at(step)
    code = 1
    try:
        autolambda_main()
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        paths[2].write_text(str(next(count) - 1), encoding="utf-8")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _kill_at(step: int) -> itertools.count[int]:
    """Arms the kill: a step that begins does not end. 0 never kills."""
    steps = itertools.count(1)

    def count(*_: object, **__: object) -> None:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def then(*args: Any, **named: Any) -> Any:
            count()
            return call(*args, **named)

        return then

    sa.event.listen(sa.engine.Engine, "after_cursor_execute", count)
    sa.event.listen(sa.engine.Engine, "commit", count)
    os.fsync = counted(os.fsync)
    os.rename = counted(os.rename)
    os.replace = counted(os.replace)
    return steps
