"""Where studies are: their names, their folders and their default databases.

The folder ``studies`` lies beside the project file (``autolambda.yaml``) of the current folder or the nearest parent.
Without one it lies in the current folder. This module imports little, so a command can look before anything slow is
loaded.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from autolambda.errors import StudyError
from autolambda.files import project_file

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MOST_NAMES = 12  # of studies in a message
_SQLITE = "sqlite:///"


def check_name(name: str) -> str:
    """Returns the name of a study unchanged. Raises ``StudyError`` for one that cannot name a folder."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise StudyError(
            f"study name {name!r}: use up to 64 letters, digits, '.', '_' and '-', starting with a letter or digit"
        )
    return name


def studies_folder() -> Path:
    """Returns the folder of the studies, relative to the current folder if it lies there."""
    project = project_file()
    return Path("studies") if project is None or project.parent == Path.cwd() else project.parent / "studies"


def default_storage(name: str) -> str:
    """Returns the default URL of a study's database."""
    return f"{_SQLITE}{studies_folder() / name / 'study.db'}"


def storage_url(name: str, storage: str | None) -> str:
    """Returns a study's database URL, by default its own under ``studies/``. Raises ``StudyError`` for a bad name.

    A ``~`` in the path of an SQLite file is the home folder.
    """
    check_name(name)
    if storage is None:
        return default_storage(name)
    path = storage.removeprefix(_SQLITE)
    return f"{_SQLITE}{os.path.expanduser(path)}" if path.startswith("~") and path != storage else storage


def sqlite_path(storage: str) -> Path | None:
    """Returns the file of an SQLite URL; ``None`` for any other URL."""
    return Path(storage.removeprefix(_SQLITE)) if storage.startswith(_SQLITE) and storage != _SQLITE else None


def studies_under(folder: Path) -> list[tuple[str, str]]:
    """Returns (name, storage URL) of each study with its own database under ``folder``."""
    return [(path.parent.name, f"{_SQLITE}{path}") for path in sorted(folder.glob("*/study.db")) if path.is_file()]


def check_exists(name: str, storage: str | None) -> None:
    """Raises ``StudyError`` if a study has no database in the folder of the studies, with the nearest name there."""
    path = sqlite_path(storage_url(name, storage))
    if storage is not None or path is None or path.is_file():
        return
    known = [each for each, _ in studies_under(studies_folder())]
    looked = f"no study '{name}' in {studies_folder().absolute()}"
    if not known:
        raise StudyError(
            f"{looked}, which has none; go to the folder of the study, or name its database with --storage"
        )
    raise StudyError(f"{looked}; {nearest(name, known)} (--storage names a database elsewhere)")


def check_folder(name: str, storage: str | None) -> None:
    """Raises ``StudyError`` if the folder of a new SQLite file is missing; ``studies/`` is made as it is needed."""
    path = sqlite_path(storage_url(name, storage))
    if storage is None or path is None or path.parent.is_dir():
        return
    raise StudyError(f"storage: there is no folder '{path.parent}' for {path.name}; make it, or correct the path")


def nearest(name: str, known: list[str]) -> str:
    """Returns ``did you mean 'bundled'?`` for a name that is close to a known one, else the known names."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    shown = [*known[:_MOST_NAMES], *([f"and {len(known) - _MOST_NAMES} more"] if len(known) > _MOST_NAMES else [])]
    return f"it has: {', '.join(shown) or 'none'}"
