"""The first check of all: what can only be a path is told at once, what may be a name is left to later checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from autolambda.errors import InputError, OutputError
from autolambda.project.paths import check_paths, check_writable


@pytest.mark.parametrize(
    ("models", "tasks", "config", "said"),
    [
        (("./a", None), (), None, "no folder './a'; give an existing folder or a hub id such as Qwen/Qwen3-4B"),
        (("org/name", "~/b"), (), None, "no folder '~/b'"),
        (("a/b/c", None), (), None, "no folder 'a/b/c'"),
        ((None, None), ("gsm8k", "my.jsonl"), None, "task file 'my.jsonl' does not exist"),
        ((None, None), ("./folder",), None, "task file './folder' does not exist"),
        ((None, None), (), "no.yaml", "config file 'no.yaml' cannot be read: No such file or directory"),
    ],
)
def test_a_missing_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models, tasks, config, said) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        check_paths(models, tasks, config)
    assert str(caught.value).startswith(said)


def test_what_is_there_or_may_be_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("my.jsonl", "c.yaml"):
        Path(name).touch()
    check_paths(("gpt2", "org/name"), ("gsm8k", "owner/set", "my.jsonl", "~/my.jsonl"), "~/c.yaml")


def test_a_file_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "autolambda.yaml"
    check_writable(path, force=False)
    path.symlink_to("gone")
    with pytest.raises(
        OutputError, match=r"'autolambda\.yaml' exists already; edit it, or write a new one with --force"
    ):
        check_writable(path, force=False)
    check_writable(path, force=True)
