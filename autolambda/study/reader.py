"""Opens stored studies for reading. A reader needs no lock and changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property

from autolambda.config import Config, parse_config
from autolambda.errors import StudyError
from autolambda.study.store import Store
from autolambda.study.trials import Study, default_storage, driver_errors

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class StudyReader:
    """A stored study open for reading: its responses (``store``), its resolved config and its trials."""

    def __init__(self, name: str, store: Store) -> None:
        """Raises ``StudyError`` if the database holds no study of this name."""
        stored = store.study(name)
        if stored is None:
            raise StudyError(f"no study '{name}' in this database; it has: {', '.join(store.names()) or 'none'}")
        self.name, self.store = name, store
        self.config: Config = parse_config(stored.settings)

    @cached_property
    def study(self) -> Study:
        """The trials. Raises ``StudyError`` before the first one."""
        return Study(self.store, name=self.name)

    def close(self) -> None:
        """Closes the trials if they were opened. The store belongs to the caller."""
        if "study" in self.__dict__:
            self.study.close()


def check_name(name: str) -> str:
    """Returns the name of a study unchanged. Raises ``StudyError`` for one that cannot name a folder."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise StudyError(
            f"study name {name!r}: use up to 64 letters, digits, '.', '_' and '-', starting with a letter or digit"
        )
    return name


def storage_url(name: str, storage: str | None) -> str:
    """Returns a study's database URL, by default its own under ``studies/``. Raises ``StudyError`` for a bad name."""
    check_name(name)
    return default_storage(name) if storage is None else storage


@contextmanager
def open_for_reading(name: str, storage: str | None, *, with_texts: bool = True) -> Iterator[StudyReader]:
    """Opens a study to read it, without the texts of its responses unless ``with_texts`` is true.

    Raises ``StudyError`` if there is no such study and ``StorageError`` if the database fails.
    """
    url = storage_url(name, storage)
    with (
        driver_errors(),
        closing(Store(url, must_exist=True, with_texts=with_texts)) as store,
        closing(StudyReader(name, store)) as reader,
    ):
        yield reader


def stored_config(name: str, storage: str | None) -> Config:
    """Returns the resolved config of a stored study. Raises like ``open_for_reading``."""
    with open_for_reading(name, storage, with_texts=False) as reader:
        return reader.config
