"""Answers and conversations as people have them: lists, structures, JSON in a cell, ShareGPT, last turns."""

import pytest

from autolambda.errors import TaskError
from autolambda.graders.base import any_of, right_answers
from autolambda.tasks.patterns.free_form import conversation, free_form, target_of
from autolambda.tasks.rows import Row


@pytest.mark.parametrize(
    ("cell", "grader", "answers"),
    [
        (["2"], "math", ["2"]),
        (["2", "two", "2"], "exact", ["2", "two"]),
        ([2, 3.5], "number", ["2", "3.5"]),
        (["2", None, ""], "exact", ["2"]),
        ('["2", "two"]', "exact", ["2", "two"]),
        ("['2', \"t'wo\"]", "exact", ["2", "t'wo"]),
        ("[18]", "number", ["18"]),
        ("[1, 2]", "math", ["[1, 2]"]),  # an interval
        ("[1, 2]", "exact", ["[1, 2]"]),
        ('["a"]', "regex", ['["a"]']),  # a class of characters
        ('["a", "b"]', "my.module:grade", ['["a", "b"]']),
        (["a", "b"], "my.module:grade", ["a", "b"]),
        ({"value": "Paris", "aliases": ["Paris", "City of Light"]}, "exact", ["Paris", "City of Light"]),
        ({"text": ["one", "1"], "answer_start": [3, 7]}, "exact", ["one", "1"]),
        (True, "exact", ["true"]),
        (3.0, "exact", ["3"]),
        (3.0, "number", ["3.0"]),
        (3, "exact", ["3"]),
    ],
)
def test_the_right_answers(cell, grader, answers):
    found = target_of(Row({"answer": cell}, "a", "line 1"), "answer", grader)
    assert right_answers(found) == answers and found == any_of(answers)


@pytest.mark.parametrize("cell", [[], [""], [None], {}, {"a": "1"}, [["1"]], [{"a": 1}], None])
def test_cells_without_an_answer(cell):
    with pytest.raises(TaskError, match=r"a, line 1: 'answer' (is empty|must be a text or a number)"):
        target_of(Row({"answer": cell}, "a", "line 1"), "answer", "exact")


def test_rows_that_differ_in_another_column_ask_different_questions():
    rows = [
        Row({"Body": f"B{i}", "question": "How many?", "answer": "1", "extra": None}, "a", "line 1") for i in (1, 2)
    ]
    items = [
        free_form(
            row, question="question", answer="answer", prompt="{Body} {question}{extra}", columns=["Body", "extra"]
        )
        for row in rows
    ]
    assert [item.sample.messages[0]["content"] for item in items] == ["B1 How many?", "B2 How many?"]
    assert items[0].question != items[1].question


@pytest.mark.parametrize(("more", "asked"), [("list: 1", "Sort.\n\nlist: 1"), ("", "Sort."), (None, "Sort.")])
def test_a_question_in_several_columns(more, asked):
    row = Row({"instruction": "Sort.", "input": more, "output": "1"}, "a", "line 1")
    item = free_form(row, question="instruction, input", answer="output")
    assert item.sample.messages[0]["content"] == asked


USER, REPLY = {"role": "user", "content": "2+2"}, {"role": "assistant", "content": "<think>\nso\n</think>\n\n4"}


@pytest.mark.parametrize(
    ("chat", "cells", "target", "num_turns"),
    [
        ([USER, REPLY], {}, "4", 1),
        ([USER, REPLY], {"answer": "5"}, "5", 1),
        ([USER], {"answer": "5"}, "5", 1),
        ([USER, REPLY, USER, {"role": "assistant", "content": "7"}], {}, "7", 3),
        ([{"from": "human", "value": "2+2"}, {"from": "gpt", "value": "4"}], {}, "4", 1),
        ([{"from": "system", "value": "s"}, {"from": "user", "value": "2+2"}], {"answer": 4}, "4", 2),
        (
            [{"role": "user", "content": [{"type": "text", "text": "2+"}, {"type": "text", "text": "2"}]}, REPLY],
            {},
            "4",
            1,
        ),
        ('[{"role": "user", "content": "2+2"}]', {"answer": 4}, "4", 1),
    ],
)
def test_conversations(chat, cells, target, num_turns):
    item = conversation(Row({"chat": chat, **cells}, "a", "line 1"), messages="chat", answer="answer")
    assert (item.sample.target, len(item.sample.messages)) == (target, num_turns)
    assert all(set(message) == {"role", "content"} for message in item.sample.messages)
    assert item.sample.messages[-1]["role"] == "user"


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ([USER], "no column 'answer'"),
        ([REPLY], "'chat' must end with a question, or with one answer to it"),
        ([USER, REPLY, REPLY], "'chat' must end with a question"),
        ([{"from": "human", "value": ""}, REPLY], "a message's 'content' is empty"),
        (
            [{"role": "user", "content": [{"type": "image", "image": "x"}]}, REPLY],
            "a message's 'content' must be a text",
        ),
    ],
)
def test_conversations_that_cannot_be_used(chat, message):
    with pytest.raises(TaskError, match=message):
        conversation(Row({"chat": chat}, "a", "line 1"), messages="chat", answer="answer")
