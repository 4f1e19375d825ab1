"""What ``validate`` tells of a config, and the problems that it lists."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from autolambda.config import Config, parse_config
from autolambda.errors import ConfigError
from autolambda.project.inspection import inspect


@pytest.fixture
def path(tmp_path: Path) -> str:
    rows = [{"question": f"{i}+1=", "answer": str(i + 1)} for i in range(8)]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def config(path: str, **sections: object) -> Config:
    task = {"path": path, "repeats": 2}
    return parse_config({"tasks": [task], "sampling": {"max_tokens": 64}} | sections)


def test_what_will_run_is_told(path: str) -> None:
    found = inspect(config(path, engine={"device": "cpu"}))
    lines = list(found.lines)
    slices = [line for line in lines if line.startswith(("search: ", "confirm: "))]
    assert slices == ["search: mine, 3 prompts x 2", "confirm: mine, 5 prompts x up to 8"]
    assert lines[0] == slices[0] and lines[1].startswith("  accuracy to ")
    assert any(line.startswith("with 8 rows hardly anything can be proven") for line in lines)
    heads = [line.partition(":")[0] for line in lines]
    assert {"tokens", "disk", "memory", "sampling", "engine"} <= set(heads)
    assert "sampling: temperature 1, top-p 1, top-k 0, at most 64 tokens" in lines
    assert "engine: transformers on cpu, float32" in lines
    start = lines.index("4 % of the weights differ by at most one step of bfloat16, 7 % by at most two.")
    assert lines[start + 1] == "How merges are rounded makes no difference to speak of for this pair."
    assert lines[start + 2] == "moved from Instruct to Thinking if rounded to nearest, by all 690,528 weights:"
    table = lines[start + 3 :]
    assert [line.split()[0] for line in table] == ["lambda", "whole", "attention", "ffn", "other"]
    assert len({len(line) for line in table}) == 1 and len(table[0]) <= 80
    assert found.is_valid and found.verdict.endswith("parameters, at most 64 tokens a response")


def test_the_arguments_of_vllm_are_checked(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(arguments: Sequence[str]) -> None:
        raise ConfigError(f"unknown {list(arguments)}")

    monkeypatch.setattr("autolambda.project.inspection.installed_version", lambda: "0.32.0")
    monkeypatch.setattr("autolambda.project.inspection.check_arguments", refuse)
    found = inspect(config(path, engine={"name": "vllm", "no_such_argument": 1}))
    assert found.problems == ("unknown ['no_such_argument']",) and found.verdict == "not valid: 1 problem"
    assert inspect(config(path, engine={"device": "cpu"})).is_valid  # with transformers there are none


def test_all_problems_are_listed_and_the_rest_is_told(path: str) -> None:
    plain = {"models": {"instruct": "./gone", "thinking": "./lost"}, "tasks": [{"path": path}, {"path": "no.jsonl"}]}
    found = inspect(parse_config(plain | {"sampling": {"max_tokens": 64}}))
    assert [problem.split("'")[1] for problem in found.problems] == ["no.jsonl", "./gone", "./lost"]
    assert any(line.startswith("search: mine") for line in found.lines)
    assert any(line.startswith("tokens: at most ") for line in found.lines)
