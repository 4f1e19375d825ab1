"""A study: its trials in Optuna's tables, its responses in ours, one driver at a time.

Trials are asked and told one after the other. A trial that a crash left running is gone on with under its own number:
its parameters are stored before its first response, and its stored responses count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import optuna
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from autolambda.config import SearchConfig
from autolambda.errors import StorageError, StudyError
from autolambda.metrics import Measured
from autolambda.sampler import DIRECTIONS, Point, box, propose, to_schedule
from autolambda.schedule import Schedule
from autolambda.store import Store, StoredEvaluation, StoredStudy, sqlite_path, storage_errors, storage_failure

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Trial:
    """A trial that was asked for: Optuna's number and the schedule to measure."""

    number: int
    schedule: Schedule
    handle: optuna.trial.Trial = field(repr=False, compare=False)


@dataclass(frozen=True)
class Counts:
    """How many trials of a study ended in which state."""

    complete: int
    pruned: int
    failed: int
    running: int


def check_name(name: str) -> str:
    """A study's name as it was given. Raises ``StudyError`` for one that could not be a folder's name."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise StudyError(
            f"study name {name!r}: use up to 64 letters, digits, '.', '_' and '-', starting with a letter or digit"
        )
    return name


def default_storage(name: str) -> str:
    """Where a study lives unless the user says otherwise."""
    return f"sqlite:///studies/{name}/study.db"


@contextmanager
def driver_lock(storage: str, name: str) -> Iterator[None]:
    """Held by the one process that proposes and writes; it ends with its process, however that ends."""
    path = sqlite_path(storage)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_name(f"{path.name}.{name}.lock"), timeout=0)
        lock.acquire()
    except filelock.Timeout as error:
        raise StudyError(f"study '{name}' is being run by another process; wait for it or stop it") from error
    except OSError as error:
        raise StudyError(f"study database '{path}' cannot be locked: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def check_identity(stored: StoredStudy, identity: Mapping[str, Any]) -> None:
    """Raises ``StudyError`` naming every key on which the stored results depend and that is different now."""
    before, now = stored.identity, identity
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if changed:
        listed = "; ".join(f"{key}: {_short(before.get(key))} then, {_short(now.get(key))} now" for key in changed)
        raise StudyError(
            f"study '{stored.name}' was made with another config ({listed}); its results would not compare. "
            "Take the old values, or start another study with --study"
        )


@contextmanager
def driver_errors() -> Iterator[None]:
    """Turns what the database raises under Optuna's hands or ours into one line. Raises ``StorageError``."""
    try:
        with storage_errors():
            yield
    except optuna.exceptions.StorageInternalError as error:
        raise StorageError(storage_failure(error.__cause__ or error)) from error


class Study:
    """The trials of one study."""

    def __init__(self, store: Store, *, name: str, storage: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.name = name
        self._store = store
        self._storage = optuna.storages.RDBStorage(storage)
        self._study = optuna.create_study(
            study_name=name,
            storage=self._storage,
            directions=list(DIRECTIONS),
            sampler=RandomSampler(seed=0),
            load_if_exists=True,
        )  # the sampler is never asked: every trial is enqueued with all its parameters

    def close(self) -> None:
        """Lets go of the database."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def counts(self) -> Counts:
        """The trials by state."""
        states = [trial.state for trial in self._study.get_trials(deepcopy=False)]
        return Counts(
            complete=states.count(TrialState.COMPLETE),
            pruned=states.count(TrialState.PRUNED),
            failed=states.count(TrialState.FAIL),
            running=states.count(TrialState.RUNNING),
        )

    def ask(self, config: SearchConfig, *, budget: float | None) -> Trial | None:
        """The next trial to measure, or the one a crash interrupted; ``None`` once ``config.trials`` are done."""
        running = self._study.get_trials(states=(TrialState.RUNNING,))
        if running:
            handle = optuna.trial.Trial(self._study, running[0]._trial_id)
        else:
            points = self.points()
            if len(points) >= config.trials:
                return None
            if not self._study.get_trials(states=(TrialState.WAITING,)):
                self._study.enqueue_trial(propose(points, config, budget=budget, failed=self._failed()))
            handle = self._study.ask()
        params = {name: handle.suggest_float(name, span.low, span.high) for name, span in box(config.knots).items()}
        return Trial(handle.number, to_schedule(params), handle)

    def tell(self, trial: Trial, measured: Measured) -> None:
        """Completes a trial: accuracy and mean tokens as its values, the Think ratio beside them."""
        trial.handle.set_user_attr("think_ratio", measured.think_ratio.value)
        self._study.tell(trial.handle, (measured.accuracy.value, measured.mean_tokens.value))

    def fail(self, trial: Trial, reason: str) -> None:
        """Ends a trial that could not be measured; its schedule is not proposed again."""
        trial.handle.set_user_attr("failure", reason)
        self._study.tell(trial.handle, state=TrialState.FAIL)

    def points(self) -> list[Point]:
        """The complete trials as the sampler sees them, in the order of their numbers."""
        return [
            Point(trial.params, trial.values[0], trial.values[1], trial.user_attrs["think_ratio"])
            for trial in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        ]

    def _failed(self) -> list[dict[str, float]]:
        """The params of the trials that failed."""
        return [trial.params for trial in self._study.get_trials(deepcopy=False, states=(TrialState.FAIL,))]

    def complete(self) -> list[StoredEvaluation]:
        """The evaluations of the complete trials, in the order of their numbers."""
        done = {str(t.number) for t in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))}
        evaluations = self._store.evaluations(self.name, kind="trial")
        return sorted((e for e in evaluations if e.key in done), key=lambda e: int(e.key))


def studies_under(folder: Path) -> list[tuple[str, str]]:
    """(name, storage URL) of each study with its own database under ``folder``."""
    return [(path.parent.name, f"sqlite:///{path}") for path in sorted(folder.glob("*/study.db")) if path.is_file()]


def _short(value: object) -> str:
    text = "none" if value is None else str(value) if str(value).isprintable() else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
