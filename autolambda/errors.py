"""The error tree. Each error has the exit code with which the command line ends.

AutolambdaError            1   the run failed
|-- InputError             2   something the user gave is wrong; the message says what, the value seen, what to do
|   |-- ConfigError            a config file, a key, a value
|   |-- ScheduleError          a schedule, a parameter name no schedule covers
|   |-- CheckpointError        one checkpoint folder or file
|   |-- PairError              two checkpoints that cannot be merged: every mismatch, one a line
|   |-- TaskError              a task file, a column, a grader
|   |   `-- GraderError        a grader of the user's own that raised or hung on a response
|   |-- StudyError             a study's name, its stored config, a second driver
|   `-- OutputError            a path that cannot be written
|-- EngineError            1   the engine failed while it held the weights or generated
`-- StorageError           1   the study's database failed in the middle of a run
"""

from __future__ import annotations

import re


class AutolambdaError(Exception):
    """Base of all errors that autolambda raises on purpose."""

    exit_code = 1


class InputError(AutolambdaError):
    """The user can put it right; nothing was lost."""

    exit_code = 2


class ConfigError(InputError):
    """A config file, one of its keys, or a command-line value."""


class ScheduleError(InputError):
    """A schedule's form or values, or a parameter name outside the known families."""


class CheckpointError(InputError):
    """One checkpoint: missing, not safetensors, cut short, or holding a NaN."""


class PairError(InputError):
    """Two checkpoints that do not fit together; the message lists every mismatch."""


class TaskError(InputError):
    """A task's file, columns, rows or grader."""


class GraderError(TaskError):
    """A grader of the user's own raised, hung or died on a response; the study can be resumed."""


class StudyError(InputError):
    """A study's name, a config that differs from the stored one, or a second driver."""


class OutputError(InputError):
    """A path that exists already or cannot be written."""


class EngineError(AutolambdaError):
    """The engine failed in the middle of a run; the study can be resumed."""


class StorageError(AutolambdaError):
    """The study's database failed in the middle of a run, as on a full disk; the study can be resumed."""


def hide_secrets(text: str) -> str:
    """``text`` without hub tokens and the passwords of URLs, whoever wrote it."""
    text = re.sub(r"\bhf_[A-Za-z0-9]{20,}", "hf_***", text)
    return re.sub(r"(://[^\s:/@]*):[^\s@]+@", r"\1:***@", text)


def one_line(error: object, *, limit: int = 200) -> str:
    """What an error says as part of a message: in one line of at most ``limit`` characters."""
    return " ".join(str(error).split())[:limit]


def printable(text: str, *, keep: str = "") -> str:
    """``text`` with control characters (escape sequences, line ends) as Python escapes, except those in ``keep``."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in keep else repr(each)[1:-1] for each in text)


def in_short(value: object, *, limit: int = 60) -> str:
    """The start of any value's text, quoted, for a message."""
    try:
        return repr(str(value)[:limit])
    except (ValueError, RecursionError):  # an integer of thousands of digits, a nest that is too deep
        return f"a {type(value).__name__} too large to show"


def error_line(error: AutolambdaError) -> str:
    """An error for the terminal, without secrets and control characters, which names from files and models may hold.

    One line, or one for each mismatch of a pair.
    """
    said = hide_secrets(str(error))
    lines = said.splitlines() if isinstance(error, PairError) else [said]
    lines = [printable(line) for line in lines]
    return "\n".join([f"error: {lines[0]}", *lines[1:]])
