"""The errors that autolambda raises, each with its exit code, and the functions that format text for messages.

AutolambdaError            1   the run failed
|-- InputError             2   something the user gave is wrong; the message says what, the value seen, what to do
|   |-- ConfigError            a config file, a key, a value
|   |   |-- NoModelsError      no models where the user's own are meant: how to begin, in several lines
|   |   `-- SwappedError       Instruct and Thinking in each other's place: the command that exchanges them
|   |-- ScheduleError          a schedule, or a parameter name that no schedule covers
|   |-- CheckpointError        one checkpoint folder or file
|   |-- PairError              two checkpoints that cannot be merged: every mismatch, one a line
|   |-- TaskError              a task file, a column, a grader
|   |   `-- GraderError        the user's grader raised or hung on a response
|   |-- StudyError             a study's name, its stored config, a second driver
|   `-- OutputError            a path that cannot be written
|-- EngineError            1   the engine failed while it held the weights or generated
`-- StorageError           1   the study's database failed in the middle of a run
"""

from __future__ import annotations

import re


class AutolambdaError(Exception):
    """Base class of all errors that autolambda raises on purpose."""

    exit_code = 1


class InputError(AutolambdaError):
    """An error that the user can correct; nothing was lost."""

    exit_code = 2


class ConfigError(InputError):
    """An error in a config file, one of its keys, an argument or an option."""


class SwappedError(ConfigError):
    """Instruct and Thinking were given in each other's place; both are named as in the config.

    ``said`` is how that was noticed, ``kept`` the study that holds what was measured, ``command`` the one to run.
    """

    def __init__(
        self, said: str, *, instruct: str, thinking: str, kept: str | None = None, command: str | None = None
    ) -> None:
        self.said, self.instruct, self.thinking, self.kept = said, instruct, thinking, kept
        given = "" if command else f" INSTRUCT is '{instruct}' and THINKING is '{thinking}': exchange them."
        stored = f" What was measured is kept as study '{kept}'." if kept else ""
        run = f" Run: {command}" if command else ""
        super().__init__(f"{said}.{given}{stored} If you mean it, add --set models.allow_swapped=true.{run}")


class NoModelsError(ConfigError):
    """No models where the user's own are meant; the message has further lines that say how to begin."""


class ScheduleError(InputError):
    """An error in a schedule, or a parameter name outside the known families."""


class CheckpointError(InputError):
    """A checkpoint that is missing, not safetensors, cut short, or holds a NaN."""


class PairError(InputError):
    """Two checkpoints that do not fit together; the message lists every mismatch."""


class TaskError(InputError):
    """An error in a task's file, columns, rows or grader."""


class GraderError(TaskError):
    """The user's grader raised, hung or died on a response; the study can be resumed."""


class StudyError(InputError):
    """An unknown or invalid name of a study, a config that differs from the stored one, or a second driver."""


class OutputError(InputError):
    """A path that exists already or cannot be written."""


class EngineError(AutolambdaError):
    """The engine failed in the middle of a run; the study can be resumed."""


class StorageError(AutolambdaError):
    """The study's database failed in the middle of a run, for example on a full disk; the study can be resumed."""


def hide_secrets(text: str) -> str:
    """Returns ``text`` with hub tokens and passwords in URLs replaced by ``***``."""
    text = re.sub(r"\bhf_[A-Za-z0-9]{20,}", "hf_***", text)
    return re.sub(r"(://[^\s:/@]*):[^\s@]+@", r"\1:***@", text)


def one_line(text: object, *, limit: int = 200) -> str:
    """Returns a text, or an error's message, as one line of at most ``limit`` characters."""
    return " ".join(str(text).split())[:limit]


def reason(error: BaseException, *, limit: int = 200, with_type: bool = False) -> str:
    """Returns an error's message as one line, after the name of its type if ``with_type`` is true.

    An error without a message gives the name of its type.
    """
    message, name = one_line(error, limit=limit), type(error).__name__
    return (f"{name}: {message}" if with_type else message) if message else name


def shorten(text: str, limit: int) -> str:
    """Returns at most ``limit`` characters of ``text``; three dots replace the end of a longer one."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def printable(text: str, *, keep: str = "") -> str:
    """Returns ``text`` with control characters (escape sequences, line ends) escaped, except the ones in ``keep``."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in keep else repr(each)[1:-1] for each in text)


def in_short(value: object, *, limit: int = 60) -> str:
    """Returns the first ``limit`` characters of any value's text, quoted, for a message."""
    try:
        return repr(str(value)[:limit])
    except (ValueError, RecursionError):  # an integer of thousands of digits, or a list that is nested too deep
        return f"a {type(value).__name__} too large to show"


def error_line(error: AutolambdaError) -> str:
    """Returns an error as the line that the terminal shows, without secrets and control characters.

    A ``PairError`` has one line for each mismatch, a ``NoModelsError`` one for each way to begin.
    Names from files and models may hold control characters.
    """
    message = hide_secrets(str(error))
    lines = message.splitlines() if isinstance(error, PairError | NoModelsError) else [message]
    lines = [printable(line) for line in lines]
    return "\n".join([f"error: {lines[0]}", *lines[1:]])
