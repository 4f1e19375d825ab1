"""Task files drawn at random and out of valid ones: rows as they were written, or one line that says what is wrong.

How many examples, and how to run more: see fuzz.py.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from fuzz import changed, damaged, examples, nest, plain, refused_or, scalars, texts
from hypothesis import given
from hypothesis import strategies as st
from slices import slices_of

from autolambda.config import parse_config
from autolambda.errors import ConfigError, InputError, TaskError
from autolambda.tasks.rows import read_file
from autolambda.tasks.slices import Slices

CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}, {"role": "user", "content": "2+2"}]
ROWS: list[dict[str, Any]] = [
    {
        "id": i,
        "question": f"what is {i}+1?",
        "answer": i + 1,
        "choices": ["a", "b", f"c{i}"],
        "difficulty": "x" * (i % 2),
    }
    | {"messages": [*CHAT[:2], {"role": "user", "content": f"{i}"}]}
    for i in range(4)
]
KEYS: list[dict[str, Any]] = [
    {}, {"grader": "math"}, {"grader": "exact"}, {"grader": "regex"}, {"grader": "contains"}, {"choices": "choices"},
    {"messages": "messages"}, {"prompt": "{question}!"}, {"grader": "choice"}, {"question": "messages"},
]  # fmt: skip
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def jsonl(rows: list[Any]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def table(rows: list[Any]) -> bytes:
    """As CSV, with nests as JSON."""
    file = io.StringIO()
    columns = sorted({str(key) for row in rows if isinstance(row, dict) for key in row})
    writer = csv.DictWriter(file, columns, escapechar="\\", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        cells = row if isinstance(row, dict) else {}
        texts = {str(key): json.dumps(each) if isinstance(each, list | dict) else each for key, each in cells.items()}
        writer.writerow(texts)
    return file.getvalue().encode("utf-8", "surrogatepass")


def parquet(rows: list[Any]) -> bytes:
    """As Parquet, without the columns that it cannot hold."""
    columns: dict[str, Any] = {}
    rows = [row if isinstance(row, dict) else {} for row in rows]
    for key in {key for row in rows for key in row}:
        try:
            columns[str(key)] = pyarrow.array([row.get(key) for row in rows])
        except (pyarrow.ArrowException, ValueError, OverflowError, UnicodeError):
            columns[str(key)] = pyarrow.array([None] * len(rows))
    file = io.BytesIO()
    try:
        pyarrow.parquet.write_table(pyarrow.table(columns), file)
    except (pyarrow.ArrowException, UnicodeError):
        return b""
    return file.getvalue()


FORMS = {".jsonl": jsonl, ".csv": table, ".parquet": parquet}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def slices(path: Path, **keys: Any) -> Slices:
    return slices_of(parse_config({"tasks": [{"path": str(path)} | keys]}))


@pytest.mark.parametrize("ending", FORMS)
@examples(60)
@given(data=st.data())
def test_a_changed_task_file(folder: Path, ending: str, data: st.DataObject) -> None:
    path = folder / f"task{ending}"
    content = FORMS[ending](data.draw(st.just(ROWS) | st.lists(st.sampled_from(ROWS) | changed(ROWS[0]), max_size=4)))
    path.write_bytes(data.draw(st.just(content) | damaged(content)))
    found = refused_or(slices, path, **data.draw(st.sampled_from(KEYS)))
    if isinstance(found, InputError):
        assert isinstance(found, TaskError | ConfigError)
        assert "task.." in str(found).replace(ending, "..") or "/" in str(found)
        return
    ids = [sample.id for phase in (found.search, found.confirm) for part in phase for sample in part.samples]
    assert len(ids) >= 2 and len(set(ids)) == len(ids)


@examples(60)
@given(rows=st.lists(st.dictionaries(words, plain, max_size=4), min_size=1, max_size=4))
def test_json_lines_are_what_json_reads(folder: Path, rows: list[dict[str, Any]]) -> None:
    path = folder / "any.jsonl"
    content = jsonl(rows)
    path.write_bytes(content)
    found = refused_or(read_file, path)
    if isinstance(found, InputError) or any(row.problem for row in found):
        text = str(found) if isinstance(found, InputError) else str([row.problem for row in found])
        assert "occurs twice" in text or "several lists" in text  # as of 1 and "1", both of which JSON writes as a text
        return
    if len(rows) == 1 and [row.place for row in found] != ["line 1"]:
        return  # one object that holds a table
    expected = [json.loads(line) for line in content.decode().split("\n")]
    assert repr([row.cells for row in found]) == repr(expected)


@examples(60)
@given(header=st.lists(words.filter(str.strip), min_size=2, max_size=4, unique=True), data=st.data())
def test_csv_is_what_the_csv_module_wrote(folder: Path, header: list[str], data: st.DataObject) -> None:
    path = folder / "any.csv"
    rows = data.draw(st.lists(st.tuples(*[words.filter(bool) for _ in header]), min_size=1, max_size=4))
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    found = refused_or(read_file, path)
    if isinstance(found, InputError):
        assert any(odd in "".join([*header, *map("".join, rows)]) for odd in "\0\r\n\ufeff")
    else:
        assert [tuple(row.cells.values()) for row in found] == rows and list(found[0].cells) == header


@examples(60)
@given(columns=st.dictionaries(words, st.lists(st.none() | words, min_size=3, max_size=3), min_size=1, max_size=3))
def test_parquet_is_what_pyarrow_wrote(folder: Path, columns: dict[str, Any]) -> None:
    path = folder / "any.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    found = refused_or(read_file, path)
    assert [row.cells for row in found] == [{name: cells[i] for name, cells in columns.items()} for i in range(3)]


@pytest.mark.parametrize("ending", FORMS)
@examples(60)
@given(content=st.binary(max_size=80))
def test_any_bytes_as_a_task(folder: Path, ending: str, content: bytes) -> None:
    path = folder / f"bytes{ending}"
    path.write_bytes(content)
    assert isinstance(refused_or(slices, path), TaskError)


@examples(60)
@given(cell=scalars | texts | st.sampled_from([nest(90), nest(99), nest(500), "[" * 90 + "]" * 90]), data=st.data())
def test_any_cell(folder: Path, cell: object, data: st.DataObject) -> None:
    path = folder / "cell.jsonl"
    column = data.draw(st.sampled_from([*ROWS[0]]))
    path.write_bytes(jsonl([*ROWS, ROWS[0] | {"id": 9, column: cell}]))
    assert isinstance(refused_or(slices, path, **data.draw(st.sampled_from(KEYS))), Slices | TaskError)
