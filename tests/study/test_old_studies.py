"""Studies of released versions are read as they are, and their driver brings them to today's schema."""

from __future__ import annotations

import json
import lzma
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from paths import ASSETS

from autolambda.driver.search import search
from autolambda.errors import StorageError, StudyError
from autolambda.report.json_csv import report_json
from autolambda.report.read import read_report
from autolambda.study.reader import stored_config
from autolambda.study.schema import RESPONSES, SCHEMA_VERSION
from autolambda.study.store import Store
from autolambda.study.trials import driver_errors

ASSETS = ASSETS
RELEASES = sorted(path.name.removeprefix("study-").removesuffix(".db.xz") for path in ASSETS.glob("study-*.db.xz"))
FIRST = "0.1.0"


def unpacked(folder: Path, release: str) -> Path:
    path = folder / "study.db"
    path.write_bytes(lzma.decompress((ASSETS / f"study-{release}.db.xz").read_bytes()))
    return path


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The database of the first release."""
    return unpacked(tmp_path, FIRST)


def versions(path: Path) -> set[int]:
    with closing(sqlite3.connect(path)) as connection:
        return {row[0] for row in connection.execute("SELECT schema_version FROM autolambda_studies")}


def responses(path: Path) -> list[tuple[object, ...]]:
    columns = "evaluation, task, sample_id, repeat, text, num_tokens, finish_reason, grade, answer, thought"
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT {columns} FROM autolambda_responses ORDER BY rowid").fetchall()


def known(report: object, then: object) -> object:
    """What a report says of the keys that its release's report had; later ones may say more."""
    if isinstance(report, dict) and isinstance(then, dict):
        return {key: known(report[key], value) for key, value in then.items()}
    if isinstance(report, list) and isinstance(then, list) and len(report) == len(then):
        return [known(*pair) for pair in zip(report, then, strict=True)]
    return report


def test_there_is_a_study_of_the_first_release() -> None:
    assert FIRST in RELEASES


def test_a_finished_study_gives_its_releases_report_and_is_not_changed(tmp_path: Path, release: str) -> None:
    path = unpacked(tmp_path, release)
    before = path.read_bytes()
    now = json.loads(report_json(read_report("finished", f"sqlite:///{path}", None)))
    then = json.loads((ASSETS / f"study-{release}.json").read_text())
    assert known(now, then) == then
    assert path.read_bytes() == before


def test_one_that_was_killed_goes_on_to_its_verdict(tmp_path: Path, release: str) -> None:
    path = unpacked(tmp_path, release)
    storage, before = f"sqlite:///{path}", responses(path)
    report = search(stored_config("unfinished", storage), name="unfinished", storage=storage)
    after = responses(path)
    assert report.verdict is not None and report.counts.complete == 6
    assert after[: len(before)] == before and versions(path) == {SCHEMA_VERSION}
    then = json.loads((ASSETS / f"study-{release}.json").read_text())  # the same config and seed
    assert known(json.loads(report_json(report)), then) == {**then, "study": "unfinished"}


def layout(path: Path) -> str:
    """How the table of responses was made."""
    with closing(sqlite3.connect(path)) as connection:
        [(made,)] = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'autolambda_responses'")
    return " ".join(made.split())


def test_its_driver_brings_all_of_the_database_to_todays_schema(old: Path, tmp_path: Path) -> None:
    before = responses(old)
    Store(f"sqlite:///{old}").close()
    Store(f"sqlite:///{tmp_path}/new.db").close()
    assert responses(old) == before and versions(old) == {SCHEMA_VERSION}
    assert layout(old) == layout(tmp_path / "new.db") and "id INTEGER NOT NULL" in layout(old)
    Store(f"sqlite:///{old}").close()
    assert responses(old) == before


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A disk that is full in the middle of a migration."""

    def stop(connection: sa.Connection, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("DROP TABLE"):
            raise sqlite3.OperationalError("database or disk is full")

    sa.event.listen(sa.Engine, "before_cursor_execute", stop)
    yield
    sa.event.remove(sa.Engine, "before_cursor_execute", stop)


def test_a_migration_that_breaks_leaves_the_old_schema(old: Path, breaking: None) -> None:
    before, tables = responses(old), layout(old)
    with pytest.raises((StudyError, StorageError, sqlite3.OperationalError)), driver_errors():
        Store(f"sqlite:///{old}")
    assert responses(old) == before and layout(old) == tables and versions(old) == {1}


def test_a_database_with_a_study_of_a_newer_release_is_left_alone(old: Path) -> None:
    with closing(sqlite3.connect(old)) as connection, connection:
        newer = f"schema_version = {SCHEMA_VERSION + 1}"
        connection.execute(f"UPDATE autolambda_studies SET {newer} WHERE name = 'finished'")
    tables = layout(old)
    with pytest.raises(StudyError, match="made by a newer autolambda; upgrade"):
        Store(f"sqlite:///{old}")
    assert layout(old) == tables


def test_the_columns_that_are_counted_lie_before_the_texts() -> None:
    """SQLite reads a row from its start: the pages of a text of 100 kB need not be read to count its tokens."""
    assert [column.name for column in RESPONSES.columns][-2:] == ["answer", "text"]
