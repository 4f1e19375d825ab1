"""Options and the right one in every form that common sets have."""

import pytest

from autolambda.errors import TaskError
from autolambda.graders.base import any_of
from autolambda.tasks.patterns.multiple_choice import multiple_choice
from autolambda.tasks.rows import Row

LISTED = "A) x\nB) y"


def item_of(options, answer, choices="options", **cells):
    row = Row({"question": "Q", "options": options, "answer": answer, **cells}, "a", "line 1")
    return multiple_choice(row, question="question", choices=choices, answer="answer", prompt="{question}\n{choices}")


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (["x", "y"], "B"),
        ('["x", "y"]', "B"),
        ("['x', 'y']", 1),
        ({"text": ["x", "y"], "label": ["A", "B"]}, "B"),
        ({"text": ["x", "y"], "label": ["1", "2"]}, "2"),
        ({"text": ["x", "y"], "label": ["1", "2"]}, 2),
        ('{"text": ["x", "y"], "label": ["A", "B"]}', "B"),
        ([{"text": "x", "label": "A"}, {"text": "y", "label": "B"}], "B"),
        ([{"text": "x"}, {"text": "y"}], 1),
        ({"A": "x", "B": "y"}, "B"),
        ({"A": "x", "B": "y", "C": None, "D": None}, "B"),
        ({"opt1": "x", "opt2": "y"}, "opt2"),
        (["x", "y"], "y"),
        (["x", "y"], " Y "),
        (["x", "y"], "(B)"),
        (["x", "y"], "b."),
        (["x", "y"], ["B"]),
        (["x", "y"], "['y']"),
    ],
)
def test_options_and_the_right_one(options, answer):
    item = item_of(options, answer)
    assert item.sample.target == "B" and item.sample.messages[0]["content"] == f"Q\n{LISTED}"


def test_options_in_columns_of_their_own():
    item = item_of(None, "B", choices="opa, opb, opc", opa="x", opb="y", opc=None)
    assert item.sample.target == "B" and item.sample.messages[0]["content"] == f"Q\n{LISTED}"


@pytest.mark.parametrize(
    ("options", "answer", "target"),
    [
        (["4", "5", "6"], "5", "B"),  # no index
        ([4, 5, 6], 5, "B"),
        (["1", "0", "3"], 1, "B"),  # a number is an index, as in MMLU, whatever stands in the options
        (["A", "B"], "B", "B"),
        ([True, False], True, "A"),
        (["yes", "no"], "no", "B"),
        (["x", "y", "z"], ["A", "C"], any_of(["A", "C"])),
    ],
)
def test_the_letter_the_index_and_the_text(options, answer, target):
    assert item_of(options, answer).sample.target == target


@pytest.mark.parametrize(
    ("options", "answer", "message"),
    [
        (["1", "2", "3"], "2", "'answer' is the letter or the index of one option and the text of another, seen '2'"),
        ([1, 2, 3], 2, "is the letter or the index of one option and the text of another"),
        (["B", "A"], "A", "is the letter or the index of one option and the text of another"),
        ({"text": ["x", "y"], "label": ["1", "2"]}, 0, "must be the letter of an option"),
        (["x", "y"], "z", "must be the letter of an option .A to B. or its index from 0, or its text, seen 'z'"),
        (["x", "y"], None, "must be the letter of an option"),
        (["x", "y"], ["A", "z"], "must be the letter of an option"),
        ({"A": "x"}, "A", "must hold 2 to 26 different options"),
        ("x", "A", "must be a list with something in it"),
    ],
)
def test_what_names_no_option_or_two(options, answer, message):
    with pytest.raises(TaskError, match=message):
        item_of(options, answer)
