"""Rows that cannot be used, repeated prompts, odd ids and difficulties: left out and told, or refused all at once."""

import json

import mirrors
import pytest
from slices import slices_of

from autolambda.config import parse_config
from autolambda.errors import TaskError
from autolambda.tasks.config import SourceConfig
from autolambda.tasks.digest import prompts_key
from autolambda.tasks.items import open_pool
from autolambda.tasks.rows import numbered


def rows_of(num, **cells):
    return [{"question": f"{i}+1=", "answer": str(i + 1), **cells} for i in range(num)]


def pool(tmp_path, rows, **keys):
    """The pool of a file ``a.jsonl``, with its name left out of the notes."""
    path = tmp_path / "a.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    found = open_pool(SourceConfig(path=str(path), **keys))
    return found, [note.removeprefix(f"{path}: ") for note in found.notes]


BAD = {
    "line 3: 'answer' must be a text or a number, seen 'None'": {2: {"answer": None}},
    "line 3: grader 'number' cannot compare with the answer 'Paris' (it is not a number); correct it, or have it "
    "compared otherwise: --grader exact": {2: {"answer": "Paris"}},
    "line 3: 'question' is empty": {2: {"question": " "}},
    "line 3: no column 'answer'; it has 'question'": {2: ["question"]},
    "line 3: not JSON (": {2: '{"question": '},
    "line 3: expected a JSON object, seen '[1]'": {2: "[1]"},
}


@pytest.mark.parametrize("told", BAD)
def test_a_few_unusable_rows_are_left_out_and_told(tmp_path, told):
    rows = rows_of(40)
    for place, change in BAD[told].items():
        match change:
            case dict():
                rows[place] |= change
            case list():
                rows[place] = {name: rows[place][name] for name in change}
            case str():
                rows[place] = change
    found, [note] = pool(tmp_path, rows)
    assert len(found.items) == 39
    assert note.startswith(f"1 of 40 rows cannot be used and are left out: {told}")


def test_a_note_names_the_first_three_rows_of_each_kind(tmp_path):
    rows = rows_of(200)
    for place in (5, 9, 30, 77):
        rows[place]["answer"] = "none"
    rows[50]["question"] = ""
    found, [note] = pool(tmp_path, rows)
    assert len(found.items) == 195 and "\n" not in note
    assert note.startswith("5 of 200 rows cannot be used and are left out: line 6: grader 'number' cannot compare")
    assert note.endswith("(4 such rows: line 6, line 10, line 31, ...); line 51: 'question' is empty")


def test_many_unusable_rows_are_refused_with_every_kind_at_once(tmp_path):
    rows = rows_of(40)
    for place in (5, 9):
        rows[place]["answer"] = "none"
    rows[20]["question"] = ""
    with pytest.raises(TaskError) as caught:
        pool(tmp_path, rows)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}/a.jsonl, line 6: grader 'number' cannot compare with the answer 'none'")
    assert "(2 such rows: line 6, line 10); line 21: 'question' is empty. " in text
    assert text.endswith("3 of 40 rows cannot be used; at most 5% are left out (max_unusable)")
    found, [note] = pool(tmp_path, rows, max_unusable=0.1)
    assert len(found.items) == 37 and "3 of 40 rows" in note
    with pytest.raises(TaskError, match="1 of 40 rows cannot be used; at most 0% are left out"):
        pool(tmp_path, [*rows_of(39), {"question": "x", "answer": ""}], max_unusable=0)


def test_no_more_than_a_few_kinds_are_told(tmp_path):
    rows = [{"question": f"{i}", "options": ["x"] * i, "answer": "A"} for i in range(2, 12)]
    rows = [{**row, f"column {i}": 1, "answer": ["A", None, {}, [], [[]], "AA"][i % 6]} for i, row in enumerate(rows)]
    with pytest.raises(TaskError) as caught:
        pool(tmp_path, rows, choices="options")
    assert len(str(caught.value)) < 2000 and "10 of 10 rows" in str(caught.value)


def test_a_benchmark_by_name_and_a_set_by_hub_id_are_treated_alike(tmp_path):
    rows = [*mirrors.gsm8k(5, 40), {"question": "q", "answer": "no mark"}]
    path = mirrors.write_jsonl(tmp_path / "gsm8k.jsonl", rows)
    found = open_pool(SourceConfig(name="gsm8k", path=str(path)))
    assert len(found.items) == 40
    assert found.notes[0].startswith(
        f"{path}: 1 of 41 rows cannot be used and are left out: line 41: 'answer' must end"
    )


def test_the_ids_of_a_benchmark_may_be_none_either(tmp_path):
    path = mirrors.write_jsonl(tmp_path / "gsm8k.jsonl", [{**row, "id": "train"} for row in mirrors.gsm8k(5, 4)])
    found = open_pool(SourceConfig(name="gsm8k", path=str(path)))
    assert [item.sample.id for item in found.items] == ["1", "2", "3", "4"]
    assert found.notes == (f"{path}: the column 'id' is not used ('train' stands in 4 rows); rows go by their numbers",)


def test_a_benchmark_that_is_opened_as_any_set_is_named(monkeypatch):
    rows = [dict(row) for row in mirrors.gsm8k(5, 4)]
    monkeypatch.setattr("autolambda.tasks.items.read_hub", lambda hub, **keys: numbered(rows, hub))
    with pytest.raises(TaskError, match=r"grader 'number' .*; it is the benchmark gsm8k: take name: gsm8k"):
        open_pool(SourceConfig(hub="openai/gsm8k"))


def test_repeated_prompts_are_left_out_however_many(tmp_path):
    rows = [*rows_of(6), *rows_of(4), {"question": " 5+1=\n", "answer": "7"}]
    found, [note] = pool(tmp_path, rows)
    assert [item.sample.id for item in found.items] == ["1", "2", "3", "4", "5", "6"]
    places = "line 7 as line 1, line 8 as line 2, line 9 as line 3, ..."
    assert note.startswith(f"5 rows repeat a prompt and are left out ({places}); 1 of them with another answer (does")


NUMBERS = ["1", "2", "3"]


@pytest.mark.parametrize(
    ("ids", "keys", "expected", "told"),
    [
        (["a", "b", "c"], {}, ["a", "b", "c"], None),
        ([7, 8, 9], {}, ["7", "8", "9"], None),
        ([None, "b", "c"], {}, NUMBERS, "(line 1 holds no id)"),
        (["train"] * 3, {}, NUMBERS, "('train' stands in 3 rows)"),
        (["a", "a", "b"], {}, NUMBERS, "('a' stands in 2 rows)"),
        (["a", "b", "x" * 257], {}, NUMBERS, "(line 3 holds no id)"),
        (["a", "b", {}], {}, NUMBERS, "(line 3 holds no id)"),
        (["a", "b", ""], {}, NUMBERS, "(line 3 holds no id)"),
        ([1, 2, 3], {"id": "key"}, ["k0", "k1", "k2"], None),
    ],
)
def test_ids_that_are_none_give_way_to_the_numbers_of_the_rows(tmp_path, ids, keys, expected, told):
    rows = [{**row, "id": id, "key": f"k{i}"} for i, (row, id) in enumerate(zip(rows_of(3), ids, strict=True))]
    found, notes = pool(tmp_path, rows, **keys)
    assert [item.sample.id for item in found.items] == expected
    assert notes == ([f"the column 'id' is not used {told}; rows go by their numbers"] if told else [])


@pytest.mark.parametrize(
    ("ids", "message"),
    [([None, "b", "c"], "line 1: 'key' must be a text"), (["a", "a", "b"], "line 2: 'key' repeats an id, seen 'a'")],
)
def test_ids_that_the_config_names_must_be_ids(tmp_path, ids, message):
    rows = [{**row, "key": key} for row, key in zip(rows_of(3), ids, strict=True)]
    with pytest.raises(TaskError, match=message):
        pool(tmp_path, rows, id="key")
    many = [{**row, "key": f"k{i}"} for i, row in enumerate(rows_of(60))]
    many[7]["key"] = "k6"
    found, [note] = pool(tmp_path, many, id="key")
    assert len(found.items) == 59 and "line 8: 'key' repeats an id, seen 'k6'" in note


@pytest.mark.parametrize("odd", [{"qwen-7b": 0.5}, [1], {}])
def test_an_odd_difficulty_is_not_used_unless_the_config_names_it(tmp_path, odd):
    rows = rows_of(3, difficulty="easy", level=2)
    rows[1]["difficulty"] = odd
    found, [note] = pool(tmp_path, rows)
    assert note.startswith("the column 'difficulty' is not used (line 2, seen ") and len(found.items) == 3
    assert [dict(item.sample.metadata) for item in found.items] == [{}] * 3
    with pytest.raises(TaskError, match="line 2: 'difficulty' must be a text or a number"):
        pool(tmp_path, rows, difficulty="difficulty")
    found, notes = pool(tmp_path, rows, difficulty="level")
    assert [dict(item.sample.metadata) for item in found.items] == [{"difficulty": "2"}] * 3 and not notes


def test_a_column_in_the_prompt_is_filled_in(tmp_path):
    rows = [{"Body": f"Tom has {i} apples.", "question": "How many?", "answer": i} for i in range(3)]
    found, notes = pool(tmp_path, rows, prompt="{Body} {question} \\boxed{}")
    assert [item.sample.messages[0]["content"] for item in found.items][1] == "Tom has 1 apples. How many? \\boxed{}"
    assert len(found.items) == 3 and not notes
    with pytest.raises(TaskError, match=r"a.jsonl: prompt: \{body\} is no column; did you mean \{Body\}\?"):
        pool(tmp_path, rows, prompt="{body} {question}")
    _, [note] = pool(tmp_path, rows, prompt="{{Body}} {Body} {question}")
    assert note == "prompt: {{Body}} gives {Body}; single braces fill in the column"
    _, notes = pool(tmp_path, rows, prompt="{Body} {question} \\boxed{answer}")
    assert notes == ["prompt: {answer} stays as it is, as the argument of a LaTeX command"]
    _, [note] = pool(tmp_path, rows, prompt="{Body!r} {Body} {question}")
    assert note == "prompt: {Body!r} stays as it is; only a name fills in a column"


def test_a_difficulty_that_no_row_has_is_refused(tmp_path):
    with pytest.raises(TaskError, match="line 1: no column 'level'; it has 'question', 'answer'"):
        pool(tmp_path, rows_of(4), difficulty="level")


def test_answers_that_count_from_1_are_refused(tmp_path):
    rows = rows_of(4, choices=["w", "x", "y", "z"])
    with pytest.raises(TaskError, match="line 4: 'answer' seems to count the options from 1"):
        pool(tmp_path, rows, choices="choices", max_unusable=0.5)


def test_a_difficulty_may_be_missing(tmp_path):
    rows = rows_of(4)
    rows[0]["difficulty"], rows[1]["difficulty"], rows[2]["difficulty"] = 2, None, float("nan")
    found, notes = pool(tmp_path, rows)
    assert [dict(item.sample.metadata) for item in found.items] == [{"difficulty": "2"}, {}, {}, {}] and not notes


def test_the_question_may_be_named_by_its_column(tmp_path):
    rows = [{"Body": f"Tom has {i} apples.", "Question": "How many?", "Answer": i} for i in range(3)]
    keys = {"question": "Question", "answer": "Answer"}
    for prompt in ("{Body} {Question}", "{Body} {question}"):
        found, _ = pool(tmp_path, rows, prompt=prompt, **keys)
        assert found.items[2].sample.messages[0]["content"] == "Tom has 2 apples. How many?"


def test_the_prompts_of_a_clean_file_are_those_of_studies_begun_before(tmp_path):
    """Its digest was stored when odd rows were still refused."""
    rows = [
        {"id": f"r{i}", "question": f"{i}+1=", "answer": i + 1, "difficulty": "x" * (i % 2), "choices": ["a", "b"]}
        for i in range(30)
    ]
    path = mirrors.write_jsonl(tmp_path / "mine.jsonl", rows)
    digests = []
    for keys in ({}, {"grader": "math"}, {"grader": "exact", "prompt": "Say {question} in \\boxed{} {} as {1}"}):
        found = slices_of(parse_config({"tasks": [{"path": str(path), **keys}]}))
        key = prompts_key((found.search, found.confirm))
        digests.append([key[phase]["digest"] for phase in ("search", "confirm")])
        assert not found.notes
    assert digests == [
        ["381cd17c78bb3d3a", "3af67b62eda74399"],
        ["82759ab1363908d7", "f887a50bd2b82a4c"],
        ["e9d49265d4c1f8bc", "aa16c5e3bf48d08d"],
    ]
