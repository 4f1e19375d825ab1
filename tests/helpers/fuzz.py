"""What all fuzzing tests share: how many examples, what may come of one, and values to draw.

An example ends in a result or in an ``InputError`` of one short line, within ``SECONDS`` and ``NUM_BYTES`` of memory.
At most 60 fixed examples a test run by default. AUTOLAMBDA_FUZZ=1 runs as many as each test says (60 to 300).
AUTOLAMBDA_FUZZ=50 runs fifty times as many, drawn anew each time:
    AUTOLAMBDA_FUZZ=50 nice pytest tests/test_fuzz_config.py tests/tasks/test_fuzz_tasks.py
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from autolambda.errors import InputError, PairError, printable

FACTOR = int(os.environ.get("AUTOLAMBDA_FUZZ", "0"))
FEW = 60  # examples a test by default
SECONDS = 20.0  # many times what any example takes, since the machine may be busy
NUM_BYTES = 1 << 30  # beyond what the process has when an example begins
LONGEST_LINE = 2_000  # a path may be in it, and several problems of a config
ESCAPE = "\x1b[2J"


def examples(number: int) -> settings:
    """The settings of a fuzzing test with so many examples."""
    return settings(
        max_examples=number * FACTOR or min(number, FEW),
        derandomize=FACTOR <= 1,
        database=None,
        phases=[Phase.explicit, Phase.generate] if FACTOR > 1 else [*Phase],  # shrinking takes longer than a campaign
        deadline=None,  # the clock below does not depend on how busy the machine is
        suppress_health_check=list(HealthCheck),
    )


def refused_or(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What a call returns, or its ``InputError``, whose message is checked."""
    try:
        with bounded():
            return call(*arguments, **options)
    except InputError as error:
        check_message(error)
        return error


def check_message(error: InputError) -> None:
    """One short line that says something, the mismatches of a pair one each."""
    lines = str(error).split("\n") if isinstance(error, PairError) else [str(error)]
    assert error.exit_code == 2
    for line in lines:
        assert 8 < len(line) < LONGEST_LINE, line[:500]
        assert len(line.splitlines()) == 1, line
        assert printable(line).isprintable()


@contextmanager
def bounded() -> Iterator[None]:
    """Ends what takes too long or too much memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, _too_long)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + NUM_BYTES, before[1]))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def _too_long(*_: object) -> None:
    pytest.fail(f"still running after {SECONDS:g} s")


ODD = [
    "", " ", "\0", "\n", ESCAPE, "a" * 500, "../../x", "/dev/zero", "[red]x[/]", "{{ 1/0 }}", "%s", "\u202e", "7",
    "yes", "null", "nan", "1e999", "0x10", "\x85", "\u2028", "\ufeff", "\U0001f600", "true", "-1",
]  # fmt: skip
texts = st.one_of(
    st.text(max_size=12),
    st.sampled_from(ODD),
    st.text(st.characters(exclude_categories=()), max_size=5),
)
numbers = st.one_of(
    st.integers(-3, 12),
    st.sampled_from([2**31, 2**63, 2**64, 10**18, 10**400, -(2**63)]),
    st.floats(),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.integers() | st.none(), inner, max_size=3),
    max_leaves=8,
)


def nest(depth: int) -> list[Any]:
    """Lists in lists."""
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


@st.composite
def changed(draw: st.DrawFn, value: Any, other: st.SearchStrategy[Any] = plain) -> Any:
    """A nest of dicts and lists with one to three places replaced, removed, doubled or added."""
    for _ in range(draw(st.integers(1, 3))):
        value = _changed(draw, value, other)
    return value


def _changed(draw: st.DrawFn, value: Any, other: st.SearchStrategy[Any]) -> Any:
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 9)) == 0:
        return draw(other)
    places = list(value) if isinstance(value, dict) else list(range(len(value)))
    place = draw(st.sampled_from(places))
    value = value.copy()
    match draw(st.integers(0, 7)):
        case 0:
            del value[place]
        case 1 if isinstance(value, dict):
            value[draw(texts)] = draw(other)
        case 1:
            value.append(value[place])
        case _:
            value[place] = _changed(draw, value[place], other)
    return value


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes with one to four places overwritten, cut out, doubled or put in."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(start + draw(st.sampled_from([0, 1, 1, 4, 40])), len(content))
        piece = draw(st.one_of(st.binary(max_size=4), st.sampled_from(PIECES), st.just(content[start:end] * 2)))
        content = content[:start] + piece + content[end:]
    return content


PIECES = [
    b"", b"\0", b"\n", b"\r", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b'"', b"'", b",", b":", b": ", b"[", b"{",
    b"]", b"}", b"&a ", b"*a", b"<<: *a", b"!!int ''", b"!!python/object:os.system ", b"\t", b"#", b"- ", b"? ", b"| ",
    b"---\n", b"...\n", b"9" * 5000, b"[" * 2000, b"nan", b"1e400", b"\x1b[2J", b"\\ud800",
]  # fmt: skip
