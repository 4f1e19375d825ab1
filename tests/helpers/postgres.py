"""A real PostgreSQL server for the tests: Debian's package or one on the PATH, on loopback, with passwords.

It is started once a session by whom needs it, as another user where the tests run as root, who may not run it.
"""

from __future__ import annotations

import glob
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

PASSWORD = f"pa:ss/w@rd%{secrets.token_hex(6)}"  # what a URL must quote, and what nothing else holds


@dataclass(frozen=True)
class Server:
    """A running server."""

    binaries: Path
    folder: Path
    port: int
    user: str | None

    def url(self, database: str = "postgres", *, password: str = PASSWORD) -> str:
        """A URL of the owner of everything."""
        return f"postgresql://owner:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        name = f"d{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str, *, database: str = "postgres") -> list[tuple[object, ...]]:
        """Runs a statement by itself, its rows as a list."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def cut(self, database: str) -> int:
        """Ends every connection to a database as an administrator would; how many there were."""
        query = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
        return len(self.execute(query))

    def control(self, *arguments: str) -> None:
        """Runs pg_ctl and waits for it."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        command = [str(self.binaries / "pg_ctl"), "-D", str(self.folder / "data"), "-w", "-t", "60", *arguments]
        log = ["-l", str(self.folder / "log"), "-o", options] if arguments[0] in ("start", "restart") else []
        run([*command, *log], user=self.user)


def run(command: list[str], *, user: str | None) -> None:
    """Runs a command of the server as the user who may."""
    done = subprocess.run(command, user=user, cwd="/", capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server that lives as long as the tests. Skips where there is none, or nobody who may run it."""
    pytest.importorskip("psycopg")
    binaries, user = find_binaries(), None
    if binaries is None:
        pytest.skip("no PostgreSQL server here (Debian: apt-get install postgresql)")
    if os.geteuid() == 0:
        user = "postgres" if has_user("postgres") else "nobody"
    folder = Path(tempfile.mkdtemp(prefix="autolambda-pg-", dir="/tmp"))  # short, for its socket; open to its user
    if user:
        shutil.chown(folder, user)
    password = folder / "password"
    password.write_text(PASSWORD)
    if user:
        shutil.chown(password, user)
    found = Server(binaries, folder, free_port(), user)
    locale = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
    try:
        data = str(folder / "data")
        run([str(binaries / "initdb"), "-D", data, "-U", "owner", f"--pwfile={password}", *locale], user=user)
        found.control("start")
        try:
            yield found
        finally:
            found.control("stop", "-m", "immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find_binaries() -> Path | None:
    """The folder of the newest server."""
    folders = [Path(each) for each in glob.glob("/usr/lib/postgresql/*/bin") if Path(each, "initdb").exists()]
    if folders:
        return max(folders, key=lambda folder: float(folder.parent.name))
    command = shutil.which("pg_ctl")
    return Path(command).resolve().parent if command else None


def has_user(name: str) -> bool:
    with suppress(KeyError):
        return pwd.getpwnam(name) is not None
    return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
