"""The Python interface: search a pair of models, open a study, measure one merge, write one merge.

    import autolambda

    study = autolambda.search("org/Model-Instruct", "org/Model-Thinking", task="my.jsonl", budget=4000)
    print(study.verdict, study.pick.schedule)
    autolambda.merge("org/Model-Instruct", "org/Model-Thinking", "my-merge", schedule=study.pick.schedule)

The defaults are as on the command line, but for the project file ``autolambda.yaml``, which Python reads only if it is
given as ``config``. Without models the bundled pair is searched. A study is named after the Thinking model, and its
database is ``studies/NAME/study.db``. An error that the caller can correct is an
``autolambda.errors.InputError``. Its one line names the argument or key, the value seen and what to do.

The imports are inside the functions, so that ``import autolambda`` stays quick.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autolambda.errors import ConfigError, StudyError

if TYPE_CHECKING:  # see above
    from autolambda.config import Config
    from autolambda.driver.events import OnEvent
    from autolambda.merging.method import MethodName, Role, RoundingName
    from autolambda.schedule import Schedule
    from autolambda.statistics.metrics import Measured
    from autolambda.study_view import StudyView

logger = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]
Tasks = PathLike | Sequence[PathLike]


def search(
    instruct: PathLike | None = None,
    thinking: PathLike | None = None,
    *,
    task: Tasks | None = None,
    budget: float | None = None,
    study: str | None = None,
    storage: str | None = None,
    config: PathLike | Mapping[str, object] | Config | None = None,
    settings: Mapping[str, object] | None = None,
    on_event: OnEvent | None = None,
) -> StudyView:
    """Creates or resumes a study, runs it to its verdict, and returns it.

        study = autolambda.search(budget=40, settings={"search.trials": 16})  # the bundled pair

    Args:
        instruct, thinking: Checkpoint folders or ids on the Hugging Face hub. Both or neither.
        task: A benchmark's name, a hub id, a file or folder with 'question' and 'answer', or a list of these.
        budget: Mean generated tokens that a response may cost. Without it the whole front is the answer.
        study: The study's name.
        storage: Database URL of the study, ``sqlite:///PATH`` or ``postgresql://USER@HOST/DATABASE``.
        config: A YAML file, or its keys and values. The other arguments override it.
        settings: Config keys, dotted, with their values: ``{"sampling.max_tokens": 8192}``.
        on_event: Called with each event of ``autolambda.driver.events``; ``print`` shows them.

    After a crash or Ctrl-C the same call continues where it stopped. Raises ``InputError`` for a bad argument,
    ``EngineError`` or ``StorageError`` if the run failed.
    """
    from autolambda.driver import search as jobs
    from autolambda.driver.events import ignore
    from autolambda.study.places import storage_url
    from autolambda.study_view import StudyView
    from autolambda.tracking.tracking import tracking

    resolved = _config(instruct, thinking, task=task, budget=budget, config=config, settings=settings)
    name = default_name(resolved) if study is None else study
    view = StudyView(name, storage, resolved.budget)
    with tracking(resolved, study=name, on_event=on_event or ignore) as shown:
        found = jobs.search(resolved, name=name, storage=storage_url(name, storage), on_event=shown)
        shown.finish(found, lambda: view.page)
    return view


def open_study(study: PathLike, *, storage: str | None = None, budget: float | None = None) -> StudyView:
    """Opens a study for reading, by its name, its folder, its database file, or a database URL.

        study = autolambda.open_study("bundled", budget=60)
        study = autolambda.open_study("~/work/studies/bundled")

    Args:
        study: The name, the folder or the ``study.db`` in it, or the URL of a database that holds just one study.
        storage: Database URL, by default the study's own under ``studies/``.
        budget: Mean tokens that the verdict is for, by default the study's own.

    Raises ``StudyError`` if the study is missing, ``ConfigError`` for a budget that is not a positive number.
    """
    from autolambda.study.reader import stored_config
    from autolambda.study_view import StudyView, checked_budget, only_study, url_of

    wanted = checked_budget(budget)
    name, url = os.fspath(study), url_of(study)
    if url is not None:
        if storage is not None:
            raise StudyError("study, storage: give a study's name with storage, or its path or database URL alone")
        name, storage = only_study(url), url
    config = stored_config(name, storage)
    return StudyView(name, storage, config.budget if wanted is None else wanted)


def evaluate(
    instruct: PathLike | None = None,
    thinking: PathLike | None = None,
    *,
    lam: float | None = None,
    schedule: Schedule | Mapping[str, object] | PathLike | None = None,
    task: Tasks | None = None,
    config: PathLike | Mapping[str, object] | Config | None = None,
    settings: Mapping[str, object] | None = None,
    on_event: OnEvent | None = None,
) -> Measured:
    """Measures one merge on the search slice, without storing a study.

        measured = autolambda.evaluate(lam=0.6)  # the bundled pair
        measured.accuracy.value, measured.mean_tokens.value

    Args:
        lam: One lambda for all parameters: 0 is Instruct, 1 is Thinking; outside [0, 1] it extrapolates.
        schedule: Instead of ``lam``: a ``Schedule``, its keys and values, or a YAML file with them.

    The other arguments and the errors are as in ``search``.
    """
    from autolambda.driver.events import ignore
    from autolambda.driver.search import evaluate as run

    chosen = _schedule(lam, schedule)
    resolved = _config(instruct, thinking, task=task, budget=None, config=config, settings=settings)
    return run(resolved, chosen, on_event=on_event or ignore)


def merge(
    instruct: PathLike,
    thinking: PathLike,
    out: PathLike,
    *,
    lam: float | None = None,
    schedule: Schedule | Mapping[str, object] | PathLike | None = None,
    method: MethodName = "linear",
    base: PathLike | None = None,
    third: PathLike | None = None,
    rounding: RoundingName = "dithered",
    rounding_seed: int = 0,
    vision: Role = "thinking",
    max_shard_size: str = "5GB",
) -> Path:
    """Writes one merge as a checkpoint folder, without a study, and returns the folder.

        autolambda.merge("org/Model-Instruct", "org/Model-Thinking", "my-merge", lam=0.6)

    Args:
        out: The new folder. It is complete or missing, never half written.
        lam, schedule: As in ``evaluate``, for the methods ``linear`` and ``slerp``.
        method: ``linear``, ``slerp``, ``task_arithmetic`` or ``ties``.
        base: The base model of both parents, for ``task_arithmetic``, ``ties``, and a schedule with a scale.
        third: The third parent of a schedule with its weight.
        rounding, rounding_seed: ``dithered`` or ``nearest``, for weights in bf16 and fp16; the seed of the draws.
        vision: The parent whose vision part is kept, of models that have one.
        max_shard_size: Size of a weight file, a number with KB, MB or GB.

    Notes on the pair are logged as warnings. Raises ``InputError`` for a bad argument, for parents that do not fit
    together, or if ``out`` exists.
    """
    from autolambda.driver.models import open_models
    from autolambda.export.export import export
    from autolambda.merging.method import METHODS, Method, reads_schedule
    from autolambda.merging.shards import parse_size

    if method not in METHODS:
        raise ConfigError(f"method: one of {', '.join(METHODS)}, seen {method!r}")
    is_given = lam is not None or schedule is not None
    scheduled = _schedule(lam, schedule) if reads_schedule(method, given=is_given) else None
    given = {"base": base, "third": third}
    sources = {role: None if each is None else os.path.expanduser(each) for role, each in given.items()}
    chosen = Method.of(method, scheduled, base=sources["base"], third=sources["third"])
    shard_size = parse_size(max_shard_size)
    settings: dict[str, object] = {f"models.{role}": sources[role] for role in chosen.further}
    settings |= {"merge.rounding": rounding, "merge.seed": rounding_seed, "models.vision": vision}
    models = open_models(_config(instruct, thinking, settings=settings), further=chosen.further)
    for note in export(models, chosen, Path(out), max_shard_size=shard_size):
        logger.warning("%s", note)
    return Path(out)


def config_overrides(
    instruct: PathLike | None, thinking: PathLike | None, task: Tasks | None, budget: float | None
) -> dict[str, object]:
    """Returns these arguments as dotted config keys with their values. The command line uses it too."""
    overrides: dict[str, object] = {}
    for parent, source in (("instruct", instruct), ("thinking", thinking)):
        if source is not None:
            overrides[f"models.{parent}"] = os.path.expanduser(source)
    if task:
        from autolambda.tasks.config import source_in_short

        tasks = [os.path.expanduser(each) for each in ([task] if isinstance(task, str | os.PathLike) else task)]
        overrides["tasks"] = [source_in_short(each) for each in tasks]
    if budget is not None:
        overrides["budget"] = budget
    return overrides


def default_name(config: Config) -> str:
    """Returns the default name of a study: the Thinking model's name, or ``bundled`` without models."""
    if config.models.thinking is None:
        return "bundled"
    return re.sub(r"[^A-Za-z0-9._-]+|\.\.+", "-", Path(config.models.thinking).name).strip(".-_")[:64] or "study"


def _config(
    instruct: PathLike | None,
    thinking: PathLike | None,
    *,
    task: Tasks | None = None,
    budget: float | None = None,
    config: PathLike | Mapping[str, object] | Config | None = None,
    settings: Mapping[str, object] | None = None,
) -> Config:
    from autolambda.config import Config
    from autolambda.config_file import load_config

    source = config.model_dump(mode="json") if isinstance(config, Config) else config
    if source is not None and not isinstance(source, Mapping):
        source = Path(source)
    return load_config(source, overrides=config_overrides(instruct, thinking, task, budget) | dict(settings or {}))


def _schedule(lam: float | None, schedule: Schedule | Mapping[str, object] | PathLike | None) -> Schedule:
    from autolambda.schedule import Schedule, read_schedule

    if (lam is None) == (schedule is None):
        raise ConfigError(f"lam, schedule: give one of the two, seen {'neither' if lam is None else 'both'}")
    if lam is not None:
        return Schedule.uniform(lam)
    if isinstance(schedule, Schedule):
        return schedule
    return Schedule.from_dict(schedule) if isinstance(schedule, Mapping) else read_schedule(Path(schedule or ""))
