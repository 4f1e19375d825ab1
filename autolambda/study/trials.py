"""The trials of a study in Optuna's tables.

Trials run one after the other. The parameters of a trial are stored before its first response. So a trial that a crash
interrupted continues under its number, and its stored responses count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState

from autolambda.errors import StorageError, StudyError, one_line
from autolambda.merging.difference.values import ParentDifference
from autolambda.optimizer.observations import Proposal, StopReason
from autolambda.optimizer.optuna_samplers import DIRECTIONS, distributions
from autolambda.optimizer.space import Range, to_schedule
from autolambda.schedule import Schedule
from autolambda.statistics.metrics import Measured
from autolambda.study.databases.connection import failure, storage_errors
from autolambda.study.store import Kind, Store
from autolambda.tasks.digest import digest


@dataclass(frozen=True)
class Trial:
    """A started trial: its number in Optuna, its schedule, and the responses to measure.

    The responses run from ``start`` to ``stop`` (exclusive) in the fixed order of the search slices.
    """

    number: int
    params: Mapping[str, float]
    start: int
    stop: int

    @property
    def schedule(self) -> Schedule:
        return to_schedule(self.params)


@dataclass(frozen=True)
class EndedTrial:
    """A trial that has ended.

    ``stopped`` says why the race (early stopping) ended it, and ``failure`` why it could not be measured.
    """

    trial: Trial
    is_failed: bool
    stopped: str | None
    failure: str | None = None
    at: datetime | None = None  # when, local time


@dataclass(frozen=True)
class Counts:
    """The number of trials of a study in each state."""

    complete: int
    pruned: int
    failed: int
    running: int


@contextmanager
def driver_errors() -> Iterator[None]:
    """Turns database errors of Optuna and the store into a one-line ``StorageError``. Mutes Optuna's log meanwhile."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with storage_errors():
            yield
    except optuna.exceptions.StorageInternalError as error:
        raise StorageError(failure(error.__cause__ or error)) from error
    finally:
        optuna.logging.set_verbosity(level)


class Study:
    """The trials of one study."""

    def __init__(self, store: Store, *, name: str) -> None:
        """Opens a study in the store's database, for reading only if the store is.

        Raises ``StudyError`` for tables of another Optuna release, and for a reader if there is no trial yet.
        """
        self.name = name
        database = self._database = store.database
        if not store.has_trials:
            raise self._nothing()
        with database.table_lock():
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
        """Closes the connections."""
        self._storage.remove_session()
        self._database.release(self._storage.engine)

    def counts(self) -> Counts:
        """Counts the trials in each state."""
        states = [trial.state for trial in self._study.get_trials(deepcopy=False)]
        order = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING)  # that of the fields
        return Counts(*map(states.count, order))

    def interrupted(self) -> Trial | None:
        """Returns the trial that a crash left running."""
        return next(map(_trial, self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))), None)

    def start(self, proposal: Proposal, *, ranges: Mapping[str, Range]) -> Trial:
        """Adds a trial for the proposal, with all its parameters in one transaction."""
        trial = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=proposal.params,
            distributions={name: each for name, each in distributions(ranges).items() if name in proposal.params},
            user_attrs={"start": proposal.start, "stop": proposal.stop},
        )
        self._study.add_trial(trial)
        [running] = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return _trial(running)

    def tell(self, trial: Trial, measured: Measured) -> None:
        """Completes a trial with accuracy and mean tokens as its values.

        The numbers pool all trials of its schedule, with ``num_responses`` responses in total. Standard errors and the
        Think ratio are stored as an attribute of the trial.
        """
        estimates = {name: getattr(measured, name) for name in ("accuracy", "mean_tokens", "think_ratio")}
        numbers = {name: [estimate.value, estimate.standard_error] for name, estimate in estimates.items()}
        self._set(trial, "measured", {**numbers, "num_responses": measured.num_responses})
        self._study.tell(trial.number, (measured.accuracy.value, measured.mean_tokens.value))

    def prune(self, trial: Trial, reason: str) -> None:
        """Ends a trial that lost the race. Its responses are kept."""
        self._set(trial, "stopped", reason)
        self._study.tell(trial.number, state=TrialState.PRUNED)

    def fail(self, trial: Trial, reason: str) -> None:
        """Ends a trial that could not be measured. Its schedule is not proposed again."""
        self._set(trial, "failure", reason)
        self._study.tell(trial.number, state=TrialState.FAIL)

    def _set(self, trial: Trial, key: str, value: object) -> None:
        study = self._storage.get_study_id_from_name(self.name)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study, trial.number)
        self._storage.set_trial_user_attr(trial_id, key, value)

    def ended(self) -> list[EndedTrial]:
        """Returns the trials that have ended, by number."""
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        return [
            EndedTrial(
                _trial(trial),
                trial.state is TrialState.FAIL,
                trial.user_attrs.get("stopped"),
                trial.user_attrs.get("failure"),
                trial.datetime_complete,
            )
            for trial in self._study.get_trials(deepcopy=False, states=states)
        ]

    def weights_of(self, schedule: Schedule) -> str | None:
        """Returns the SHA-256 (hex) of a confirmed schedule's weights, or ``None``."""
        return self.kept(_weights_key(schedule))

    def keep_weights(self, schedule: Schedule, weights: str) -> None:
        """Stores the SHA-256 (hex) of a finalist's weights."""
        self.keep(_weights_key(schedule), weights)

    def seconds_of(self, kind: Kind, key: str) -> float | None:
        """Returns the seconds that engines generated for an evaluation, all parts together, or ``None``."""
        found: float | None = self._study.user_attrs.get(f"seconds {kind} {digest(key)}")
        return found

    def add_seconds(self, kind: Kind, key: str, seconds: float) -> None:
        """Adds the seconds of a part of an evaluation. No result depends on them."""
        total = (self.seconds_of(kind, key) or 0.0) + seconds
        self._study.set_user_attr(f"seconds {kind} {digest(key)}", total)

    @property
    def difference(self) -> ParentDifference | None:
        """How the parents differ; ``None`` until a run has measured it."""
        stored = self._study.user_attrs.get("parents_differ")
        return ParentDifference.from_dict(stored) if stored else None

    def keep_difference(self, difference: ParentDifference) -> None:
        self._study.set_user_attr("parents_differ", difference.to_dict())

    def keep_answer(self, answer: Mapping[str, object]) -> None:
        """Stores what a finished search found in short, so that a list of studies need not compute it again."""
        self._study.set_user_attr("answer", dict(answer))

    def kept(self, name: str) -> str | None:
        """Returns the text that ``keep`` stored under a name, or ``None``."""
        found: str | None = self._study.user_attrs.get(name)
        return found

    def keep(self, name: str, text: str) -> None:
        """Stores a text, so that a resumed run need not find it again."""
        self._study.set_user_attr(name, text)

    @property
    def stopped_for(self) -> StopReason | None:
        """Why the search stopped; ``None`` while it goes on."""
        reason: StopReason | None = self._study.user_attrs.get("stopped_for")
        return reason

    @stopped_for.setter
    def stopped_for(self, reason: StopReason | None) -> None:
        if reason != self.stopped_for:
            self._study.set_user_attr("stopped_for", reason)


def _trial(stored: FrozenTrial) -> Trial:
    return Trial(stored.number, stored.params, stored.user_attrs["start"], stored.user_attrs["stop"])


def _weights_key(schedule: Schedule) -> str:
    return f"weights {digest(schedule.key)}"
