"""What the command line's arguments stand for: a config, a study's name and database, its report, a schedule.

Heavy modules are imported by the function that needs them, so that ``--help`` stays quick.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autolambda.errors import ConfigError

if TYPE_CHECKING:  # see above
    from autolambda.ablation_config import AblationName
    from autolambda.config import Config
    from autolambda.report import Report
    from autolambda.schedule import Schedule
    from autolambda.store import Store


def config_of(options: Mapping[str, Any]) -> Config:
    """The config of the command's options: file, --set, and the options that stand for a key."""
    from autolambda.config import load_config

    overrides: dict[str, object] = {
        f"models.{parent}": options[parent] for parent in ("instruct", "thinking") if options.get(parent)
    }
    if tasks := options.get("tasks"):
        overrides["tasks"] = [{"path": task} if _is_path(task) else {"name": task} for task in tasks]
    keys = {"budget": "budget", "trials": "search.trials", "seed": "search.seed", "workers": "engine.workers"}
    for option, key in keys.items():
        if options.get(option) is not None:
            overrides[key] = options[option]
    return load_config(options.get("config"), overrides=overrides, settings=options.get("settings", ()))


def config_of_study(options: Mapping[str, Any], *, study: str | None, storage: str | None) -> Config:
    """The config of the command's options; where they name no models, tasks or file, that of the ``study``, if any."""
    from autolambda.config import parse_config
    from autolambda.errors import StudyError
    from autolambda.settings import parse_setting, set_key

    if study is None or any(options.get(name) for name in ("instruct", "thinking", "tasks", "config")):
        return config_of(options)
    try:
        plain = stored_config(study, storage).model_dump(mode="json")
    except StudyError:  # a new one; what else may be wrong with its database is told when it is opened
        return config_of(options)
    for key, value in map(parse_setting, options.get("settings", ())):
        set_key(plain, key, value)
    return parse_config(plain)


def ablation_names(only: str | None) -> tuple[AblationName, ...]:
    """The studies of ``--only``, all by default, in their fixed order. Raises ``ConfigError`` for an unknown one."""
    from autolambda.ablation_config import ABLATIONS

    if only is None:
        return ABLATIONS
    wanted = [name.strip() for name in only.split(",")]
    unknown = [name for name in wanted if name not in ABLATIONS]
    if unknown:
        raise ConfigError(f"--only: no study {unknown[0]!r}; there are {', '.join(ABLATIONS)}")
    return tuple(name for name in ABLATIONS if name in wanted)


def _is_path(task: str) -> bool:
    return "." in task or os.sep in task or os.path.exists(task)


def default_name(config: Config) -> str:
    """``bundled``, or the Thinking model's own name."""
    if config.models.thinking is None:
        return "bundled"
    return re.sub(r"[^A-Za-z0-9._-]+|\.\.+", "-", Path(config.models.thinking).name).strip(".-_")[:64] or "study"


def storage_url(name: str, storage: str | None) -> str:
    """The database of a study: the one that was given, or the study's own. Raises ``StudyError`` for a bad name."""
    from autolambda.study import check_name, default_storage

    check_name(name)
    return default_storage(name) if storage is None else storage


@contextmanager
def opened_store(name: str, storage: str | None, *, with_texts: bool = True) -> Iterator[Store]:
    """The store of a study that exists, to read it. Raises ``StudyError``, and ``StorageError`` where it fails."""
    from autolambda.errors import StudyError
    from autolambda.store import Store
    from autolambda.study import driver_errors

    url = storage_url(name, storage)
    with driver_errors(), closing(Store(url, must_exist=True, with_texts=with_texts)) as store:
        if store.study(name) is None:
            raise StudyError(f"no study '{name}' in this database; it has: {', '.join(store.names()) or 'none'}")
        yield store


def stored_config(name: str, storage: str | None) -> Config:
    """A study's own config, as it was resolved."""
    from autolambda.config import parse_config

    with opened_store(name, storage) as store:
        stored = store.study(name)
        assert stored is not None
        return parse_config(stored.config)


def with_workers(config: Config, workers: int | None) -> Config:
    """The config with another number of workers, where one is given. Raises ``ConfigError`` for less than one."""
    from autolambda.config import parse_config

    if workers is None:
        return config
    plain = config.model_dump(mode="json")
    return parse_config({**plain, "engine": {**plain["engine"], "workers": workers}})


def report_of(name: str, storage: str | None, budget: float | None) -> Report:
    """The report for ``budget``, or for the study's own."""
    from autolambda.report import build_report
    from autolambda.study import Study

    config = stored_config(name, storage)
    wanted = config.budget if budget is None else positive_budget(budget)
    with (
        opened_store(name, storage, with_texts=False) as store,
        closing(Study(store, name=name)) as study,
    ):
        return build_report(store, study, budget=wanted)


def positive_budget(budget: float) -> float:
    """The budget as it was given. Raises ``ConfigError`` unless it is a positive number."""
    if not 0 < budget < float("inf"):
        raise ConfigError(f"--budget: a positive number of tokens, seen {budget:g}")
    return budget


def schedule_of(lam: float | None, path: Path | None) -> Schedule:
    """The schedule of ``--lambda`` or ``--schedule``. Raises ``ConfigError`` unless just one of them is given."""
    from autolambda.schedule import Schedule, read_schedule

    if lam is not None and path is None:
        return Schedule.uniform(lam)
    if path is not None and lam is None:
        return read_schedule(path)
    raise ConfigError("give either --lambda X or --schedule FILE")
