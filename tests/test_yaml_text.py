"""YAML from a user: values as PyYAML reads them, and no text that takes it apart."""

import time

import pytest
import yaml

from autolambda.files import load_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(10 * [f'*{before}'])}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name}\n  <<: [{', '.join(20 * [f'*{before}'])}]\n"
    for before, name in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    "text",
    ["", "a: 1", "[1, 2.5, x, null, ~, yes, 2026-11-21, 0x1f, 1_0]", "a: &x {b: 1}\nc: {<<: *x, d: 2}\ne: [*x, *x]",
     "a: |\n  two\n  lines\nb: 'it''s'", "? 1\n: {2: [3]}", "{a: {<<: {b: 1}, b: 2}}"],
)  # fmt: skip
def test_what_is_meant_is_read(text):
    assert load_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x: 1\na: !!int ''", "'' is no int(.|\n)*line 2"),
        ("a: !!bool x", "'x' is no bool"),
        ("a: !!timestamp x", "'x' is no timestamp"),
        ("a: !!float ''", "'' is no float"),
        ("a: !!binary aGk=", "could not determine a constructor"),
        ("a: !!python/object:os.system {}", "could not determine a constructor"),
        ("a: =", "could not determine a constructor"),
        ("a: 0x" + "f" * 5000, "20000 bits is too long"),
        ("a: " + ":".join("1" * 3000), "bits is too long"),
        ("a: 1\nb: 2\na: 3", "the key 'a' stands twice(.|\n)*line 3"),
        ('a: "\\ud800"', "half of a UTF-16 pair"),
        ('a: "\\0"', "holds"),
        ("a: &x [*x]", "in itself"),
        (BOMB, "aliases expand to more than 100,000"),
        (MERGES, "aliases expand to more than 100,000"),
        ("[" * 5000, "nested deeper than 50"),
        ("- " * 5000, "nested deeper than 50"),
        ("--- a\n--- b", "another document"),
    ],
    ids=lambda text: text[:20],
)
def test_what_would_break_a_reader_is_a_yaml_error(text, problem):
    start = time.perf_counter()
    with pytest.raises(yaml.YAMLError, match=problem):
        load_yaml(text)
    assert time.perf_counter() - start < 5


def test_lists_may_be_nested_as_deep_as_it_is_said():
    assert load_yaml("[" * 50 + "]" * 50) == yaml.safe_load("[" * 50 + "]" * 50)
