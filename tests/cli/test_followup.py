"""``transfer`` and ``check``: what they print, and one line for every bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Run, refused
from small_search import NAME, copy_finished, storage_in

from autolambda.bundled import FOLDER


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return copy_finished(storage_in(tmp_path))


@pytest.fixture
def task(tmp_path: Path) -> str:
    """Eight rows that neither the search nor the confirmation has."""
    path = tmp_path / "other.jsonl"
    path.write_text("\n".join((FOLDER / "test.jsonl").read_text(encoding="utf-8").splitlines()[:8]), encoding="utf-8")
    return str(path)


def test_transfer_prints_a_table_and_then_generates_nothing(run: Run, storage: str, task: str) -> None:
    ran = run("transfer", NAME, f"--task={task}", "--limit=4", f"--storage={storage}", "-q")
    assert ran.code == 0 and not ran.err and "On another task: other" in ran.out, ran
    assert "Compared with Instruct: " in ran.out and "Compared with Thinking: " in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    again = run("transfer", NAME, f"--task={task}", "--limit=4", f"--storage={storage}", "--json")
    (plain,) = json.loads(again.out)
    assert plain["task"] == "other" and plain["sides"]["pick"]["num_responses"] == 4
    assert "0 responses are missing" in again.err and "engine" not in again.err
    report = json.loads(run("report", NAME, "--format=json", f"--storage={storage}").out)
    assert report["transfers"] == [plain] and "served" not in report


def test_bad_input_of_both_is_one_line(run: Run, storage: str, task: str) -> None:
    at = f"--storage={storage}"
    refused(run("transfer", NAME, at), "no other task: give --task")
    refused(run("transfer", NAME, "--task=missing.jsonl", at), "missing.jsonl")
    refused(run("transfer", "nobody", f"--task={task}", at), "nobody")
    refused(run("check", NAME, "--endpoint=127.0.0.1:9", at), "no server answers at 'http://127.0.0.1:9/v1'")
    refused(run("check", NAME, "--endpoint=ftp://there", at), "an address such as http://localhost:8000/v1")
    assert run("check", NAME, at).code == 2
