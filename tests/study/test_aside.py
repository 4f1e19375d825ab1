"""A study that is set aside keeps all it holds, and its name is free again."""

from contextlib import closing
from pathlib import Path

import pytest
from small_search import NAME, copy_finished, database, finished, storage_in

from autolambda.errors import StudyError
from autolambda.report.json_csv import report_json
from autolambda.report.read import read_report
from autolambda.study.aside import set_aside
from autolambda.study.database import driver_lock
from autolambda.study.store import Store
from autolambda.study.trials import Study


def test_a_study_at_its_default_place_moves_with_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for expected in ("small-swapped", "small-swapped-2"):
        copy_finished(f"sqlite:///studies/{NAME}/study.db")
        assert set_aside(f"sqlite:///studies/{NAME}/study.db", NAME, ending="swapped") == expected
        assert not Path("studies", NAME).exists()
        found = read_report(expected, None, finished().budget)
        assert report_json(found) == report_json(finished()).replace(f'"{NAME}"', f'"{expected}"')


def test_elsewhere_it_is_renamed_in_its_database_and_others_stay(tmp_path):
    storage = copy_finished(storage_in(tmp_path))
    with closing(Store(storage)) as store:
        store.create_study("other", config={}, identity={})
    before = database(storage)
    assert set_aside(storage, NAME, ending="swapped") == "small-swapped"
    with closing(Store(storage)) as store:
        assert sorted(store.names()) == ["other", "small-swapped"]
    assert database(storage) == before


def test_a_long_name_stays_a_name(tmp_path):
    name, storage = "x" * 64, f"sqlite:///{tmp_path}/study.db"
    with closing(Store(storage)) as store:
        store.create_study(name, config={}, identity={})
        Study(store, name=name).close()
    assert set_aside(storage, name, ending="swapped") == "x" * 56 + "-swapped"


def test_a_running_study_is_not_set_aside(tmp_path):
    storage = copy_finished(storage_in(tmp_path))
    with driver_lock(storage, NAME), pytest.raises(StudyError, match="is being run by process"):
        set_aside(storage, NAME, ending="swapped")
