"""Options and the right one in every form that common sets have."""

import pytest

from autolambda.errors import TaskError
from autolambda.graders.base import any_of
from autolambda.tasks.patterns.multiple_choice import counting_note, multiple_choice
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


@pytest.mark.parametrize("answer", ["B", "(b)", "22", "B) 22", 1])
def test_options_with_labels_in_front(answer):
    assert item_of(["A) 21", "B) 22", "C) 23"], answer).sample.target == "B"


def test_options_out_of_the_order_of_their_labels_are_not_taken_for_it():
    with pytest.raises(TaskError, match="the letter of one option and stands before the text of another, seen 'B'"):
        item_of(["B) 22", "A) 21"], "B")
    assert item_of(["B) 22", "A) 21"], "22").sample.target == "A"


@pytest.mark.parametrize(
    ("flags", "target"),
    [([0, 1, 0], "B"), ([False, True, False], "B"), ([1, 0, 1], any_of(["A", "C"])), ("[0, 0, 1]", "C")],
)
def test_a_flag_for_each_option(flags, target):
    assert item_of(["x", "y", "z"], flags).sample.target == target
    with pytest.raises(TaskError, match="'answer' must be the letter of an option"):
        item_of(["x", "y", "z"], [0, 0, 0])


def rows_with(answers):
    options = ["w", "x", "y", "z"]
    return [Row({"options": options, "answer": each}, "a", f"line {i}") for i, each in enumerate(answers, start=1)]


@pytest.mark.parametrize("answers", [[1, 4, 2], ["1", "4"], [4.0, 2.0], [None, 4, 1]])
def test_answers_that_count_from_1_are_refused(answers):
    with pytest.raises(
        TaskError, match=r"line [12]: 'answer' seems to count the options from 1 .*; an index counts from"
    ):
        counting_note(rows_with(answers), choices="options", answer="answer")


@pytest.mark.parametrize("answers", [[0, 4, 2], [1, 2, 3], ["A", "D"], ["w", "z"], [4, 4], [3] * 19])
def test_answers_that_count_from_0_are_taken(answers):
    assert counting_note(rows_with(answers), choices="options", answer="answer") is None


def test_many_answers_without_a_0_are_told():
    note = counting_note(rows_with([1, 2, 3] * 7), choices="options", answer="answer")
    assert note == "no 'answer' is 0; if it counts the options from 1: an index counts from 0, so subtract 1 from each"


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
