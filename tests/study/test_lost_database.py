"""A file that fails in mid-run or cannot be opened: one line, nothing stored is lost, the same command goes on."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from engine import FakeEngine
from small_search import BUDGET, NAME, SETTINGS, copy_finished, finished, small_config, storage_in

from autolambda.driver.search import search
from autolambda.errors import AutolambdaError, StorageError, StudyError
from autolambda.report.json_csv import report_json
from autolambda.report.read import read_report
from autolambda.study.database import driver_lock
from autolambda.study.databases import sqlite as files
from autolambda.study.store import Store
from tests.study.databases.test_postgresql import SHORT, Interfering, contents

CLI = str(Path(sys.executable).with_name("autolambda"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(storage_in(tmp_path).removeprefix("sqlite:///")).parent


def file_in(folder: Path) -> Path:
    return folder / "study.db"


def test_a_file_that_is_removed_replaced_or_locked_in_mid_run(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put back, the same call goes on to what an undisturbed search holds."""
    monkeypatch.setattr(files, "BUSY_SECONDS", 0.2)
    file, others = file_in(folder), list[sqlite3.Connection]()

    def remove() -> None:
        shutil.move(folder, tmp_path / "away")

    def replace() -> None:
        shutil.copytree(folder, tmp_path / "copy")
        file.unlink()
        sqlite3.connect(file).close()
        file.write_bytes(b"")

    def lock() -> None:
        others.append(sqlite3.connect(file, isolation_level=None))
        others[-1].execute("BEGIN IMMEDIATE")

    def mend() -> None:
        for away in filter(Path.exists, (tmp_path / "away", tmp_path / "copy")):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.move(away, folder)
        while others:
            others.pop().close()

    said = []
    engine = Interfering({1: remove, 4: replace, 8: lock})
    while len(said) < 4:
        try:
            report = search(SHORT, name=NAME, storage=storage_in(tmp_path), engine=engine)
            break
        except StorageError as error:
            said.append(str(error))
            mend()
    assert [("removed or replaced" in line, "database is locked" in line) for line in said] == [
        (True, False),
        (True, False),
        (False, True),
    ]
    assert len(engine.batches) == 9 + 3
    undisturbed = storage_in(tmp_path / "undisturbed")
    assert report_json(report) == report_json(search(SHORT, name=NAME, storage=undisturbed, engine=FakeEngine()))
    assert contents(storage_in(tmp_path)) == contents(undisturbed)


COMMAND = [CLI, "search", "--budget", str(BUDGET), "--study", NAME]


def command(storage: str) -> list[str]:
    settings = {key: value for key, value in SETTINGS.items() if key != "tasks"} | {
        "tasks.0.limit": 16,
        "tasks.0.repeats": 1,
    }
    pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return [*COMMAND, *pairs, "--task", "arithmetic", "--storage", storage]


def limited(size: int) -> Callable[[], None]:
    """What a child does first: no file of its own grows beyond ``size`` bytes, as on a full disk."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def test_a_full_disk_in_mid_run_is_one_line_and_the_same_command_goes_on(tmp_path: Path) -> None:
    storage = storage_in(tmp_path)
    (tmp_path / "studies" / NAME).mkdir(parents=True)
    full = subprocess.run(command(storage), capture_output=True, text=True, preexec_fn=limited(240_000))
    assert full.returncode == 1 and full.stderr.count("\n") == 1
    assert full.stderr.startswith("error: the study's database failed (") and "nothing stored is lost" in full.stderr
    assert "disk I/O error" in full.stderr or "full" in full.stderr
    again = subprocess.run(command(storage), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert report_json(read_report(NAME, storage, None)) == report_json(finished())


def spoil_header(file: Path) -> None:
    file.write_bytes(b"no database at all" * 500)


def spoil_pages(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    file.write_bytes(data)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


def spoil_texts(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE autolambda_responses SET text = x'00', answer = x'00'")


def drop_trials(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DELETE FROM studies")


def other_optuna(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0'")


@pytest.mark.parametrize("spoil", [spoil_header, spoil_pages, cut_short, spoil_texts, drop_trials, other_optuna])
def test_a_damaged_database_is_one_line_for_readers_and_drivers(
    tmp_path: Path, folder: Path, spoil: Callable[[Path], None]
) -> None:
    storage = copy_finished(storage_in(tmp_path))
    spoil(file_in(folder))
    before = file_in(folder).read_bytes()
    calls: Sequence[Callable[[], object]] = (
        lambda: read_report(NAME, storage, None),
        lambda: search(small_config(), name=NAME, storage=storage),
    )
    for call in calls if spoil is not drop_trials else calls[:1]:
        with pytest.raises(AutolambdaError) as raised:
            call()
        assert isinstance(raised.value, StudyError | StorageError) and "\n" not in str(raised.value)
    if spoil is not spoil_texts and spoil is not other_optuna:
        assert file_in(folder).read_bytes() == before


def test_list_names_a_damaged_database_and_shows_the_others(tmp_path: Path) -> None:
    copy_finished(storage_in(tmp_path))
    for name, spoil in (("bad", spoil_pages), ("worse", spoil_header)):
        copy_finished(storage_in(tmp_path, name))
        spoil(tmp_path / "studies" / name / "study.db")
    done = subprocess.run([CLI, "list"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.count("error: ") == done.stderr.count("\n") == 2
    assert [line.split()[0] for line in done.stdout.splitlines() if line[0] != " "] == ["study", NAME]


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Makes a folder read-only, for root too: by mounting it so where root may mount."""
    mounted: list[Path] = []

    def make(folder: Path) -> None:
        if os.geteuid():
            for path in (*folder.iterdir(), folder):
                path.chmod(0o555 if path.is_dir() else 0o444)
            return
        for options in (["--bind", str(folder), str(folder)], ["-o", "remount,ro,bind", str(folder)]):
            if subprocess.run(["mount", *options], capture_output=True).returncode:
                pytest.skip("root may not mount here, and may write everywhere")
            mounted[:] = [folder]

    yield make
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_study_on_a_read_only_file_system_can_be_read(
    tmp_path: Path, folder: Path, read_only: Callable[[Path], None], is_killed: bool
) -> None:
    """Also one whose driver was killed: what it stored last is still in the log beside the file."""
    storage = copy_finished(storage_in(tmp_path))
    if is_killed:
        other = tmp_path / "other"
        folder.rename(other)
        with driver_lock(f"sqlite:///{other}/study.db", NAME) as database, closing(Store(database)) as store:
            stored = store.study(NAME)
            assert stored is not None
            config = small_config(budget=4.0).model_dump(mode="json")
            store.update_study(NAME, config=config, identity=stored.identity)
            shutil.copytree(other, folder)  # as a kill leaves it
        assert (folder / "study.db-wal").stat().st_size
    read_only(folder)
    report = read_report(NAME, storage, None)
    assert report.budget == (4.0 if is_killed else BUDGET) and report.tokens_generated == finished().tokens_generated
    with pytest.raises((StudyError, StorageError), match=r"Read-only|readonly|Permission|unable to open") as raised:
        search(small_config(), name=NAME, storage=storage)
    assert "\n" not in str(raised.value)
