"""JSON Lines, and JSON as one document, as cells by column, each row with its place (``line 3``)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from autolambda.errors import TaskError, in_short, one_line
from autolambda.files import load_json
from autolambda.tasks.formats.text import MOST_UNPACKED, RawRow, lines_of, open_unpacked


def json_rows(path: Path) -> Iterator[RawRow]:
    """Yields the rows of a JSON file: one object a line, or one document that holds a table."""
    table = _table_of(path)
    if table is not None:
        yield from (_object_row(f"row {i}", each) for i, each in enumerate(table, start=1))
        return
    with open_unpacked(path) as file:
        # str.splitlines would also cut at U+2028, which JSON allows in texts
        for i, line in enumerate(lines_of(file, path), start=1):
            if not line.strip():
                continue
            try:
                row = load_json(line)
            except ValueError as error:
                problem = error.msg if isinstance(error, json.JSONDecodeError) else one_line(error)
                yield RawRow(f"line {i}", problem=("not JSON", f" ({problem}); each line is one JSON object"))
            else:
                yield _object_row(f"line {i}", row, line.strip())


def _object_row(place: str, value: object, text: str | None = None) -> RawRow:
    if isinstance(value, dict):
        return RawRow(place, value)
    return RawRow(place, problem=("expected a JSON object", f", seen {in_short(value if text is None else text)}"))


def _table_of(path: Path) -> list[object] | None:
    """Returns the rows of a file that is one document, not one object a line. Raises ``TaskError`` for a broken one."""
    with open_unpacked(path) as file:
        lines = (line for line in lines_of(file, path) if line.strip())
        first, second = next(lines, ""), next(lines, "")
    try:
        value = load_json(first)
    except ValueError:
        value = None
    if isinstance(value, dict) and second:
        return None
    if value is None or not second:
        try:
            document = load_json(_document(path))
        except ValueError as error:
            if value is None and first.lstrip().startswith("["):
                raise TaskError(f"{path}: a JSON array that is not JSON ({one_line(error)}); correct it") from error
            return None
        rows = _rows_in(document, path)
        return [document] if rows is None and value is None else rows  # one object on several lines is one row
    return None


def _document(path: Path) -> str:
    """Returns the whole text of a file. Raises ``TaskError`` for a large one."""
    pieces, length = list[str](), 0
    with open_unpacked(path) as file:
        while piece := file.read(1 << 20):
            pieces.append(piece)
            length += len(piece)
            if length > MOST_UNPACKED:
                raise TaskError(f"{path}: one JSON document of more than 1 GB; write one object a line")
    return "".join(pieces)


def _rows_in(value: object, path: Path) -> list[object] | None:
    """Returns the rows of a list of objects, of an object around such a list, or of an object of columns or rows."""
    if isinstance(value, list):
        return value if not value or any(isinstance(each, dict) for each in value) else None
    if not isinstance(value, dict):
        return None
    lists = {name: each for name, each in value.items() if isinstance(each, list) and _are_rows(each)}
    if _are_exported(value.get("rows")):
        return [each["row"] for each in value["rows"]]
    if len(lists) > 1:
        names = ", ".join(map(repr, lists))
        raise TaskError(f"{path}: one JSON object with several lists of rows, {names}; give each a file of its own")
    if lists:
        return next(iter(lists.values()))
    columns = list(value.values())
    if columns and all(isinstance(each, list) and len(each) == len(columns[0]) > 1 for each in columns):
        return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]
    tables = [each for each in columns if isinstance(each, dict) and len(each) > 1]
    if len(tables) < len(columns) or len(columns) < 2:
        return None
    if not all(key.isdigit() for each in tables for key in each):
        return columns if all(list(each) == list(tables[0]) for each in tables) else None  # a row for each key
    if all(list(each) == list(tables[0]) for each in tables):  # a column for each key, as pandas writes them
        return [{name: cells[key] for name, cells in value.items()} for key in tables[0]]
    return None


def _are_exported(items: object) -> bool:
    """Returns whether a list holds rows as the viewer of the hub exports them, each an object around its cells."""
    if not isinstance(items, list) or not items:
        return False
    return all(isinstance(each, dict) and "row_idx" in each and isinstance(each.get("row"), dict) for each in items)


def _are_rows(items: list[object]) -> bool:
    """Returns whether a list holds objects that are no chat messages."""
    return bool(items) and all(isinstance(each, dict) and not {"role", "from"} & each.keys() for each in items)
