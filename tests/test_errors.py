"""The error tree, its exit codes and its picture in the docstring; how texts and errors are cut for a message."""

import inspect
import re

import pytest

from autolambda import errors
from autolambda.errors import printable

TREE = {
    "AutolambdaError": ("Exception", 1),
    "InputError": ("AutolambdaError", 2),
    "ConfigError": ("InputError", 2),
    "NoModelsError": ("ConfigError", 2),
    "SwappedError": ("ConfigError", 2),
    "ScheduleError": ("InputError", 2),
    "CheckpointError": ("InputError", 2),
    "PairError": ("InputError", 2),
    "TaskError": ("InputError", 2),
    "GraderError": ("TaskError", 2),
    "StudyError": ("InputError", 2),
    "OutputError": ("InputError", 2),
    "EngineError": ("AutolambdaError", 1),
    "StorageError": ("AutolambdaError", 1),
}


def drawn():
    """The docstring's tree as {name: (parent, exit code)}: a code that is not written is the parent's."""
    found, branch = {}, []
    for line in inspect.getdoc(errors).splitlines():
        if match := re.match(r"([|` -]*)(\w+Error)\b\s+(\d)?", line):
            depth = len(match[1]) // 4
            parent = branch[depth - 1] if depth else "Exception"
            found[match[2]] = (parent, int(match[3]) if match[3] else found[parent][1])
            branch = [*branch[:depth], match[2]]
    return found


def test_the_docstring_draws_the_tree():
    assert drawn() == TREE


def test_every_error_of_the_module_is_in_the_tree():
    classes = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}
    assert {name: (kind.__base__.__name__, kind.exit_code) for name, kind in classes.items()} == TREE


@pytest.mark.parametrize("name", TREE)
def test_every_error_says_what_it_is(name):
    assert len(inspect.getdoc(getattr(errors, name))) > 20


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.StudyError("no study 'x'"), "error: no study 'x'"),
        (errors.CheckpointError("a\nb\x1b[2J"), r"error: a\nb\x1b[2J"),
        (errors.PairError("they differ:\nvocab_size\n\x1b[1mheads"), "error: they differ:\nvocab_size\n\\x1b[1mheads"),
        (errors.NoModelsError("none:\n  try this\x1b"), "error: none:\n  try this\\x1b"),
        (errors.StorageError("postgresql://me:secret@host/db"), "error: postgresql://me:***@host/db"),
    ],
)
def test_an_error_on_the_terminal_is_one_line_or_one_a_mismatch(error, expected):
    assert errors.error_line(error) == expected


def test_control_characters_are_shown_as_escapes_unless_kept() -> None:
    assert printable("a é → [b]") == "a é → [b]"
    assert printable("\x1b[2J\n\t\udcff") == "\\x1b[2J\\n\\t\\udcff"
    assert printable("\x1b\n\t", keep="\n") == "\\x1b\n\\t"


@pytest.mark.parametrize(
    ("error", "expected", "with_type"),
    [
        (ValueError("no\n  number"), "no number", "ValueError: no number"),
        (KeyError(), "KeyError", "KeyError"),
        (RuntimeError("x" * 300), "x" * 200, "RuntimeError: " + "x" * 200),
    ],
)
def test_a_reason_is_one_line(error, expected, with_type):
    assert errors.reason(error) == expected and errors.reason(error, with_type=True) == with_type


def test_what_is_too_long_is_cut():
    assert errors.shorten("12345", 5) == "12345" and errors.shorten("123456", 5) == "12..."
    assert errors.one_line(" a\n b ", limit=2) == "a " and errors.in_short("abc", limit=2) == "'ab'"
    assert errors.in_short(10**5000) == "a int too large to show"
