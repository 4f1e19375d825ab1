"""Where studies are, and what is said of one that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from autolambda.errors import StudyError
from autolambda.study.places import (
    check_exists,
    check_folder,
    default_storage,
    nearest,
    sqlite_path,
    storage_url,
    studies_folder,
    studies_under,
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(folder: Path, *names: str) -> None:
    for name in names:
        (folder / "studies" / name).mkdir(parents=True)
        (folder / "studies" / name / "study.db").touch()


def test_studies_lie_beside_the_project_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert studies_folder() == Path("studies") and default_storage("x") == "sqlite:///studies/x/study.db"
    (here / "autolambda.yaml").touch()
    assert studies_folder() == Path("studies")
    below = here / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert storage_url("x", None) == f"sqlite:///{here}/studies/x/study.db"
    (below / "autolambda.yaml").touch()
    assert storage_url("x", None) == "sqlite:///studies/x/study.db"


def test_a_tilde_in_a_url_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert storage_url("x", "sqlite:///~/s.db") == "sqlite:////home/me/s.db"
    assert storage_url("x", "postgresql://me@host/~") == "postgresql://me@host/~"
    assert sqlite_path("postgresql://me@host/x") is None and sqlite_path("sqlite:///s.db") == Path("s.db")


def test_a_missing_study_names_the_folder_and_the_nearest_name(here: Path) -> None:
    with pytest.raises(StudyError, match=f"no study 'bundeld' in {here}/studies, which has none; go to the folder"):
        check_exists("bundeld", None)
    made(here, "bundled", "other")
    with pytest.raises(StudyError, match=f"no study 'bundeld' in {here}/studies; did you mean 'bundled'?"):
        check_exists("bundeld", None)
    with pytest.raises(StudyError, match="it has: bundled, other"):
        check_exists("zzz", None)
    check_exists("bundled", None)
    check_exists("anything", "sqlite:///elsewhere.db")
    assert [name for name, _ in studies_under(Path("studies"))] == ["bundled", "other"]
    assert nearest("x", []) == "it has: none"
    assert nearest("x", [f"study{i}" for i in range(50)]).endswith("study10, study11, and 38 more")


def test_a_folder_is_made_for_the_default_database_alone(here: Path) -> None:
    check_folder("x", None)
    check_folder("x", f"sqlite:///{here}/x.db")
    check_folder("x", "postgresql://me@host/x")
    with pytest.raises(StudyError, match=r"storage: there is no folder '/nonexist' for x\.db; make it"):
        check_folder("x", "sqlite:////nonexist/x.db")
