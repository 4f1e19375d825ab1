"""Baselines in a search: measured beside the finalists, kept, and refused before anything is generated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engine import no_engine
from small_search import NAME, answer, copy_finished, database, finished, small_config, storage_in

from autolambda.bundled import FOLDER
from autolambda.driver.search import search
from autolambda.errors import ConfigError
from autolambda.report.json_csv import report_json


@pytest.fixture
def copied(tmp_path: Path) -> str:
    """The finished study's database, copied: what is done to it stays here."""
    return copy_finished(storage_in(tmp_path))


def test_baselines_are_measured_beside_the_finalists_and_kept(copied: str) -> None:
    """They are added to a study that is done: nothing else is generated anew."""
    before = database(copied)
    config = small_config(search__baselines=["task_arithmetic", "slerp", "cut"])
    report = search(config, name=NAME, storage=copied)
    names = list(report.baselines)
    assert names[0] == "task_arithmetic" and names[1].startswith("slerp at lambda ") and len(names) >= 2
    assert all(entry.confirmed and entry.trial is None for entry in report.baselines.values())
    scores = {(entry.score.accuracy, entry.score.mean_tokens) for entry in report.baselines.values()}
    assert len(scores) == len(names)  # each has weights or a cut of its own
    plain = json.loads(report_json(report))
    assert [each["method"] for each in plain["baselines"]] == names
    after = database(copied)
    assert [row for row in after["responses"] if row in before["responses"]] == before["responses"]
    assert report.cap is not None  # the baseline "cut"
    assert answer(report) | {"baselines": [], "cap": None} == answer(finished()) | {
        "tokens_generated": plain["tokens_generated"]
    }
    again = search(config, name=NAME, storage=copied, engine=no_engine())
    assert answer(again) == answer(report)


def test_a_baseline_without_its_base_is_refused_before_anything_is_generated(copied: str) -> None:
    parents = FOLDER
    config = small_config(
        search__baselines=["slerp", "ties"],
        models__instruct=str(parents / "instruct"),
        models__thinking=str(parents / "thinking"),
    )
    with pytest.raises(ConfigError, match=r"models\.base: ties needs the base model"):
        search(config, name=NAME, storage=copied, engine=no_engine())
