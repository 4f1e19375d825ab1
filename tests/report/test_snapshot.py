"""Snapshot: one look at a database, without the texts."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from small_search import NAME, copy_finished, finished, go_on, small_config, small_snapshot, storage_in

from autolambda.driver.job import open_job
from autolambda.driver.search import enter
from autolambda.errors import StudyError
from autolambda.report.snapshot import load_snapshot, num_layers_of
from autolambda.study.store import Store
from autolambda.study.trials import Study


def test_every_response_is_there_without_its_text() -> None:
    snapshot = small_snapshot()
    assert snapshot.report == finished() and snapshot.outcomes.num_tokens.sum() == finished().tokens_generated
    assert "text" not in snapshot.outcomes and set(snapshot.outcomes.kind) == {"trial", "confirm", "parent"}
    assert len(snapshot.trials) == 6 and not snapshot.is_running


def test_a_study_that_goes_on_is_running(tmp_path: Path) -> None:
    storage = copy_finished(storage_in(tmp_path))
    go_on(storage, 9)
    assert small_snapshot(storage).is_running


def test_before_the_first_trial_there_are_none(tmp_path: Path) -> None:
    storage = storage_in(tmp_path)
    with closing(Store(storage)) as store:
        enter(store, open_job(small_config()), name=NAME)
        with closing(Study(store, name=NAME)) as study, pytest.raises(StudyError, match="no complete"):
            load_snapshot(store, study, budget=None)


@pytest.mark.parametrize(
    ("content", "expected"),
    [({"num_hidden_layers": 36}, 36), ({}, None), ({"num_hidden_layers": "36"}, None), ([], None), (None, None)],
)
def test_the_layers_are_known_where_the_models_are(tmp_path: Path, content: object, expected: int | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(json.dumps(content))
    assert num_layers_of(small_config(models__instruct=str(tmp_path), models__thinking=str(tmp_path))) == expected
    assert num_layers_of(small_config()) == 6


@pytest.mark.parametrize("source", ["nobody/never-downloaded", "not a hub id: <x>"])
def test_models_that_are_not_here_have_no_known_layers(source: str) -> None:
    assert num_layers_of(small_config(models__instruct=source, models__thinking=source)) is None
