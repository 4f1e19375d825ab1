"""Regex: what is found, what is not, and an expression that would take forever."""

import pytest

from autolambda.graders.regex import Regex

REGEX = Regex()


@pytest.mark.parametrize(
    ("text", "target", "answer", "correct"),
    [
        ("It is 42 km.\n", r"\d+ km", "42 km", True),
        ("  42", r"^42$", "42", True),
        ("It is 42 m.", r"\d+ km", "It is 42 m.", False),
        ("PARIS", "paris", "PARIS", False),
        ("PARIS", "(?i)paris", "PARIS", True),
        ("a\nb", "a.b", "a\nb", False),
        ("a\nb", "(?s)a.b", "a\nb", True),
        ("bbb", "a*", "bbb", True),
        ("na\u00efve", r"\p{L}{5}", "na\u00efve", True),
        ("", "a*", None, False),
        (" \n", r"\s", None, False),
    ],
)
def test_what_is_found(text, target, answer, correct):
    parsed = REGEX.grade(text, target)
    assert (parsed.answer, parsed.correct) == (answer, correct)


def test_a_search_that_takes_forever_ends(monkeypatch):
    monkeypatch.setattr("autolambda.graders.regex._SECONDS", 0.2)
    with pytest.raises(TimeoutError):
        REGEX.grade("a" * 40 + "!", "(a|aa)+$")


def test_only_an_empty_text_is_told_at_once():
    assert REGEX.quick(" ", "a").answer is None
    assert REGEX.quick("a", "a") is None
