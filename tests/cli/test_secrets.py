"""The password of a database URL and a hub token reach nothing that is written: no log, error, report or card."""

from __future__ import annotations

import io
import logging
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from postgres import PASSWORD, Server
from small_search import SETTINGS

from autolambda.cli.main import main
from autolambda.errors import AutolambdaError, hide_secrets
from autolambda.study.database import driver_lock, open_database
from autolambda.study.databases.connection import shown_storage
from autolambda.study.store import Store

TOKEN = "hf_" + "Q7x" * 12
NAME = "secret"


def forms(secret: str) -> set[str]:
    """A secret as it is, as a URL holds it, and its part that no quoting changes."""
    return {secret, quote(secret, safe=""), quote_plus(secret), quote(secret), repr(secret)[1:-1], secret[-12:]}


def leaks(text: str) -> list[str]:
    return [form for secret in (PASSWORD, TOKEN) for form in forms(secret) if form in text]


@pytest.fixture(scope="module")
def ran(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, list[str]]:
    """All that the commands that name a study write, logs of all levels too, in one folder; the database's URL."""
    folder, url = tmp_path_factory.mktemp("secrets"), server.new_database()
    settings = {**SETTINGS, "search.trials": 3, "search.ladder": 3, "confirm.finalists": 1, "confirm.limit": 24}
    del settings["tasks"]
    pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    search = ["search", "--study", NAME, "--budget", "83", "--task", "arithmetic", "--set", "tasks.0.limit=16", *pairs]
    wrong = url.replace(quote(PASSWORD, safe=""), "wrong-" + PASSWORD[-12:])
    commands = [
        [*search, "--storage", url],
        ["list", "--storage", url],
        ["status", NAME, "--storage", url],
        *(["report", NAME, "--storage", url, "--format", form] for form in ("table", "json", "csv")),
        ["report", NAME, "--storage", url, "--format", "html", "--out", "report.html"],
        ["export", NAME, "out", "--storage", url],
        ["confirm", NAME, "--budget", "2", "--storage", url],
        ["status", "unknown", "--storage", url],
        ["status", NAME, "--storage", wrong],
        ["status", NAME, "--storage", url.replace("127.0.0.1", "127.0.0.1:1", 1)],
        ["resume", NAME, "--storage", url.replace("postgresql://", "mysql://")],
    ]
    outputs = []
    with pytest.MonkeyPatch.context() as patch, logging_to(folder / "log"):
        patch.setenv("HF_TOKEN", TOKEN)
        patch.chdir(folder)
        for number, command in enumerate(commands):
            said = io.StringIO()
            patch.setattr(sys, "argv", ["autolambda", *command])
            with redirect_stdout(said), redirect_stderr(said), suppress(SystemExit):
                main()
            (folder / f"{number}.out").write_text(said.getvalue())
            outputs.append(said.getvalue())
    return folder, url, outputs


@contextmanager
def logging_to(file: Path) -> Iterator[None]:
    """Every logger's lines, of any level, in a file, and the handler of signals as it was."""
    handler, before = logging.FileHandler(file), signal.getsignal(signal.SIGTERM)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        handler.close()
        signal.signal(signal.SIGTERM, before)


def test_the_commands_did_their_work(ran: tuple[Path, str, list[str]]) -> None:
    folder, _, outputs = ran
    assert "Found: " in outputs[0] and (folder / "out" / "README.md").is_file() and (folder / "report.html").is_file()
    assert "password authentication failed" in outputs[10] and "not supported" in outputs[12]
    assert NAME in outputs[1].split() and "no study 'unknown'" in outputs[9]
    said = " ".join(outputs[0].split())
    assert "--storage 'postgresql://owner:***@127.0.0.1" in said
    assert "Export it (for *** give the password, or leave it out and have it in PGPASSWORD or ~/.pgpass): " in said


@pytest.mark.parametrize("place", ["PGPASSWORD", "PGPASSFILE"])
def test_a_printed_storage_opens_as_its_line_says(
    ran: tuple[Path, str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    _, _, outputs = ran
    (shown,) = set(re.findall(r"--storage '(postgresql://[^']*)'", "".join(outputs[2].split("\n"))))
    file = tmp_path / "pgpass"
    file.write_text(f"*:*:*:owner:{PASSWORD.replace(chr(92), chr(92) * 2).replace(':', chr(92) + ':')}\n")
    file.chmod(0o600)
    monkeypatch.setenv(place, PASSWORD if place == "PGPASSWORD" else str(file))
    with closing(Store(shown.replace(":***", ""), must_exist=True)) as store:
        assert store.names() == [NAME]


def test_nothing_that_was_written_holds_a_secret(ran: tuple[Path, str, list[str]]) -> None:
    folder, _, _ = ran
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 15
    for path in files:
        assert not leaks(path.read_text("utf-8", "replace")), path


def test_the_database_holds_no_secret(ran: tuple[Path, str, list[str]], server: Server) -> None:
    _, url, _ = ran
    database = url.rpartition("/")[2]
    tables = server.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database=database)
    rows = [server.execute(f"SELECT * FROM {table}", database=database) for (table,) in tables]
    assert any(rows) and not leaks(str(rows))


@pytest.mark.parametrize(
    "open_", [lambda url: Store(url, must_exist=True), lambda url: driver_lock(url, "one").__enter__()]
)
def test_a_traceback_holds_no_password(server: Server, open_: Callable[[str], object]) -> None:
    with pytest.raises(AutolambdaError) as raised:
        open_(server.url("gone"))
    assert not leaks("".join(traceback.format_exception(raised.value)))
    with pytest.raises(AutolambdaError) as raised:
        open_(server.url(password=f"wrong{PASSWORD}"))
    assert not leaks("".join(traceback.format_exception(raised.value)))


def test_what_represents_an_open_database_holds_no_password(server: Server) -> None:
    database = open_database(server.url(), must_exist=True)
    with closing(Store(database)) as store:
        assert not leaks(f"{database!r} {store._engine!r} {store._engine.url} {database.url} {vars(store)}")


@pytest.mark.parametrize(
    ("storage", "shown"),
    [
        ("sqlite:///studies/a b/x.db", "sqlite:///studies/a b/x.db"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgresql://me@host/db?sslmode=require", "postgresql://me@host/db?sslmode=require"),
        ("postgresql://me:s3cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:s%2F3cret@host:1/db?sslmode=require", "postgresql://me:***@host:1/db?sslmode=require"),
        ("postgresql://host/db?password=s3cret", "postgresql://host/db?password=***"),
        ("postgresql://me:s3cret@host:port/db", "***"),
        ("", "***"),
    ],
)
def test_how_a_storage_is_shown(storage: str, shown: str) -> None:
    assert shown_storage(storage).replace("%2A", "*") == shown


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"401 for {TOKEN}: denied", "401 for hf_***: denied"),
        ("cannot reach postgresql+psycopg://me:s3cret@host/db", "cannot reach postgresql+psycopg://me:***@host/db"),
        ("https://user:s3cret@huggingface.co/x", "https://user:***@huggingface.co/x"),
        ("no column 'hf_name' at 10:30 in a@b", "no column 'hf_name' at 10:30 in a@b"),
    ],
)
def test_an_error_of_anybodys_is_shown_without_a_secret(said: str, shown: str) -> None:
    assert hide_secrets(said) == shown
