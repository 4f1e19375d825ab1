"""Columns under their usual names are recognised with a note, and only where the rows fit and the config is silent."""

import json

import pytest

from autolambda.errors import TaskError
from autolambda.tasks.config import SourceConfig
from autolambda.tasks.items import open_pool

OPTIONS = [f"option {i}" for i in range(4)]


def pool(tmp_path, rows, **keys):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = open_pool(SourceConfig(path=str(path), **keys))
    return found, [note.removeprefix(f"{path}: ") for note in found.notes]


@pytest.mark.parametrize(
    ("cells", "named"),
    [
        ({"choices": OPTIONS, "answer": 1}, "'choices'"),
        ({"options": OPTIONS, "answer": "B"}, "'options'"),
        ({"choices": {"text": OPTIONS, "label": list("ABCD")}, "answer": "B"}, "'choices'"),
        ({"options": OPTIONS, "answer": "option 1"}, "'options'"),
        (dict(zip("ABCD", OPTIONS, strict=True)) | {"answer": "B"}, "'A', 'B', 'C', 'D'"),
    ],
)
@pytest.mark.parametrize("keys", [{}, {"grader": "choice"}])
def test_options_make_multiple_choice(tmp_path, cells, named, keys):
    rows = [{"question": f"Q{i}", **cells} for i in range(4)]
    found, [note] = pool(tmp_path, rows, **keys)
    assert note == f"multiple choice with the options in {named}; grader exact asks without them"
    assert found.grader == "choice" and {item.sample.target for item in found.items} == {"B"}
    assert "C) option 2" in found.items[0].sample.messages[0]["content"]


@pytest.mark.parametrize(
    ("cells", "keys"),
    [
        ({"answer": 17}, {}),  # the index of no option
        ({"answer": "B"}, {"grader": "exact"}),
        ({"answer": 1}, {"prompt": "{question}!"}),
        ({"answer": "B", "question": "Q: " + " ".join(OPTIONS)}, {"grader": "choice"}),  # asked already
        ({"answer": 1, "choices": "none"}, {}),
    ],
)
def test_options_are_left_alone_where_the_rows_or_the_config_say_otherwise(tmp_path, cells, keys):
    rows = [{"choices": OPTIONS, "question": "Q", **cells} for _ in range(4)]
    found, notes = pool(tmp_path, [{**row, "question": f"{row['question']} {i}"} for i, row in enumerate(rows)], **keys)
    assert len(found.items) == 4 and not notes
    assert "C) option" not in found.items[0].sample.messages[0]["content"]


LAST = "the last turn of {!r}, the assistant's, is the answer"
CHAT = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "7"}]


@pytest.mark.parametrize(
    ("cells", "prompt", "target", "notes"),
    [
        ({"messages": CHAT}, "Q", "7", ["messages is read from 'messages'", LAST.format("messages")]),
        (
            {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "7"}]},
            "Q",
            "7",
            ["messages is read from 'conversations'", LAST.format("conversations")],
        ),
        ({"messages": CHAT[:1], "answer": "8"}, "Q", "8", ["messages is read from 'messages'"]),
        (
            {"prompt": CHAT[:1], "reward_model": {"style": "rule", "ground_truth": "7"}},
            "Q",
            "7",
            ["messages is read from 'prompt'", "answer is read from 'reward_model.ground_truth'"],
        ),
        (
            {"instruction": "Add.", "input": "3+4", "output": "7"},
            "Add.\n\n3+4",
            "7",
            ["question is read from 'instruction', 'input'", "answer is read from 'output'"],
        ),
        ({"instruction": "Add.", "input": "", "output": "7"}, "Add.", "7", None),
        ({"instruction": "Q", "answer": "7"}, "Q", "7", ["question is read from 'instruction'"]),
    ],
)  # fmt: skip
def test_chats_and_instructions(tmp_path, cells, prompt, target, notes):
    found, told = pool(tmp_path, [cells, {**cells, "difficulty": 1}])
    sample = found.items[0].sample
    assert (sample.messages[0]["content"], sample.target) == (prompt, target)
    assert notes is None or told[: len(notes)] == notes


def test_a_question_column_comes_first(tmp_path):
    found, notes = pool(tmp_path, [{"question": f"q{i}", "answer": "1", "messages": CHAT} for i in range(2)])
    assert found.items[0].sample.messages[0]["content"] == "q0" and not notes


def test_what_has_no_usual_name_is_refused_with_the_columns(tmp_path):
    with pytest.raises(TaskError, match=r"no column 'question'; it has 'frage', 'antwort'. Name yours"):
        pool(tmp_path, [{"frage": "1", "antwort": "2"}] * 2)


def test_a_system_prompt_or_a_history_that_is_not_asked_is_told(tmp_path):
    rows = [
        {"instruction": f"{i}+1=", "input": "", "output": i + 1, "system": "Be terse", "history": []} for i in range(3)
    ]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows))
    notes = open_pool(SourceConfig(path=str(path))).notes
    assert notes[-1] == f"{path}: 'system': not asked; prompt or question names the columns that are"
