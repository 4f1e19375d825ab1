"""The store: batches are there whole or not at all, and everything comes back as it went in, in either database."""

import random
import sqlite3
from contextlib import closing

import pytest
import sqlalchemy as sa

from autolambda.errors import StorageError, StudyError
from autolambda.responses import Grade, Graded, Response
from autolambda.schedule import Profile, Schedule
from autolambda.study.database import open_database
from autolambda.study.databases.connection import storage_errors
from autolambda.study.schema import RESPONSES, SCHEMA_VERSION
from autolambda.study.store import Store

HALF = Schedule.uniform(0.5)


def graded(sample_id="1", repeat=0, *, text="so</think>7", answer="7", num_tokens=5, task="t"):
    return Graded(task, sample_id, repeat, Response(text, num_tokens, "stop"), Grade.CORRECT, answer, True)


@pytest.fixture
def file_url(tmp_path):
    return f"sqlite:///{tmp_path}/folder/study.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request):
    if request.param == "sqlite":
        return request.getfixturevalue("file_url")
    return request.getfixturevalue("server").new_database()


def opened(url):
    store = Store(url)
    store.create_study("one", config={"a": [1]}, identity={"b": 2})
    return closing(store)


@pytest.fixture
def store(url):
    with opened(url) as made:
        yield made


@pytest.fixture
def file_store(file_url):
    with opened(file_url) as made:
        yield made


def begin(store, key="0", *, study="one", kind="trial", schedule=HALF):
    return store.evaluation(study, kind=kind, key=key, schedule=schedule, num_responses=4)


def test_a_study_comes_back_after_reopening(store, url):
    store.update_study("one", config={"a": [1, 2]}, identity={"b": 3})
    evaluation = begin(store, schedule=Schedule.by_depth(Profile((0.1, 0.9)), other=0.3))
    batch = [graded("1"), graded("0"), graded("0", 1)]
    store.add(evaluation, batch)
    store.close()
    with closing(Store(url, must_exist=True)) as again:
        stored = again.study("one")
        assert (stored.name, stored.config, stored.identity) == ("one", {"a": [1, 2]}, {"b": 3})
        assert again.evaluations("one", kind="trial") == [evaluation]
        assert again.graded(evaluation) == batch


@pytest.mark.parametrize("text", ["", "plain", "日本 é", "half \ud800 pair \udfff", "nul \x00", "x" * 1_000_000])
def test_any_text_comes_back(store, text):
    evaluation = begin(store)
    store.add(evaluation, [graded(text=text, answer=text), graded("2", text=text, answer=None)])
    assert [(g.response.text, g.answer) for g in store.graded(evaluation)] == [(text, text), (text, None)]


@pytest.mark.parametrize("grade", Grade)
def test_every_grade_comes_back(store, grade):
    one = Graded("t", "1", 3, Response("x", 9, "length"), grade, None, False)
    evaluation = begin(store)
    store.add(evaluation, [one])
    assert store.graded(evaluation) == [one]


def test_a_batch_that_breaks_in_the_middle_leaves_nothing(store):
    evaluation = begin(store)
    store.add(evaluation, [graded("1")])
    with pytest.raises(sa.exc.IntegrityError):
        store.add(evaluation, [graded("2"), graded("3"), graded("1")])
    assert [g.sample_id for g in store.graded(evaluation)] == ["1"]


@pytest.mark.parametrize(
    "url", ["sqlite:///a.db?password=s3cret", "sqlite://bob:s3cret@/x", "mysql://s3cret:x@h/d", "postgresql://s3cret@h"]
)
def test_no_part_of_a_refused_url_that_may_be_secret_is_shown(url):
    with pytest.raises(StudyError) as raised:
        open_database(url)
    assert "s3cret" not in str(raised.value)


def test_a_full_database_is_one_line_and_keeps_what_was_stored(file_store, file_url):
    """SQLite's own limit of pages gives the error of a full disk."""
    evaluation = begin(file_store)
    file_store.add(evaluation, [graded("1")])
    sa.event.listen(file_store._engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count=1"))
    file_store.close()
    batch = [graded(str(i), text=random.Random(i).randbytes(3000).hex()) for i in range(2, 60)]
    with (
        pytest.raises(StorageError, match=r"^the study's database failed \(.*full\); nothing stored is lost") as raised,
        storage_errors(),
    ):
        file_store.add(evaluation, batch)
    assert raised.value.exit_code == 1
    file_store.close()
    with closing(Store(file_url)) as again:
        assert [g.sample_id for g in again.graded(evaluation)] == ["1"]


def test_a_process_that_dies_before_the_commit_leaves_nothing(store, monkeypatch):
    evaluation = begin(store)
    with monkeypatch.context() as patch:
        patch.setattr(sa.engine.Connection, "_commit_impl", _die)
        with pytest.raises(KeyboardInterrupt):
            store.add(evaluation, [graded("1"), graded("2")])
    assert store.graded(evaluation) == []
    store.add(evaluation, [graded("1"), graded("2")])
    assert len(store.graded(evaluation)) == 2


def _die(connection):
    raise KeyboardInterrupt


def test_an_evaluation_is_added_once_for_its_key(store):
    first = begin(store)
    assert begin(store) == first
    others = [begin(store, "1"), begin(store, kind="confirm"), begin(store, kind="parent")]
    assert len({each.id for each in [first, *others]}) == 4
    assert store.evaluations("one", kind="trial") == [first, others[0]]


def test_keys_are_unique_in_the_database_too(store):
    begin(store)
    with pytest.raises(sa.exc.IntegrityError), store._engine.begin() as connection:
        connection.execute(
            sa.text(
                "insert into autolambda_evaluations (study, kind, key, schedule, num_responses) "
                "values ('one', 'trial', '0', '{}', 4)"
            )
        )
    with pytest.raises(sa.exc.IntegrityError):
        store.create_study("one", config={}, identity={})
    with pytest.raises(sa.exc.IntegrityError):
        begin(store, study="unknown")


def test_two_studies_in_one_database_are_apart(store):
    store.create_study("two", config={}, identity={})
    one, two = begin(store), begin(store, study="two")
    store.add(one, [graded(num_tokens=5)])
    store.add(two, [graded(num_tokens=7), graded("2", num_tokens=1)])
    assert sorted(store.names()) == ["one", "two"]
    assert (store.num_tokens("one"), store.num_tokens("two"), store.num_tokens("none")) == (5, 8, 0)
    assert (len(store.graded(one)), len(store.graded(two))) == (1, 2)
    assert store.study("three") is None


def test_readers_are_not_kept_waiting_by_an_open_writer(file_store, file_url):
    evaluation = begin(file_store)
    file_store.add(evaluation, [graded("1")])
    with (
        closing(sqlite3.connect(file_url.removeprefix("sqlite:///"), isolation_level=None)) as writer,
        closing(Store(file_url)) as reader,
    ):
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("delete from autolambda_responses")
        assert [g.sample_id for g in reader.graded(evaluation)] == ["1"]
        writer.execute("COMMIT")
        assert reader.graded(evaluation) == []


def test_a_commit_is_on_the_disk_before_it_returns(file_store):
    with file_store._engine.connect() as connection:
        pragmas = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in
                   ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")]  # fmt: skip
    assert pragmas == ["wal", 2, 1, 10_000]


@pytest.mark.parametrize("version", [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1])
def test_another_schema_version_is_refused_by_readers_and_drivers(store, url, version):
    with store._engine.begin() as connection:
        connection.exec_driver_sql(f"update autolambda_studies set schema_version = {version}")
    said = f"'one' has schema version {version}, and this autolambda reads version {SCHEMA_VERSION}; use the autolambda"
    with pytest.raises(StudyError, match=said):
        store.study("one")
    with pytest.raises(StudyError, match=said):
        Store(url)


def test_the_counted_columns_come_before_the_texts():
    """SQLite reads a row from its start: the pages of a text of 100 kB need not be read to count its tokens."""
    assert [column.name for column in RESPONSES.columns][-2:] == ["answer", "text"]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg2://user:secret@host/db",
        "postgresql://user:secret@host:port/db",
        "mysql+driver://user:secret@host/db",
        "sqlite+other:///x.db",
        "sqlite:///file:x.db?uri=true",
        "sqlite://",
        "sqlite:///:memory:",
        "secret.db",
        "",
    ],
)
def test_other_databases_are_refused_without_their_password(url):
    with pytest.raises(StudyError, match="give sqlite:///PATH") as caught:
        Store(url)
    shown = f"{caught.value} {caught.value.__cause__}"
    assert "secret" not in shown
    assert "\n" not in shown


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "x.db").write_text("not a database, but long enough to be read as the header of one " * 20)
    with pytest.raises(StudyError, match=r"x\.db' cannot be opened: file is not a database"):
        Store(f"sqlite:///{tmp_path}/x.db")
    with pytest.raises(StudyError, match="cannot be opened"):
        Store(f"sqlite:///{tmp_path}/x.db/study.db")
    with pytest.raises(StudyError, match="cannot be opened"):
        Store(f"sqlite:///{tmp_path}")


def test_a_study_that_must_exist_is_not_made(tmp_path):
    with pytest.raises(StudyError, match="no study database"):
        Store(f"sqlite:///{tmp_path}/gone/study.db", must_exist=True)
    assert not (tmp_path / "gone").exists()


def test_outcomes_are_the_responses_of_a_study_without_their_texts(store):
    one, parent = begin(store, "0"), begin(store, "thinking", kind="parent")
    store.create_study("two", config={}, identity={})
    store.add(begin(store, "0", study="two"), [graded("9")])
    store.add(parent, [graded("1", num_tokens=9)])
    store.add(one, [graded("2", 1), graded("3", task="u")])
    assert store.outcomes("one") == [
        ("parent", "thinking", "t", "1", 0, "correct", True, 9, "stop"),
        ("trial", "0", "t", "2", 1, "correct", True, 5, "stop"),
        ("trial", "0", "u", "3", 0, "correct", True, 5, "stop"),
    ]
    assert store.outcomes("nothing") == []


def test_evaluations_beside_the_trials_are_counted_once_they_are_complete(store):
    store.create_study("two", config={}, identity={})
    counts = []
    for study, kind in (("one", "trial"), ("one", "confirm"), ("one", "parent"), ("two", "confirm")):
        evaluation = store.evaluation(study, kind=kind, key="k", schedule=HALF, num_responses=2)
        for sample in ("1", "2"):
            store.add(evaluation, [graded(sample)])
            counts.append(store.num_complete("one"))
    assert counts == [0, 0, 0, 1, 1, 2, 2, 2] and store.num_complete("other") == 0


def test_the_stored_responses_are_known_by_the_key_of_their_evaluation(store):
    store.add(begin(store, "0"), [graded("2", 1), graded("1")])
    store.add(begin(store, "1"), [graded("1")])
    begin(store, "2")
    store.add(begin(store, "0", kind="confirm"), [graded("9")])
    assert store.keys_stored("one", kind="trial") == {"0": {("t", "2", 1), ("t", "1", 0)}, "1": {("t", "1", 0)}}


def test_a_store_without_texts_gives_everything_else(store, url):
    evaluation = begin(store)
    store.add(evaluation, [graded("1", text="long", answer="7"), graded("2", 3, text="other", answer=None)])
    with closing(Store(url, must_exist=True, with_texts=False)) as counting:
        expected = [graded("1", text="", answer="7"), graded("2", 3, text="", answer=None)]
        assert counting.graded(evaluation) == store.graded(evaluation, with_texts=False) == expected


def test_the_responses_to_some_samples_alone(store):
    evaluation = begin(store)
    store.add(evaluation, [graded("1"), graded("2"), graded("1", 1), graded("3", task="u")])
    assert [(g.sample_id, g.repeat) for g in store.graded(evaluation, sample_ids=["1", "3"])] == [
        ("1", 0),
        ("1", 1),
        ("3", 0),
    ]
    assert store.graded(evaluation, sample_ids=[]) == []
