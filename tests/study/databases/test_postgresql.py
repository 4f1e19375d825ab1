"""A study on a real PostgreSQL server: the same answers as in a file, one driver, and cut connections lose nothing."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, get_args

import pytest
from click.testing import CliRunner
from engine import FakeEngine
from postgres import Server
from rich.console import Console
from small_search import NAME, small_config, storage_in

from autolambda.cli.main import cli
from autolambda.driver.search import search
from autolambda.engines.base import Prompt, Sampling, Watch
from autolambda.errors import StorageError, StudyError
from autolambda.optimizer.propose import StopReason
from autolambda.report import status
from autolambda.report.json_csv import report_json
from autolambda.responses import Response
from autolambda.study.database import driver_lock
from autolambda.study.databases.connection import storage_errors
from autolambda.study.store import Kind, Store
from autolambda.study.trials import Study, driver_errors
from tests.study.test_trials import HOLD, drive, measured

SHORT = small_config(
    engine__batch_size=8, search__trials=3, search__ladder=3, confirm__finalists=1, confirm__limit=8
)  # nine batches: two a trial, one for each parent and the finalist


@pytest.fixture
def url(server: Server) -> str:
    return server.new_database()


def contents(storage: str, name: str = NAME) -> list[object]:
    """All that a study holds, without ids, which transactions that were undone leave gaps in."""
    with closing(Store(storage, must_exist=True)) as store, closing(Study(store, name=name)) as study:
        found: list[object] = [store.outcomes(name), study.counts(), study.stopped_for]
        found += [replace(each, at=None) for each in study.ended()]
        for kind in get_args(Kind):
            for each in store.evaluations(name, kind=kind):
                found.append((kind, each.key, each.schedule, each.num_responses, store.graded(each)))
        found += [(t.values, t.params, t.user_attrs) for t in study._study.get_trials()]
        return found


class Interfering(FakeEngine):
    """Does something to the database before the batches of these numbers, from 0."""

    def __init__(self, interferences: Mapping[int, Callable[[], object]]) -> None:
        super().__init__()
        self._interferences = interferences

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        self._interferences.get(len(self.batches), bool)()
        return super().generate(prompts, sampling, watch=watch)


def database_of(url: str) -> str:
    return url.rpartition("/")[2]


@pytest.fixture(scope="module")
def in_a_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[object]]:
    storage = storage_in(tmp_path_factory.mktemp("file"))
    return report_json(search(SHORT, name=NAME, storage=storage, engine=FakeEngine())), contents(storage)


@dataclass(frozen=True)
class Cut:
    url: str
    report: str
    num_ends: int
    num_batches: int


@pytest.fixture(scope="module")
def cut(server: Server) -> Cut:
    """A search whose connections were cut three times in mid-trial, once by a restart; it went on by the same call."""
    url = server.new_database()
    interferences = {1: lambda: server.cut(database_of(url)), 4: lambda: server.control("restart", "-m", "fast")}
    engine, num_ends = Interfering({**interferences, 9: interferences[1]}), 0
    while True:
        try:
            report = search(SHORT, name=NAME, storage=url, engine=engine)
            return Cut(url, report_json(report), num_ends, len(engine.batches))
        except StorageError as error:
            num_ends += 1
            assert error.exit_code == 1 and "nothing stored is lost" in str(error) and "\n" not in str(error)


def test_connections_cut_in_mid_trial_change_nothing(cut: Cut, in_a_file: tuple[str, list[object]]) -> None:
    """All is as it is in a file that nothing happened to; only the batches that were cut were generated again."""
    assert (cut.num_ends, cut.num_batches) == (3, 9 + 3)
    assert (cut.report, contents(cut.url)) == in_a_file


def test_a_second_driver_is_refused_until_the_first_has_died(url: str) -> None:
    command = [sys.executable, "-c", HOLD, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        with pytest.raises(StudyError, match="'one' is being run by another process"), driver_lock(url, "one"):
            pass
        with driver_lock(url, "two"):  # another study of the same database
            pass
        first.kill()
        first.wait()
        wait_for_lock(url)


def wait_for_lock(url: str) -> None:
    """The server notices a killed client a moment later."""
    for _ in range(200):
        try:
            with driver_lock(url, "one"):
                return
        except StudyError:
            threading.Event().wait(0.05)
    raise AssertionError("the lock of a dead process is still held")


def test_a_driver_that_was_cut_off_never_writes_again(server: Server, url: str) -> None:
    """Another one has begun meanwhile: whatever the first tries, through our tables or Optuna's, is refused."""
    with driver_errors(), driver_lock(url, "one") as database, closing(Store(database)) as store:
        store.create_study("one", config={}, identity={})
        with closing(Study(store, name="one")) as study:
            server.cut(database_of(url))
            with driver_lock(url, "one") as another, closing(Store(another)) as theirs:
                attempts: list[Callable[[], object]] = [
                    lambda: store.update_study("one", config={"from": "the first"}, identity={}),
                    lambda: setattr(study, "stopped_for", "gain"),
                    lambda: drive_one(study),
                    lambda: store.update_study("one", config={"from": "the first"}, identity={}),
                ]
                for attempt in attempts:
                    with pytest.raises(StorageError, match="nothing stored is lost"), driver_errors():
                        attempt()
                stored = theirs.study("one")
                assert stored is not None and stored.config == {}
                with closing(Study(theirs, name="one")) as their_study:
                    assert their_study.stopped_for is None and their_study.counts().running == 0


def drive_one(study: Study) -> None:
    from autolambda.optimizer.observations import Proposal
    from autolambda.optimizer.space import ranges, uniform_params

    study.start(Proposal(uniform_params(0.5, num_knots=3), 0, 8), ranges=ranges(3))


def test_readers_need_no_lock_are_not_kept_waiting_and_change_nothing(server: Server, url: str) -> None:
    with driver_lock(url, "one") as database, closing(Store(database)) as store, closing(Study(store, name="one")):
        store.create_study("one", config={"a": 1}, identity={})
        with store._engine.begin() as writing:  # a transaction that is open all the while
            writing.exec_driver_sql("UPDATE autolambda_studies SET config = '{}'")
            with closing(Store(url, must_exist=True)) as reader, closing(Study(reader, name="one")) as seen:
                stored = reader.study("one")
                assert stored is not None and stored.config == {"a": 1} and seen.counts().running == 0
                with pytest.raises(StorageError, match="read-only"), storage_errors():
                    reader.update_study("one", config={}, identity={})


def stop(url: str, reason: StopReason | None) -> None:
    with closing(Store(url)) as store, closing(Study(store, name=NAME)) as study:
        study.stopped_for = reason


def test_watching_goes_on_after_its_own_connection_was_cut(
    server: Server, cut: Cut, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(cut.url, None)
    looks = [lambda: server.cut(database_of(cut.url)), lambda: stop(cut.url, "trials")]
    monkeypatch.setattr(status.time, "sleep", lambda seconds: looks.pop(0)())
    file = io.StringIO()
    status.show_status(NAME, cut.url, console=Console(file=file, width=200), watch=True)
    assert not looks and "3 of at most 3 trials are done, the search is over" in file.getvalue()


def test_studies_of_one_server_are_listed_and_apart(url: str) -> None:
    for name in ("one", "two"):
        with driver_lock(url, name) as database, closing(Store(database)) as store:
            drive(store, url, name=name, num_trials=1 if name == "one" else 2)
            store.create_study(name, config={}, identity={})
    with closing(Store(url, must_exist=True)) as store:
        counts = {}
        for name in store.names():
            with closing(Study(store, name=name)) as study:
                counts[name] = study.counts().complete
    assert counts == {"one": 1, "two": 2}
    output = CliRunner().invoke(cli, ["list", "--storage", url]).output
    assert [line.split()[0] for line in output.splitlines() if line[0] != " "] == ["study", "one", "two"]


def test_a_trial_holds_what_was_told_to_the_bit(url: str) -> None:
    with closing(Store(url)) as store:
        (schedule,) = drive(store, url, num_trials=1)
    told = measured(schedule)
    with closing(Store(url, must_exist=True)) as store, closing(Study(store, name="one")) as study:
        [trial] = study._study.get_trials()
    assert trial.values == [told.accuracy.value, told.mean_tokens.value]
    assert trial.user_attrs["measured"]["mean_tokens"] == [told.mean_tokens.value, told.mean_tokens.standard_error]


def test_two_drivers_make_the_tables_of_one_database_at_once(url: str) -> None:
    failures: list[BaseException] = []
    start = threading.Barrier(3)

    def begin(name: str) -> None:
        try:
            with driver_lock(url, name) as database:
                start.wait(30)
                with closing(Store(database)) as store, closing(Study(store, name=name)):
                    store.create_study(name, config={}, identity={})
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=begin, args=(name,)) for name in ("a", "b", "c")]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert not failures
    with closing(Store(url, must_exist=True)) as store:
        assert sorted(store.names()) == ["a", "b", "c"]


def test_a_reader_of_an_empty_database_finds_no_study_and_makes_nothing(server: Server, url: str) -> None:
    with closing(Store(url, must_exist=True)) as store:
        assert store.names() == [] and store.study("one") is None
    tables = server.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database=database_of(url))
    assert tables == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda url: url + "x", "does not exist"),
        (lambda url: url.replace("owner:", "nobody:"), "password authentication failed"),
        (lambda url: re.sub(r"127.0.0.1:\d+", "127.0.0.1:1", url), "Connection refused"),
        (lambda url: url + "?sslmode=verify-full", "cannot be opened"),
        (lambda url: url + "?no_such=option", "cannot be opened"),
    ],
)
def test_a_server_that_refuses_is_one_line(url: str, change: Callable[[str], str], said: str) -> None:
    for opened in (lambda bad: Store(bad, must_exist=True), lambda bad: driver_lock(bad, "one").__enter__()):
        with pytest.raises(StudyError, match=said) as raised:
            opened(change(url))
        assert "\n" not in str(raised.value)


def test_without_psycopg_the_command_to_install_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StudyError, match=r"needs psycopg .*pip install 'autolambda\[postgres\]'"):
        Store("postgresql://u:secret@h/d")


def test_the_servers_own_limits_do_not_end_an_idle_driver(server: Server, url: str) -> None:
    server.execute(f"ALTER DATABASE {database_of(url)} SET idle_session_timeout = '200ms'")
    with driver_lock(url, "one") as database, closing(Store(database)) as store:
        threading.Event().wait(0.6)
        assert store.names() == []


def test_a_url_that_sets_its_own_keepalives_is_followed(url: str) -> None:
    with driver_lock(f"{url}?application_name=mine&keepalives_idle=7", "one") as database:
        connection: Any = database.connect()
        assert connection.info.get_parameters()["keepalives_idle"] == "7"
        assert connection.info.get_parameters()["application_name"] == "mine"
