"""Methods as plain values: what each takes, and the way there and back."""

from __future__ import annotations

from typing import Any

import pytest

from autolambda.errors import ConfigError, InputError
from autolambda.merging.method import METHODS, METHODS_IN_WORDS, Method
from autolambda.schedule import Schedule

HALF = Schedule.uniform(0.5)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (Method.linear(HALF), "lambda 0.5"),
        (Method.linear(HALF.beyond(scale=1.2, third=0.1)), "lambda 0.5, scale 1.2, third 0.1"),
        (Method("slerp", HALF), "slerp, lambda 0.5"),
        (Method("ties", base="b"), "ties"),
        (Method("task_arithmetic", base="b"), "task_arithmetic"),
    ],
)
def test_there_and_back(method: Method, words: str) -> None:
    assert Method.from_dict(method.to_dict(), base=method.base) == method and str(method) == words
    assert METHODS_IN_WORDS.keys() == set(METHODS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("ties", None, None), "ties needs a base model"),
        (("ties", HALF, "b"), "ties takes no lambda"),
        (("slerp", HALF, "b"), "slerp takes no base model"),
        (("linear", None, None), "linear needs a lambda"),
        (("slerp", HALF.beyond(scale=1.2), None), "slerp takes no scale and no third parent"),
    ],
)
def test_what_is_missing_or_too_much_is_named(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Method(*settings)


@pytest.mark.parametrize(
    "plain", [{}, {"method": "best"}, {"method": ["ties"]}, {"method": "linear", "schedule": 1}, {"schedule": {}}]
)
def test_anything_else_is_refused(plain: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="a method is one of"):
        Method.from_dict(plain)
