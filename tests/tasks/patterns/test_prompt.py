"""Prompts with names in braces: what is filled in, what stays, and what is refused."""

import pytest

from autolambda.errors import TaskError
from autolambda.tasks.patterns.prompt import (
    columns_in,
    doubled_columns,
    filled_in,
    formatted_columns,
    latex_columns,
    names_of,
)

COLUMNS = ["question", "Body", "answer", "a long name", "meta"]
VALUES = {"question": "Q {Body} {{x}}", "Body": "B", "a long name": "L", "meta.level": "3"}


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("{Body} {question}", "B Q {Body} {{x}}"),
        ("{a long name}, {meta.level}", "L, 3"),
        ("Put it in \\boxed{}.", "Put it in \\boxed{}."),
        ("{{Body}} and {{x}} stay", "{Body} and {x} stay"),
        ("{{{Body}}}", "{B}"),
        ("\\frac{Body}{n} x^{n} a_{Body} \\sqrt[3]{Body}", "\\frac{Body}{n} x^{n} a_{Body} \\sqrt[3]{Body}"),
        ("\\boxed{answer}", "\\boxed{answer}"),
        ("\\textbf{{{question}}}", "\\textbf{Q {Body} {{x}}}"),
        ("\\nAsked:\\nQ{question}", "\\nAsked:\\nQQ {Body} {{x}}"),
        ("a\\n{Body}\\t{Body}", "a\\nB\\tB"),  # a line end that YAML left as it is
        ('{"json": {"a": 1}} {1} {} { } {a, b}', '{"json": {"a": 1}} {1} {} { } {a, b}'),
    ],
)
def test_what_is_filled_in_and_what_stays(prompt, text):
    assert filled_in(prompt, VALUES) == text


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("{Body} {question} {Body}", ["Body", "question"]),
        ("{{question}} \\boxed{}", []),
        ("{{{question}}}", ["question"]),
        ("\\textbf{question} \\frac{a}{b}", ["question"]),
        ('{"json": 1}', ['"json": 1']),
    ],
)
def test_the_names_of_a_prompt(prompt, names):
    assert names_of(prompt) == names


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("{Body} {question}", ["Body"]),
        ("{meta.level} {a long name}", ["meta.level", "a long name"]),
        ('{"json": 1} {1} {} \\frac{a}{b} x^{n} {{x}} {a, b} {another thing}', []),
    ],
)
def test_the_columns_of_a_prompt(prompt, found):
    assert columns_in(prompt, COLUMNS, own=["question"], answer="answer") == found


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (
            "{body}",
            r"prompt: \{body\} is no column; did you mean \{Body\}\? known: question, Body, answer, .*\{\{body\}\}",
        ),
        ("{ Body }", r"did you mean \{Body\}\?"),
        ("{a long nam}", r"did you mean \{a long name\}\?"),
        ("{x}", r"\{x\} is no column; known: question, .*; for these braces themselves write \{\{x\}\}"),
        ("{choices}", r"\{choices\} is no column"),
        ("{other.level}", r"\{other.level\} is no column"),
        ("{answer}", r"\{answer\} would show the answer to the model; double the braces"),
    ],
)
def test_any_other_name_is_refused(prompt, message):
    with pytest.raises(TaskError, match=message) as caught:
        columns_in(prompt, COLUMNS, own=["question"], answer="answer")
    assert "\n" not in str(caught.value)


def test_a_column_inside_latex_is_told():
    assert latex_columns("\\boxed{answer} \\nBody{Body} {Body} \\frac{a}{question}", COLUMNS) == ["answer", "Body"]


def test_a_column_in_double_braces_is_told():
    assert doubled_columns("{{Body}} {{ meta }} {{x}} {{answer}} {Body}", COLUMNS, answer="answer") == ["Body", "meta"]


def test_a_column_with_a_format_is_told():
    prompt = "{Body!r} {Body:>9} {Body[0]} {Body} {answer: 5} {k:1} {x[0]} \\frac{Body!s}{2}"
    assert formatted_columns(prompt, ["Body", "answer", "x", "x[0]"]) == ["Body!r", "Body:>9", "Body[0]"]
