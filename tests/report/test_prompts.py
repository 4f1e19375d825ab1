"""The prompts of a study, and what is said where they are gone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_search import finished, small_config

from autolambda.config import Config
from autolambda.report.prompts import Prompts, load_prompts
from autolambda.responses import Sample
from autolambda.tasks.digest import PromptsKey, prompts_key
from autolambda.tasks.slices import open_slices


def test_the_prompts_of_a_study_are_found_by_task_and_id() -> None:
    report = finished()
    prompts = load_prompts(report.config, report.identity)
    assert prompts.problem is None and len(prompts.samples) == 16 + 32
    opened = open_slices(report.config.tasks, report.config.confirm_size, seed=report.config.search.seed)
    for phase in (opened.search, opened.confirm):
        for sample in phase[0].samples:
            assert prompts.text("arithmetic", sample.id) == sample.messages[0]["content"]
            assert prompts.target("arithmetic", sample.id) == sample.target
    assert prompts.text("arithmetic", "nothing") is None and prompts.target("other", "1") is None


def key_of(config: Config) -> PromptsKey:
    opened = open_slices(config.tasks, config.confirm_size, seed=config.search.seed)
    return prompts_key((opened.search, opened.confirm))


@pytest.fixture
def task(tmp_path: Path) -> Path:
    file = tmp_path / "sums.jsonl"
    file.write_text("\n".join(json.dumps({"question": f"{i} + 1?", "answer": str(i + 1)}) for i in range(8)))
    return file


def test_a_task_file_that_is_gone_is_said_to_be(task: Path) -> None:
    config = small_config(tasks=[{"path": str(task)}])
    identity = {"tasks": key_of(config)}
    assert load_prompts(config, identity).text("sums", "1") == "0 + 1?"
    task.unlink()
    prompts = load_prompts(config, identity)
    assert prompts.text("sums", "1") is None
    assert prompts.problem == f"Only the ids of prompts are shown: task file '{task}' does not exist."


def test_a_task_file_that_has_changed_says_nothing_about_what_was_asked(task: Path) -> None:
    config = small_config(tasks=[{"path": str(task)}])
    identity = {"tasks": key_of(config)}
    task.write_text(task.read_text().replace("3 + 1?", "3 + 1 = ?"))
    prompts = load_prompts(config, identity)
    assert (
        not prompts.samples
        and prompts.problem is not None
        and "the prompts have changed since the search" in prompts.problem
    )


def test_several_messages_are_shown_with_their_roles() -> None:
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"})
    prompts = Prompts({("t", "1"): Sample("1", messages, "2")})
    assert prompts.text("t", "1") == "[system]\nBe brief.\n\n[user]\n1 + 1?"
