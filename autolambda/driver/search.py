"""The main job: ask for a schedule, merge it in place, race it, tell; then confirm the finalists and decide.

Everything measured is in the database before the next step begins, so the same call resumes after any crash.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from tempfile import TemporaryDirectory

from autolambda.config import Config
from autolambda.driver.baselines.all import check_baselines
from autolambda.driver.confirm import confirm_finalists
from autolambda.driver.engine import FailedTwice
from autolambda.driver.evaluation import EvaluationRequest
from autolambda.driver.events import Noted, OnEvent, ignore
from autolambda.driver.job import Job, open_job
from autolambda.driver.run import Run
from autolambda.engines.base import Engine
from autolambda.errors import SwappedError
from autolambda.optimizer.space import PARENTS
from autolambda.report.report import Report
from autolambda.report.status import in_short
from autolambda.schedule import Schedule
from autolambda.statistics.metrics import Measured, measure
from autolambda.study.aside import set_aside
from autolambda.study.database import driver_lock
from autolambda.study.resume import check_identity, growth_sentence, has_grown, moment_of
from autolambda.study.store import Store, StoredStudy
from autolambda.study.trials import Study, driver_errors


def search(
    config: Config, *, name: str, storage: str, engine: Engine | None = None, on_event: OnEvent = ignore
) -> Report:
    """Runs or resumes the study ``name`` to its verdict.

    ``engine`` replaces the engine of the config. A trial in which two engines fail is given up. Raises ``InputError``
    if the user can correct the cause. Raises ``EngineError`` if no engine opens, the given one fails, a confirmation
    fails, or two trials in a row fail. The study can be resumed after every error.
    """
    with running(config, name=name, storage=storage, engine=engine, on_event=on_event) as run:
        run.open(config.budget)
        run.notes.introduce(storage, run.measured, run.allowance())
        while (trial := run.next_trial()) is not None:
            try:
                run.race(trial)
            except FailedTwice as error:
                run.give_up(trial, error)
        report = confirm_finalists(run, budget=config.budget)
        run.study.keep_answer(in_short(report))
        return report


def confirm(
    config: Config,
    *,
    name: str,
    storage: str,
    budget: float | None,
    engine: Engine | None = None,
    on_event: OnEvent = ignore,
) -> Report:
    """Confirms the finalists for any budget, from the trials of the study. Raises like ``search``."""
    with running(config, name=name, storage=storage, engine=engine, on_event=on_event) as run:
        run.open(budget)
        return confirm_finalists(run, budget=budget)


def evaluate(
    config: Config, schedule: Schedule, *, engine: Engine | None = None, on_event: OnEvent = ignore
) -> Measured:
    """Measures one schedule on the search slice, in a temporary study. Raises like ``search``."""
    with TemporaryDirectory() as folder:
        storage = f"sqlite:///{folder}/study.db"
        further = schedule.further
        with running(
            config, name="evaluate", storage=storage, engine=engine, on_event=on_event, further=further
        ) as run:
            return measure(
                run.evaluator.run(EvaluationRequest("evaluate", "trial", "0", schedule)), weights=config.weights
            )


@contextmanager
def running(
    config: Config,
    *,
    name: str,
    storage: str,
    engine: Engine | None,
    on_event: OnEvent,
    further: Collection[str] = (),
) -> Iterator[Run]:
    """Opens the job, with models of ``further`` roles, locks the study and yields a run; closes all at the end."""
    job, num_trials = open_job(config, further=further), 0
    try:
        with (
            driver_errors(),
            driver_lock(storage, name) as database,
            closing(Store(database)) as store,
            closing(Study(store, name=name)) as study,
        ):
            job = as_before(job, store.study(name))
            # after the trials' tables, because a reader that finds the study's row expects its trials
            if changed := enter(store, job, name=name):
                on_event(Noted(changed))
            check_baselines(job)
            with closing(Run(job, store, study, engine, on_event)) as run:
                try:
                    yield run
                finally:
                    num_trials = run.measured.observations.num_trials
    except SwappedError as error:
        # the right order may need the name; a longer study is the user's to delete
        kept = set_aside(storage, name, ending="swapped") if num_trials <= len(PARENTS) else name
        raise SwappedError(error.said, instruct=error.instruct, thinking=error.thinking, kept=kept) from None


def as_before(job: Job, stored: StoredStudy | None) -> Job:
    """Returns the job with the stored study's moment, for which its prompts are rendered, its seeds and its repeats.

    The repeats are the job's if the study can grow to them.
    """
    if stored is not None:
        job = job.at(moment_of(stored)).seeded_as(stored.identity)
    before = {} if stored is None else stored.identity.get("tasks", {})
    sizes = [[repeats for _, repeats in phase["prompts"]] for phase in before.values()]
    now = (job.search, job.confirm)
    if [len(phase) for phase in sizes] != [len(phase) for phase in now] or has_grown(before, now):
        return job
    return job.with_repeats(*sizes)


def enter(store: Store, job: Job, *, name: str) -> str | None:
    """Adds the study, or checks that its results are comparable with the job's, and stores its growth.

    Returns a sentence about the changes. Raises ``StudyError`` if the results are not comparable.
    """
    config = job.config.model_dump(mode="json")
    stored = store.study(name)
    if stored is None:
        store.create_study(name, config=config, identity=dict(job.identity))
        return None
    check_identity(stored, job.identity, slices=(job.search, job.confirm), config=job.config)
    if stored.config != config or stored.identity != job.identity:
        store.update_study(name, config=config, identity=dict(job.identity))
    return growth_sentence(stored, job.config, job.identity["tasks"])
