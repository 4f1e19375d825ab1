"""Uploading: huggingface_hub against a hub on this machine, in a process of its own, where it reads its address."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_model_hub import OWNER, ModelHub, serving

from autolambda.errors import ConfigError
from autolambda.hub import check_repository

TOKEN = "hf_secretsecretsecretsecretsecretsecret"
PUSH = """
import sys
from pathlib import Path
from autolambda.errors import AutolambdaError
from autolambda.hub import push
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
    settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(folder.parent / "home")}
    settings |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return subprocess.run(
        [sys.executable, "-c", PUSH, str(folder), repository],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)} | settings,
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
    hub.refuses = True
    ran = pushed(hub, tmp_path / "out", "merge-1")
    assert ran.returncode == 1 and len(ran.stderr.strip().splitlines()) == 1, ran.stderr
    assert ran.stderr.startswith("error 1: ") and "is complete, but the hub did not take it as 'merge-1'" in ran.stderr
    assert f"hf upload merge-1 {tmp_path / 'out'}" in ran.stderr and TOKEN not in ran.stderr


@pytest.mark.parametrize("name", ["", "a/b/c", "a b", "../x", "a--b", "x.git"])
def test_what_is_no_repository_is_refused_beforehand(name: str) -> None:
    with pytest.raises(ConfigError, match=r"--push-to-hub: NAME or OWNER/NAME, seen"):
        check_repository(name)
