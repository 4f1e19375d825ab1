"""Small searches on the bundled pair through the real engine, for every test that needs a study."""

from __future__ import annotations

import functools
import json
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from shared import made_once, shared_folder

from autolambda.bundled import FOLDER
from autolambda.config import Config
from autolambda.config_file import load_config
from autolambda.driver.events import Event, Noted
from autolambda.driver.search import search
from autolambda.report.json_csv import report_json
from autolambda.report.report import Report
from autolambda.report.snapshot import StudySnapshot, load_snapshot
from autolambda.study.store import Store
from autolambda.study.trials import Study

NAME = "small"
BUDGET = 30.0
WEIGHTS = "model.safetensors"
CAPPED_SEED = 5  # a cap on the tail of its merges is worth measuring
SETTINGS: dict[str, object] = {
    "tasks": [{"name": "arithmetic", "limit": 16, "repeats": 1}],
    "confirm.limit": 32,
    "confirm.repeats": 1,
    "confirm.finalists": 3,
    "search.trials": 6,
    "search.ladder": 4,
    "search.seed": 17,  # its answer is a uniform merge, beside one by module; nothing bolder is likely
    "sampling.max_tokens": 64,
    "engine.threads": 1,
    "engine.batch_size": 32,
    "cap.measure": False,  # ``capped`` has one
    "merge.rounding": "nearest",  # so its finalists are just within the budget, which tests of verdicts need
}


def small_config(**changes: object) -> Config:
    """The config of a search that takes seconds; ``changes`` are dotted keys with ``__`` for the dot."""
    overrides = {"budget": BUDGET} | SETTINGS | {key.replace("__", "."): value for key, value in changes.items()}
    return load_config(None, overrides=overrides)


def close_pair(folder: Path) -> dict[str, str]:
    """The bundled pair as overrides of a config, but every weight of Thinking is one step of bfloat16 from Instruct."""
    for name in ("instruct", "thinking"):
        shutil.copytree(FOLDER / name, folder / name)
    tensors = {name: each.view(torch.int16) for name, each in load_file(FOLDER / "instruct" / WEIGHTS).items()}
    save_file({name: (each + 1).view(torch.bfloat16) for name, each in tensors.items()}, folder / "thinking" / WEIGHTS)
    return {f"models__{name}": str(folder / name) for name in ("instruct", "thinking")}


def storage_in(folder: Path, name: str = NAME) -> str:
    return f"sqlite:///{folder}/studies/{name}/study.db"


@functools.cache
def finished() -> Report:
    """The report of a search that ran to its verdict; its database is at ``finished_storage()`` (do not write)."""
    report: Report = made_once("finished", lambda folder: search(small_config(), name=NAME, storage=storage_in(folder)))
    return report


def capped_config(**changes: object) -> Config:
    """The config of a small search with long responses, of which caps on thinking cut some."""
    own = {
        "budget": 40.0,
        "cap__measure": True,
        "sampling__max_tokens": 192,
        "confirm__limit": 64,
        "search__seed": CAPPED_SEED,
    }
    tasks = [{"name": "arithmetic", "limit": 48, "repeats": 1}]
    return small_config(**{"tasks": tasks, **own, **changes})


def _copy(source: str, target: str) -> None:
    """Copies a study's database, write-ahead log included. Both are URLs."""
    path = Path(target.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True)
    with (
        closing(sqlite3.connect(source.removeprefix("sqlite:///"))) as one,
        closing(sqlite3.connect(path)) as other,
    ):
        one.backup(other)


@functools.cache
def capped() -> Report:
    """The report of a finished search with caps on thinking; its database is at ``capped_storage()`` (do not write)."""
    report: Report = made_once("capped", lambda folder: search(capped_config(), name=NAME, storage=storage_in(folder)))
    return report


def capped_storage() -> str:
    """The URL of the database of ``capped()``, once that was called."""
    return storage_in(shared_folder() / "capped")


def without_caps(to: str) -> str:
    """Copies the study of ``capped()`` as it was before its first cap."""
    capped()
    _copy(capped_storage(), to)
    with closing(sqlite3.connect(to.removeprefix("sqlite:///"))) as target, target:
        caps = "(SELECT id FROM autolambda_evaluations WHERE kind = 'cap')"
        target.execute(f"DELETE FROM autolambda_responses WHERE evaluation IN {caps}")
        target.execute("DELETE FROM autolambda_evaluations WHERE kind = 'cap'")
        target.execute("DELETE FROM study_user_attributes WHERE key LIKE 'cap of %' OR key LIKE 'seconds cap %'")
    return to


def with_parent(report: Report, name: str = "instruct") -> Report:
    """The report as if a parent were the answer, and its first confirmed merge within the budget but less accurate."""
    best, beaten = report.parents[name], report.confirmed[0]
    return replace(report, best=best, beaten=beaten, cheaper_than=None, alike=(), likely=None, open=None)


def finished_storage() -> str:
    """The URL of the finished study's database, once ``finished()`` was called."""
    return storage_in(shared_folder() / "finished")


def copy_finished(storage: str) -> str:
    """Copies the finished study's database to ``storage``, write-ahead log included."""
    finished()
    _copy(finished_storage(), storage)
    return storage


def small_snapshot(storage: str | None = None, budget: float | None = BUDGET) -> StudySnapshot:
    """What the figures of the finished study are drawn from, or of its copy at ``storage``."""
    finished()
    url = storage or finished_storage()
    with closing(Store(url, with_texts=False)) as store, closing(Study(store, name=NAME)) as study:
        return load_snapshot(store, study, budget=budget)


def go_on(storage: str, num_trials: int) -> None:
    """What a search does that goes on with a finished study, up to its next trial."""
    with closing(Store(storage)) as store:
        stored = store.study(NAME)
        assert stored is not None
        config = small_config(search__trials=num_trials).model_dump(mode="json")
        store.update_study(NAME, config=config, identity=stored.identity)
        with closing(Study(store, name=NAME)) as study:
            study.stopped_for = None


def unconfirmed(storage: str) -> str:
    """Copies the finished study with its search alone: nothing is confirmed yet."""
    copy_finished(storage)
    with closing(sqlite3.connect(storage.removeprefix("sqlite:///"))) as connection, connection:
        confirmed = "(SELECT id FROM autolambda_evaluations WHERE kind != 'trial')"
        connection.execute(f"DELETE FROM autolambda_responses WHERE evaluation IN {confirmed}")
        connection.execute(f"DELETE FROM autolambda_evaluations WHERE id IN {confirmed}")
    return storage


def database(storage: str) -> dict[str, list[Any]]:
    """All that a study holds, in its order: trials, their parameters and values, evaluations, responses."""
    queries = {
        "trials": "SELECT trial_id, number, state FROM trials ORDER BY number",
        "params": "SELECT trial_id, param_name, param_value FROM trial_params ORDER BY trial_id, param_name",
        "values": "SELECT trial_id, objective, value FROM trial_values ORDER BY trial_id, objective",
        "evaluations": "SELECT id, kind, key, schedule, num_responses FROM autolambda_evaluations ORDER BY id",
        "responses": "SELECT evaluation, task, sample_id, repeat, text, num_tokens, finish_reason, grade, answer, "
        "thought FROM autolambda_responses ORDER BY id",
    }
    with closing(sqlite3.connect(storage.removeprefix("sqlite:///"))) as connection:
        return {name: connection.execute(query).fetchall() for name, query in queries.items()}


@dataclass(frozen=True)
class Finished:
    """A search that ran to its end, with all that its study holds."""

    report: Report
    database: dict[str, list[Any]]


def texts(events: Sequence[Event]) -> list[str]:
    """The notes that a search told."""
    return [event.text for event in events if isinstance(event, Noted)]


def answer(report: Report) -> dict[str, object]:
    """What ``autolambda report --json`` says."""
    plain: dict[str, object] = json.loads(report_json(report))
    return plain
