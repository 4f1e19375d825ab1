"""File formats as people have them: arrays, packed files, encodings, separators, and files that are refused."""

import gzip
import json
import warnings

import pytest

from autolambda.errors import TaskError
from autolambda.tasks.rows import read_file

ROWS = [{"question": f"é{i}\u2028?", "answer": i} for i in range(3)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
TABLE = 'question;answer\n"a;b";1\nc, d;2\n'


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)  # gzip's header holds a clock; the names of cases may not


def cells_of(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [dict(row.cells) for row in read_file(path)]


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".ndjson", ".json.gz"])
@pytest.mark.parametrize(
    "document",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=1),
        "\ufeff" + json.dumps(ROWS, indent=1),
        "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]",
        json.dumps({"data": ROWS}),
        json.dumps({"version": "1.1", "data": ROWS}, indent=2),
        json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]}),
        json.dumps({key: {str(i): row[key] for i, row in enumerate(ROWS)} for key in ROWS[0]}),
        json.dumps({f"id {i}": row for i, row in enumerate(ROWS)}),
        LINES,
        LINES.replace("\n", "\r\n"),
        LINES.replace("\n", "\n\n"),
    ],
    ids=[
        "array",
        "indented",
        "bom",
        "array of lines",
        "data",
        "version",
        "columns",
        "pandas",
        "rows",
        "lines",
        "crlf",
        "blank",
    ],
)
def test_json_in_every_shape(tmp_path, ending, document):
    content = document.encode()
    assert cells_of(tmp_path / f"a{ending}", packed(content) if ending.endswith("gz") else content) == ROWS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_text_tells_its_encoding(tmp_path, encoding):
    assert cells_of(tmp_path / "a.jsonl", LINES.encode(encoding)) == ROWS
    table = "question,answer\r\né,1\r\n"
    assert cells_of(tmp_path / "a.csv", table.encode(encoding)) == [{"question": "é", "answer": "1"}]
    assert cells_of(tmp_path / "a.csv.gz", packed(table.encode(encoding))) == [{"question": "é", "answer": "1"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", TABLE),
        ("a.csv", TABLE.replace("\n", "\r\n")),
        ("a.csv", "sep=;\n" + TABLE),
        ("a.csv", 'question,answer\n"a;b",1\n"c, d",2\n'),
        ("a.csv", "question\tanswer\na;b\t1\nc, d\t2\n"),
        ("a.tsv", "question\tanswer\na;b\t1\nc, d\t2\n"),
        ("A.CSV.GZ", packed(TABLE.encode())),
        ("a.csv", packed(TABLE.encode())),  # packed, whatever its name
    ],
)
def test_the_header_tells_what_separates_the_fields(tmp_path, name, content):
    found = cells_of(tmp_path / name, content)
    assert found == [{"question": "a;b", "answer": "1"}, {"question": "c, d", "answer": "2"}]


def test_a_field_may_be_as_long_as_any_cell(tmp_path):
    [row] = cells_of(tmp_path / "a.csv", f"question,answer\n{'x' * 200_000},1\n")
    assert len(row["question"]) == 200_000


def test_lines_that_cannot_be_read_are_rows_with_a_problem(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a":\n[1]\n{"a": 1, "a": 2}\n{"a": 5}\n')
    problems = [(row.place, (row.problem or [""])[0]) for row in read_file(path)]
    assert problems == [("line 1", ""), ("line 2", "not JSON"), ("line 3", "expected a JSON object"),
                        ("line 4", "not JSON"), ("line 5", "")]  # fmt: skip
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n1,2,3\n1,2\n")
    assert [row.problem is None for row in read_file(path)] == [True, False, True]


BOMB = packed((b'{"a": "%s"}\n' % (b"x" * (1 << 20))) * 80)
LINE_BOMB = packed(b"x" * (80 << 20))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl.gz", BOMB, "unpacked it has more than 64 MB; give a smaller file"),
        ("a.json", BOMB, "unpacked it has more than 64 MB"),
        ("a.jsonl.gz", LINE_BOMB, "a line has more than 64,000,000 characters"),
        ("a.csv", LINE_BOMB, "cannot be read: field larger than field limit"),
        ("a.jsonl.gz", packed(LINES.encode())[:-9], "cannot be read: Compressed file ended"),
        ("a.jsonl.gz", packed(LINES.encode())[:20] + b"\xff" * 20, "cannot be read"),
        ("a.csv", "question,answer\né,1\n".encode("latin-1"), "it is not utf-8 .*; save it as UTF-8"),
        ("a.json", "[\n{}, {", "a JSON array that is not JSON"),
        ("a.json", '[{"a": 1},]', "a JSON array that is not JSON"),
        (
            "a.json",
            json.dumps({"train": ROWS, "test": ROWS}),
            "several lists of rows, 'train', 'test'; give each a file",
        ),
        ("a.xlsx", b"PK", r"its ending must be .jsonl, .json, .csv, .tsv or .parquet"),
        ("a.gz", b"", "its ending must be"),
    ],
)
def test_what_is_refused(tmp_path, name, content, message):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        with pytest.raises(TaskError, match=message) as caught:
            cells_of(tmp_path / name, content)
    assert "\n" not in str(caught.value)


def test_rows_as_the_hub_exports_them(tmp_path):
    rows = [{"row_idx": i, "row": row, "truncated_cells": []} for i, row in enumerate(ROWS)]
    for document in ({"features": [{"name": "question"}], "rows": rows, "partial": False}, {"rows": rows}):
        assert cells_of(tmp_path / "a.json", json.dumps(document)) == ROWS


def test_one_object_on_several_lines_is_one_row(tmp_path):
    assert cells_of(tmp_path / "a.json", json.dumps(ROWS[0], indent=1)) == ROWS[:1]


@pytest.mark.parametrize("document", ["[]", " [ ]\n", ""])
def test_no_rows(tmp_path, document):
    assert cells_of(tmp_path / "a.json", document) == []


def test_a_line_has_a_size(tmp_path, monkeypatch):
    monkeypatch.setattr("autolambda.tasks.formats.text.MOST_LINE", 50)
    with pytest.raises(TaskError, match="a line has more than 50 characters; write one object a line"):
        cells_of(tmp_path / "a.jsonl", LINES + json.dumps({"question": "x" * 50}))
