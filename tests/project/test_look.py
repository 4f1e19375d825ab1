"""What a task file holds: columns under usual names, and the grader that its answers suit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autolambda.config import parse_config
from autolambda.errors import TaskError
from autolambda.graders.grading import likely_grader
from autolambda.project.look import look_at_task


def written(folder: Path, *rows: dict[str, object], number: int = 6) -> str:
    """A file whose rows are these, again and again, with questions that differ."""
    path = folder / "my.jsonl"
    lines = [json.dumps({key: _own(value, i) for key, value in rows[i % len(rows)].items()}) for i in range(number)]
    path.write_text("\n".join(lines))
    return str(path)


def _own(value: object, number: int) -> object:
    return value.replace("N", str(number)) if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("row", "keys"),
    [
        ({"question": "N?", "answer": "12"}, {"question": "question", "answer": "answer", "grader": "number"}),
        ({"Question": "N?", "Answer": "1,000"}, {"question": "Question", "answer": "Answer", "grader": "number"}),
        ({"prompt": "N?", "label": "Paris"}, {"question": "prompt", "answer": "label", "grader": "exact"}),
        ({"q": 1, "text": "N?", "gold": "B"}, {"question": "text", "answer": "gold", "grader": "choice"}),
        (
            {"problem": "N?", "solution": r"\frac{1}{2}"},
            {"question": "problem", "answer": "solution", "grader": "math"},
        ),
        (
            {"question": "N?", "choices": ["a", "b"], "answer": 1},
            {"choices": "choices", "question": "question", "answer": "answer", "grader": "choice"},
        ),
        (
            {"instruction": "N?", "input": "", "output": "7"},
            {"question": "instruction, input", "answer": "output", "grader": "number"},
        ),
        ({"question": "N?", "answer": "so\n#### 12"}, {"name": "gsm8k"}),
    ],
)
def test_columns_and_grader_are_found(tmp_path: Path, row: dict[str, object], keys: dict[str, object]) -> None:
    path = written(tmp_path, row)
    found = look_at_task(path, grader=None)
    assert found.keys == {"path": path} | keys and not found.asked and found.num_rows == 6
    parse_config({"tasks": [found.keys]})


def test_a_chat_whose_last_turn_is_the_answer(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
    path = tmp_path / "chat.jsonl"
    chats = [[{**turns[0], "content": f"{i}+1?"}, {**turns[1], "content": str(i + 1)}] for i in range(5)]
    path.write_text("\n".join(json.dumps({"messages": chat}) for chat in chats))
    found = look_at_task(str(path), grader=None)
    assert found.keys == {"path": str(path), "messages": "messages", "grader": "number"}
    assert "the assistant's, is the answer" in found.why["messages"]


def test_what_is_not_found_is_asked(tmp_path: Path) -> None:
    path = written(tmp_path, {"foo": "N?", "answer": "1"})
    found = look_at_task(path, grader=None)
    assert found.keys == {"path": path, "answer": "answer"}
    assert found.asked == {"question": "which column holds the question? There are foo, answer"}


def test_a_grader_that_is_given_is_kept_and_other_sources_are_as_named(tmp_path: Path) -> None:
    path = written(tmp_path, {"question": "N?", "answer": "12"})
    assert look_at_task(path, grader="contains").keys["grader"] == "contains"
    assert look_at_task("gsm8k", grader=None).keys == {"name": "gsm8k"}
    assert look_at_task("some/set", grader="math").keys == {"hub": "some/set", "grader": "math"}


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="does not exist"):
        look_at_task(str(tmp_path / "no.jsonl"), grader=None)
    (tmp_path / "no.jsonl").write_text("{\n[")
    with pytest.raises(TaskError, match="no row can be read"):
        look_at_task(str(tmp_path / "no.jsonl"), grader=None)


@pytest.mark.parametrize(
    ("targets", "grader"),
    [
        (["1", "-2.5", "1,000"], "number"),
        (["1"] * 39 + ["many"], "number"),
        (["1", "2", "many"], "exact"),
        (["A", "b"], "choice"),
        (["$x^2$", r"\sqrt{2}", "7"], "math"),
        (["1/2", "2/3"], "math"),
        (["Paris"], "exact"),
    ],
)
def test_the_grader_that_suits(targets: list[str], grader: str) -> None:
    assert likely_grader(targets) == grader
