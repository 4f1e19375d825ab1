"""Sets a study aside under another name, so that its own name is free again. Nothing of it is lost."""

from __future__ import annotations

import itertools
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from autolambda.study.database import driver_lock
from autolambda.study.schema import EVALUATIONS, STUDIES
from autolambda.study.store import Store
from autolambda.study.trials import default_storage, driver_errors

_OPTUNA = sa.table("studies", sa.column("study_name"))
_LONGEST = 64  # characters of a name


def set_aside(storage: str, name: str, *, ending: str) -> str:
    """Renames a study to ``NAME-ending``, with a number if that is taken, and returns the new name.

    The folder of a study at its default place is renamed too. Raises ``StudyError`` if another process runs the study.
    """
    with driver_errors(), driver_lock(storage, name) as database, closing(Store(database)) as store:
        taken = {*store.names(), *(path.name for path in Path("studies").glob("*"))}
        tails = (f"-{ending}" if number == 1 else f"-{ending}-{number}" for number in itertools.count(1))
        new = next(each for tail in tails if (each := name[: _LONGEST - len(tail)] + tail) not in taken)
        with store.changing() as connection:
            row = connection.execute(sa.select(STUDIES).where(STUDIES.c.name == name)).one()
            connection.execute(sa.insert(STUDIES).values(row._asdict() | {"name": new}))
            connection.execute(sa.update(EVALUATIONS).where(EVALUATIONS.c.study == name).values(study=new))
            connection.execute(sa.delete(STUDIES).where(STUDIES.c.name == name))
            connection.execute(sa.update(_OPTUNA).where(_OPTUNA.c.study_name == name).values(study_name=new))
    if storage == default_storage(name):
        (Path("studies") / name).rename(Path("studies") / new)
    return new
