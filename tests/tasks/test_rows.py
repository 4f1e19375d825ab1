"""Rows of a user's file: every form gives the same ones, and what is wrong is said with its place."""

import datetime
import decimal
import json

import pandas
import pyarrow
import pyarrow.parquet
import pytest
from slices import slices_of

from autolambda.config import parse_config
from autolambda.errors import TaskError
from autolambda.tasks.config import SourceConfig
from autolambda.tasks.items import open_pool
from autolambda.tasks.rows import Row, UnusableRow, read_file

ROWS = [{"question": f"{i}+1=", "answer": str(i + 1)} for i in range(20)]


def samples_of(path, **keys):
    """All samples of a task on a file, in the file's order."""
    slices = slices_of(parse_config({"tasks": [{"path": str(path), **keys}]}))
    found = [*slices.search[0].samples, *slices.confirm[0].samples]
    return sorted(found, key=lambda sample: int(sample.id))


def prompts(samples):
    return [sample.messages[0]["content"] for sample in samples]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def save(path, rows):
    frame = pandas.DataFrame(rows)
    if path.suffix.lower() == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        write(path, "".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.json", "mine.csv", "mine.CSV", "mine.parquet"])
def test_every_form_gives_the_same_rows(tmp_path, name):
    samples = samples_of(save(tmp_path / name, ROWS))
    assert prompts(samples) == [row["question"] for row in ROWS]
    assert [sample.target for sample in samples] == [row["answer"] for row in ROWS]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_numbers_become_text(tmp_path, name):
    samples = samples_of(save(tmp_path / name, [{"question": 1, "answer": 2.5}, {"question": 2, "answer": 3.0}]))
    assert prompts(samples) == ["1", "2"]
    assert [sample.target for sample in samples] == ["2.5", "3.0"]


def test_integers_stay_integers_beside_an_empty_cell(tmp_path):
    rows = [{"question": "a", "answer": 1, "level": None}, {"question": "b", "answer": 2, "level": 7}]
    assert (
        read_file(save(tmp_path / "a.parquet", pandas.DataFrame(rows).astype({"level": "Int64"})))[1].text("level")
        == "7"
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.jsonl", '\ufeff{"question": "é\u2028ü", "answer": "1"}\r\n\r\n{"question": "日本", "answer": "2"}'),
        ("bom.csv", '\ufeffquestion,answer\r\n"é\u2028ü",1\r\n日本,2\r\n'),
    ],
)
def test_bom_line_ends_and_unicode(tmp_path, name, content):
    assert prompts(samples_of(write(tmp_path / name, content))) == ["é\u2028ü", "日本"]


def test_a_csv_keeps_words_that_pandas_would_call_missing(tmp_path):
    file = write(tmp_path / "a.csv", 'question,answer\nq,NA\n"two\nlines, one",null\n')
    samples = samples_of(file, grader="exact")
    assert {sample.target for sample in samples} == {"NA", "null"}
    assert "two\nlines, one" in prompts(samples)


def test_columns_can_have_other_names_and_ids_are_kept(tmp_path):
    rows = [{"id": f"{i}", "prompt": f"p{i}", "target": i} for i in (11, 12)]
    samples = samples_of(save(tmp_path / "a.jsonl", rows), question="prompt", answer="target")
    assert [sample.id for sample in samples] == ["11", "12"]


BAD_JSONL = {
    "": "0 rows; at least 2",
    '{"question": "a", "answer": "1"}': "1 rows; at least 2",
    '{"question": "a", "answer": "1"}\n{"question": ': "line 2: not JSON",
    "\n\n{'question': 'a'}": "line 3: not JSON",
    "[1, 2]": r"line 1: expected a JSON object, seen '\[1, 2\]'",
    "7": "line 1: expected a JSON object",
    "[" * 100_000: "cannot be read|not JSON",
    '{"question": "a", "answer": ' + "9" * 5000 + "}": "line 1: not JSON .Exceeds the limit .4300 digits",
    '{"question": "a", "solution": "1"}': "line 1: no column 'answer'; it has 'question', 'solution'",
    '{"question": "a", "answer": "1", "answer": "2"}': "line 1: not JSON .the key 'answer' occurs twice",
    '{"question": "a", "answer": "1", "x": '
    + "[" * 200
    + "]" * 200
    + "}": "line 1: not JSON .it is nested deeper than 100",
    json.dumps(
        {f"column {i}": i for i in range(5000)}
    ): "no column 'question'; it has 'column 0', .{150,200}. Name yours",
    "{}": "no column 'question'; it has none",
    '{"question": "a", "answer": null}': "line 1: 'answer' must be a text or a number, seen 'None'",
    '{"question": "a", "answer": NaN}': "seen 'nan'",
    '{"question": "a", "answer": true}': "grader 'number' cannot compare with the answer 'true'",
    '{"question": "a", "answer": []}': "line 1: 'answer' is empty",
    '{"question": "a", "answer": [["1"]]}': "must be a text or a number, seen .*1",
    '{"question": "a", "answer": {"b": 1, "c": 2}}': "seen b, c; name a field of it, as in answer: answer.b",
    '{"question": " ", "answer": "1"}': "line 1: 'question' is empty",
    '{"question": "\\ud800", "answer": "1"}': "half of a UTF-16 pair",
    '{"question": "a", "answer": "1"}\n{"question": "b", "answer": "one"}': "line 2: grader 'number' .* 'one'",
    '{"question": "a", "answer": "so #### 7"}\n{"question": "b", "answer": ""}': "line 1: .*name: gsm8k",
    '{"question": "a", "answer": "1"}\n{"question": " a\\n", "answer": "2"}': "1 rows; at least 2 .* .1 rows repeat a "
    "prompt and are left out .line 2 as line 1.; 1 of them with another answer",
}


@pytest.mark.parametrize("content", BAD_JSONL, ids=lambda content: content[:40])
def test_what_is_wrong_is_said_with_its_line(tmp_path, content):
    path = write(tmp_path / "bad.jsonl", content)
    with pytest.raises(TaskError, match=BAD_JSONL[content]) as caught:
        samples_of(path)
    assert "bad.jsonl" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "0 rows"),
        ("a.csv", "question,answer\n", "0 rows"),
        ("a.csv", "question,answer\nwhat is 1,000+2?,1002\n", "line 2: more fields"),
        ("a.csv", "question,answer\na\n", "line 2: 'answer' must be a text"),
        ("a.csv", "question,answer\na,\nb,2\n", "line 2: grader 'number' cannot compare"),
        ("a.csv", 'question,answer\n"a,1\n', "cannot be read"),
        ("a.csv", "prompt;answer\na;1\n", "no column 'question'; it has 'prompt', 'answer'"),
        ("a.csv", b"\x89PNG\r\n\x1a\n\x00\xff", "cannot be read"),
        ("a.jsonl", b"\x80\x02\xff", "cannot be read"),
        ("a.parquet", b"", "cannot be read"),
        ("a.parquet", b"PAR1 but no more", "cannot be read"),
        ("a.txt", "question,answer\n", "its ending must be"),
        ("a", "", "its ending must be"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    with pytest.raises(TaskError, match=message) as caught:
        samples_of(write(tmp_path / name, content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_column_may_stand_once(tmp_path, name):
    content = "question,answer,answer\na,1,2\nb,3,4\n"
    if name == "a.parquet":
        columns = [pyarrow.array(each) for each in (["a", "b"], [1, 3], [2, 4])]
        pyarrow.parquet.write_table(
            pyarrow.Table.from_arrays(columns, ["question", "answer", "answer"]), tmp_path / name
        )
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(TaskError, match="the column 'answer' occurs twice; remove or rename one"):
        read_file(tmp_path / name)


def test_empty_columns_of_a_spreadsheet_do_not_count_as_twice(tmp_path):
    (row,) = read_file(write(tmp_path / "a.csv", "question,answer,,\na,1,,\n"))
    assert (row.text("question"), row.text("answer")) == ("a", "1")


def test_a_parquet_file_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("autolambda.tasks.formats.tables.MOST_BYTES", 1 << 24)
    path = tmp_path / "bomb.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"question": ["x" * 100_000] * 2000, "answer": [1] * 2000}), path)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(TaskError, match="its rows take more than"):
        read_file(path)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"question": "x" * 16_000_001}, "'question' has 16,000,001 characters; at most"),
        ({"answer": "1" * 1_000_001}, "the answer has 1,000,001 characters"),
    ],
)
def test_a_cell_has_a_size(tmp_path, cells, message):
    rows = [{"question": "a", "answer": "1"}, {"question": "b", "answer": "2"} | cells]
    with pytest.raises(TaskError, match=message) as caught:
        samples_of(save(tmp_path / "a.jsonl", rows))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("empty", [None, float("nan")])
def test_an_empty_cell_of_a_parquet_file_is_refused(tmp_path, empty):
    file = save(tmp_path / "a.parquet", [{"question": "a", "answer": 1.0}, {"question": "b", "answer": empty}])
    with pytest.raises(TaskError, match="row 2: 'answer' must be a text or a number"):
        samples_of(file)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (3.0, "3.0"),
        (10**400, "1" + "0" * 400),
        (decimal.Decimal("3.50"), "3.50"),
        (datetime.date(2024, 2, 29), "2024-02-29"),
        (datetime.datetime(2024, 2, 29), "2024-02-29"),
        (datetime.datetime(2024, 2, 29, 12, 30), "2024-02-29 12:30:00"),
        (datetime.time(12, 30), "12:30:00"),
        ("\u00e9".encode(), "\u00e9"),
        (b"\xff", None),
        (None, None),
        (float("nan"), None),
        (decimal.Decimal("nan"), None),
        ([], None),
        ({}, None),
    ],
)
def test_what_a_cell_is_as_text(value, text):
    row = Row({"answer": value}, "mine.parquet", "row 7")
    if text is None:
        with pytest.raises(
            UnusableRow, match=r"mine.parquet, row 7: 'answer' must be a text or a number, seen"
        ) as caught:
            row.text("answer")
        assert caught.value.kind == "'answer' must be a text or a number" and caught.value.row is row
    else:
        assert row.text("answer") == text


def test_dates_and_decimals_of_a_parquet_file_are_text(tmp_path):
    rows = [
        {"question": f"When {i}?", "answer": datetime.date(2024, 1, i), "worth": decimal.Decimal(f"{i}.50")}
        for i in (1, 2)
    ]
    path = save(tmp_path / "a.parquet", rows)
    assert [sample.target for sample in samples_of(path, grader="exact")] == ["2024-01-01", "2024-01-02"]
    assert [sample.target for sample in samples_of(path, answer="worth")] == ["1.50", "2.50"]


@pytest.mark.parametrize(
    ("cells", "column", "found"),
    [
        ({"a": {"b": {"c": 7}}}, "a.b.c", 7),
        ({"a": '{"b": 7}'}, "a.b", 7),
        ({"a": "{'b': 7}"}, "a.b", 7),
        ({"a": {"b": ["x", "y"]}}, "a.b.1", "y"),
        ({"a.b": 1, "a": {"b": 2}}, "a.b", 1),
        ({"a": {"b": None}}, "a.b", None),
        ({"a": {"b": 1}}, "a.c", KeyError),
        ({"a": 7}, "a.b", KeyError),
        ({"a": ["x"]}, "a.1", KeyError),
        ({}, "a.b", KeyError),
    ],
)
def test_a_dotted_column_is_a_field(cells, column, found):
    row = Row(cells, "mine.jsonl", "line 2")
    assert row.has(column) == (found is not KeyError)
    if found is KeyError:
        with pytest.raises(UnusableRow, match=f"line 2: no column '{column}'; it has"):
            row.cell(column)
    else:
        assert row.cell(column) == found


def test_missing_files_and_folders_are_told_apart(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(TaskError, match="does not exist"):
        samples_of(tmp_path / "gone.jsonl")
    with pytest.raises(TaskError, match="directory"):
        samples_of(tmp_path / "folder.jsonl")
    with pytest.raises(TaskError, match="cannot be read"):
        samples_of(tmp_path / ("x" * 300 + ".jsonl"))


@pytest.mark.parametrize("said", [{"split": "train"}, {"subset": "main"}])
def test_a_file_has_no_splits(tmp_path, said):
    with pytest.raises(TaskError, match=f"no subsets or splits; leave out {next(iter(said))}"):
        samples_of(save(tmp_path / "a.jsonl", ROWS), **said)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (["a", 1], ["a", 1]),
        ('["a", 1]', ["a", 1]),
        ("['a', \"b's\"]", ["a", "b's"]),
        ("['a' 'b']", None),
        ("[]", None),
        ([], None),
        ("a", None),
        (None, None),
        (7, None),
    ],
)
def test_a_list_may_be_written_as_json(cell, expected):
    row = Row({"choices": cell}, "mine.csv", "line 2")
    if expected is None:
        with pytest.raises(TaskError, match=r"mine.csv, line 2: 'choices' must be a list with something in it"):
            row.items("choices")
    else:
        assert row.items("choices") == expected


def test_a_table_without_a_header_is_told(tmp_path):
    path = tmp_path / "mmlu.csv"
    path.write_text("Find it,0,4,2,6,B\nFind the other,0,4,2,6,A\n")
    with pytest.raises(TaskError, match=r"no column 'question'.*; the first line of a table must name its columns"):
        open_pool(SourceConfig(path=str(path)))
