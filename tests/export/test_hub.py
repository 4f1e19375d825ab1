"""Uploading: huggingface_hub against a hub on this machine, in a process of its own, where it reads its address."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Run, refused
from local_model_hub import OWNER, ModelHub, serving, settings
from small_search import NAME, copy_finished, finished, storage_in

from autolambda.errors import ConfigError
from autolambda.export.export import check_export
from autolambda.export.hub import check_repository

CLI = str(Path(sys.executable).with_name("autolambda"))
TOKEN = "hf_secretsecretsecretsecretsecretsecret"
PUSH = """
import sys
from pathlib import Path
from autolambda.errors import AutolambdaError
from autolambda.export.hub import push
try:
    print(push(Path(sys.argv[1]), sys.argv[2]))
except AutolambdaError as error:
    sys.exit(f"error {error.exit_code}: {error}")
"""


@pytest.fixture
def hub() -> Iterator[ModelHub]:
    with serving(ModelHub()) as found:
        yield found


def pushed(hub: ModelHub, folder: Path, repository: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PUSH, str(folder), repository],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)} | settings(hub, folder.parent / "home", TOKEN),
    )


def test_a_folder_is_uploaded_as_it_is_into_a_private_repository(hub: ModelHub, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    files = {"README.md": b"---\nlibrary_name: transformers\n---\n", "config.json": b"{}", "autolambda.json": b"{}"}
    files |= {"model.safetensors": os.urandom(100_000)}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    ran = pushed(hub, folder, "merge-1")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == f"{hub.url}/{OWNER}/merge-1"
    assert hub.private == {f"{OWNER}/merge-1": True}
    assert hub.files == {f"{OWNER}/merge-1": files}
    assert hub.tokens - {""} == {f"Bearer {TOKEN}"} and TOKEN not in ran.stdout + ran.stderr
    (folder / "README.md").write_bytes(b"new")
    assert pushed(hub, folder, f"{OWNER}/merge-1").returncode == 0  # into the one that is there
    assert hub.files[f"{OWNER}/merge-1"]["README.md"] == b"new"


def test_a_hub_that_refuses_is_one_line_without_the_token(hub: ModelHub, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    hub.refuses = 403
    ran = pushed(hub, tmp_path / "out", "merge-1")
    assert ran.returncode == 1 and len(ran.stderr.strip().splitlines()) == 1, ran.stderr
    assert ran.stderr.startswith("error 1: ") and "is complete, but the hub did not take it as 'merge-1'" in ran.stderr
    assert f"hf upload merge-1 {tmp_path / 'out'}" in ran.stderr and TOKEN not in ran.stderr


def exported(hub: ModelHub, folder: Path, repository: str) -> subprocess.CompletedProcess[str]:
    """The real ``autolambda export`` of the small study into ``folder / "out"``."""
    return subprocess.run(
        [CLI, "export", NAME, "out", "--push-to-hub", repository],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | settings(hub, folder / "home", TOKEN),
    )


def test_an_export_is_uploaded_whole(hub: ModelHub, tmp_path: Path) -> None:
    copy_finished(storage_in(tmp_path))
    ran = exported(hub, tmp_path, "merge-1")
    best = finished().best
    assert best is not None and ran.returncode == 0, ran.stderr
    assert ran.stdout == f"out: {best.schedule}\nout: {hub.url}/{OWNER}/merge-1\n"
    assert hub.private == {f"{OWNER}/merge-1": True} and hub.tokens - {""} == {f"Bearer {TOKEN}"}
    assert hub.files[f"{OWNER}/merge-1"] == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert TOKEN not in ran.stdout + ran.stderr


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_one_line_and_the_export_stays(hub: ModelHub, tmp_path: Path, status: int) -> None:
    copy_finished(storage_in(tmp_path))
    hub.refuses = status
    ran = exported(hub, tmp_path, f"{OWNER}/merge-1")
    *notes, error = ran.stderr.splitlines()
    assert ran.returncode == 1 and all(line.startswith("note: ") for line in notes), ran.stderr
    assert error.startswith("error: 'out' is complete, but the hub did not take it") and str(status) in error
    assert TOKEN not in ran.stdout + ran.stderr and not hub.files
    best = finished().best
    assert best is not None and check_export(tmp_path / "out") == str(best.schedule)


def test_a_repository_that_is_none_is_refused_before_anything_is_written(run: Run) -> None:
    copy_finished(storage_in(Path.cwd()))
    refused(run("export", NAME, "out", "--push-to-hub", "a/b/c"), "--push-to-hub: NAME or OWNER/NAME, seen 'a/b/c'")
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["", "a/b/c", "a b", "../x", "a--b", "x.git"])
def test_what_is_no_repository_is_refused_beforehand(name: str) -> None:
    with pytest.raises(ConfigError, match=r"--push-to-hub: NAME or OWNER/NAME, seen"):
        check_repository(name)
