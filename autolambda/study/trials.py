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

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from autolambda.errors import StorageError, StudyError, one_line
from autolambda.optimizer.optuna_samplers import DIRECTIONS, distributions
from autolambda.optimizer.propose import Proposal, StopReason
from autolambda.optimizer.space import to_schedule
from autolambda.schedule import Schedule
from autolambda.statistics.metrics import Measured
from autolambda.study.connection import failure, storage_errors
from autolambda.study.store import Store
from autolambda.tasks.digest import digest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Trial:
    """A trial that was asked for: Optuna's number, the schedule, and the responses to measure of it.

    They are those from the ``start``-th to before the ``stop``-th in the fixed order of the slice.
    """

    number: int
    params: Mapping[str, float]
    start: int
    stop: int
    handle: optuna.trial.Trial | None = field(default=None, repr=False, compare=False)

    @property
    def schedule(self) -> Schedule:
        return to_schedule(self.params)


@dataclass(frozen=True)
class EndedTrial:
    """A trial that has ended.

    ``stopped`` says why it was not measured further, if it was stopped by the race, and ``failure`` why it could not be
    measured.
    """

    trial: Trial
    is_failed: bool
    stopped: str | None
    failure: str | None = None


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
def driver_errors() -> Iterator[None]:
    """Turns what the database raises under Optuna's hands or ours into one line. Raises ``StorageError``."""
    try:
        with storage_errors():
            yield
    except optuna.exceptions.StorageInternalError as error:
        raise StorageError(failure(error.__cause__ or error)) from error


class Study:
    """The trials of one study."""

    def __init__(self, store: Store, *, name: str) -> None:
        """Opens a study in the store's database: for its driver, or, where the store is a reader's, as far as it got.

        Raises ``StudyError`` for tables of another release of Optuna, and for a reader before there is a trial.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.name = name
        database = self._database = store.database
        if not store.has_trials:
            raise self._nothing()
        with database.making():
            try:
                self._storage = optuna.storages.RDBStorage(
                    database.url, engine_kwargs=database.options, skip_table_creation=database.is_reader
                )
            except RuntimeError as error:
                raise StudyError(f"the trials in '{database.shown}' cannot be read: {one_line(error)}") from error
            database.watch(self._storage.engine)
            self._study = self._load() if database.is_reader else self._create()

    def _nothing(self) -> StudyError:
        return StudyError(f"study '{self.name}' has no complete trial yet; go on with 'autolambda resume {self.name}'")

    def _create(self) -> optuna.Study:
        return optuna.create_study(
            study_name=self.name,
            storage=self._storage,
            directions=list(DIRECTIONS),
            sampler=RandomSampler(seed=0),
            load_if_exists=True,
        )  # the sampler is never asked: every trial is added with all its parameters

    def _load(self) -> optuna.Study:
        try:
            return optuna.load_study(study_name=self.name, storage=self._storage, sampler=RandomSampler(seed=0))
        except KeyError as error:
            self.close()
            raise self._nothing() from error

    def close(self) -> None:
        """Lets go of the database."""
        self._storage.remove_session()
        self._database.release(self._storage.engine)

    def counts(self) -> Counts:
        """The trials by state."""
        states = [trial.state for trial in self._study.get_trials(deepcopy=False)]
        return Counts(
            complete=states.count(TrialState.COMPLETE),
            pruned=states.count(TrialState.PRUNED),
            failed=states.count(TrialState.FAIL),
            running=states.count(TrialState.RUNNING),
        )

    def interrupted(self) -> Trial | None:
        """Returns the trial that a crash left running."""
        return self._running() if self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)) else None

    def start(self, proposal: Proposal, *, num_knots: int) -> Trial:
        """Adds a trial for the proposal, with all its parameters in one transaction."""
        trial = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=proposal.params,
            distributions=dict(distributions(num_knots)),
            user_attrs={"start": proposal.start, "stop": proposal.stop},
        )
        self._study.add_trial(trial)
        return self._running()

    def _running(self) -> Trial:
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))[0]
        start, stop = running.user_attrs["start"], running.user_attrs["stop"]
        handle = optuna.trial.Trial(self._study, running._trial_id)
        return Trial(running.number, running.params, start, stop, handle)

    def tell(self, trial: Trial, measured: Measured) -> None:
        """Completes a trial: accuracy and mean tokens as its values, with their errors and the Think ratio beside them.

        They are those of its schedule, whose earlier trials count; ``num_responses`` says on how many.
        """
        assert trial.handle is not None
        estimates = {name: getattr(measured, name) for name in ("accuracy", "mean_tokens", "think_ratio")}
        numbers = {name: [each.value, each.standard_error] for name, each in estimates.items()}
        trial.handle.set_user_attr("measured", {**numbers, "num_responses": measured.num_responses})
        self._study.tell(trial.handle, (measured.accuracy.value, measured.mean_tokens.value))

    def prune(self, trial: Trial, reason: str) -> None:
        """Ends a trial that lost the race: what was measured of it stays, and is no full measurement."""
        assert trial.handle is not None
        trial.handle.set_user_attr("stopped", reason)
        self._study.tell(trial.handle, state=TrialState.PRUNED)

    def fail(self, trial: Trial, reason: str) -> None:
        """Ends a trial that could not be measured; its schedule is not proposed again."""
        assert trial.handle is not None
        trial.handle.set_user_attr("failure", reason)
        self._study.tell(trial.handle, state=TrialState.FAIL)

    def ended(self) -> list[EndedTrial]:
        """The trials that have ended, in the order of their numbers."""
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        return [
            EndedTrial(
                Trial(trial.number, trial.params, trial.user_attrs["start"], trial.user_attrs["stop"]),
                trial.state is TrialState.FAIL,
                trial.user_attrs.get("stopped"),
                trial.user_attrs.get("failure"),
            )
            for trial in self._study.get_trials(deepcopy=False, states=states)
        ]

    def weights_of(self, schedule: Schedule) -> str | None:
        """The SHA-256 (hex) of the weights with which a finalist was confirmed, where it is known."""
        found: str | None = self._study.user_attrs.get(_weights_key(schedule))
        return found

    def keep_weights(self, schedule: Schedule, weights: str) -> None:
        """Stores it."""
        self._study.set_user_attr(_weights_key(schedule), weights)

    @property
    def stopped_for(self) -> StopReason | None:
        """Why the search stopped, ``None`` while it goes on."""
        reason: StopReason | None = self._study.user_attrs.get("stopped_for")
        return reason

    @stopped_for.setter
    def stopped_for(self, reason: StopReason | None) -> None:
        if reason != self.stopped_for:
            self._study.set_user_attr("stopped_for", reason)


def _weights_key(schedule: Schedule) -> str:
    return f"weights {digest(schedule.key)}"


def studies_under(folder: Path) -> list[tuple[str, str]]:
    """(name, storage URL) of each study with its own database under ``folder``."""
    return [(path.parent.name, f"sqlite:///{path}") for path in sorted(folder.glob("*/study.db")) if path.is_file()]
