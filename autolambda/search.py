"""The main job: ask a schedule, merge in place, measure, tell; then confirm the finalists and decide.

Everything that is measured is in the database before the next thing begins, so the same call goes on after any crash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from tempfile import TemporaryDirectory

from autolambda.chat import ChatFormat
from autolambda.config import Config
from autolambda.confirm import choose_finalists
from autolambda.engines.base import Engine
from autolambda.errors import EngineError
from autolambda.evaluation import Evaluator
from autolambda.events import Began, Ended, Generated, Noted, OnEvent, ignore
from autolambda.job import Job, open_engine, open_job
from autolambda.metrics import Measured, measure
from autolambda.report import Report, build_report, confirm_key, load_trials, slack_sentence
from autolambda.responses import Graded
from autolambda.schedule import Schedule
from autolambda.store import Kind, Store
from autolambda.study import Study, Trial, check_identity, driver_errors, driver_lock
from autolambda.tasks.base import Phase

MAX_FAILURES = 2  # trials in a row that fail before the search stops: it is then hardly their schedules
PARENTS = {"instruct": Schedule.uniform(0.0), "thinking": Schedule.uniform(1.0)}


class FailedTwice(EngineError):
    """Two engines, one after the other, failed in one evaluation."""


def search(
    config: Config, *, name: str, storage: str, engine: Engine | None = None, on_event: OnEvent = ignore
) -> Report:
    """Runs or resumes the study ``name`` to its verdict.

    ``engine`` stands in for the one that the config names. A trial in which two engines fail one after the other is
    given up. Raises ``InputError`` for what the user can put right and ``EngineError`` where no engine opens, the given
    one fails, or two trials in a row or a confirmation are given up; either way the study can be resumed.
    """
    with _running(config, name=name, storage=storage, engine=engine, on_event=on_event) as run:
        run.introduce(storage)
        num_failures = 0  # in a row
        while (trial := run.study.ask(config.search, budget=config.budget)) is not None:
            title, key = f"trial {trial.number}", str(trial.number)
            try:
                measured = run.measure(title, trial.schedule, kind="trial", key=key, phase="search")
            except FailedTwice as error:
                num_failures += 1
                run.fail(trial, error, is_last=num_failures == MAX_FAILURES)
                continue
            num_failures = 0
            run.study.tell(trial, measured)
            run.compare_budget(trial.schedule, measured.mean_tokens.value)
        return run.confirm(budget=config.budget)


def confirm(
    config: Config,
    *,
    name: str,
    storage: str,
    budget: float | None,
    engine: Engine | None = None,
    on_event: OnEvent = ignore,
) -> Report:
    """Confirms the finalists of any budget in a study as far as it got. Raises as ``search`` does."""
    with _running(config, name=name, storage=storage, engine=engine, on_event=on_event) as run:
        return run.confirm(budget=budget)


def evaluate(
    config: Config, schedule: Schedule, *, engine: Engine | None = None, on_event: OnEvent = ignore
) -> Measured:
    """Measures one schedule on the search slice, in a study that is thrown away."""
    with TemporaryDirectory() as folder:
        storage = f"sqlite:///{folder}/study.db"
        with _running(config, name="evaluate", storage=storage, engine=engine, on_event=on_event) as run:
            return run.measure("evaluate", schedule, kind="trial", key="0", phase="search")


@contextmanager
def _running(config: Config, *, name: str, storage: str, engine: Engine | None, on_event: OnEvent) -> Iterator[Run]:
    """A run on an opened job and a locked study; both are let go at the end."""
    job = open_job(config)
    with driver_lock(storage, name), driver_errors(), closing(Store(storage)) as store:
        enter(store, job, name=name)
        run = Run(job, store, Study(store, name=name, storage=storage), engine, on_event)
        with closing(run.study), closing(run):
            yield run


class Run:
    """One process's work on a study: measures schedules, tells the watcher."""

    def __init__(self, job: Job, store: Store, study: Study, engine: Engine | None, on_event: OnEvent) -> None:
        self.study = study
        self._job, self._store, self._on_event = job, store, on_event
        self._given = engine
        self._opened: Engine | None = None
        config = job.config
        self._evaluator = Evaluator(
            self._engine, job.models.chat, job.models.sampling, config.search.seed, job.batch_size, store
        )
        sizes = [sum(part.num_responses for part in slices) for slices in (job.search, job.confirm)]
        self._confirm_steps = max(1, round(sizes[1] / sizes[0]))  # a step is the work of a trial
        self._num_steps = config.search.trials + self._confirm_steps * (config.confirm.finalists + len(PARENTS))
        self._num_confirmed = 0
        self._parent_tokens: dict[str, float] = {}
        for warning in job.models.pair.warnings:
            on_event(Noted(warning))

    def measure(
        self, title: str, schedule: Schedule, *, kind: Kind, key: str, phase: Phase, chat: ChatFormat | None = None
    ) -> Measured:
        """A schedule's numbers on a slice, from stored responses as far as there are any.

        Raises ``FailedTwice``, or ``EngineError`` where no engine opens or the given one fails.
        """
        slices = self._job.search if phase == "search" else self._job.confirm
        num_responses = sum(part.num_responses for part in slices)
        evaluation = self._store.evaluation(
            self.study.name, kind=kind, key=key, schedule=schedule, num_responses=num_responses
        )
        step = min(self._next_step(phase), self._num_steps)
        self._on_event(Began(title, schedule, num_responses, step, self._num_steps))
        graded = self._twice(
            lambda: self._evaluator.run(evaluation, slices, phase=phase, chat=chat, on_batch=self._generated)
        )
        measured = measure(graded, weights=self._job.config.weights)
        self._on_event(Ended(title, schedule, measured))
        return measured

    def fail(self, trial: Trial, error: FailedTwice, *, is_last: bool) -> None:
        """Gives a trial up; but raises ``EngineError`` for the last before the search stops: it is hardly its fault."""
        if is_last:
            raise EngineError(
                f"{error}; {MAX_FAILURES} trials in a row failed. Nothing stored is lost; "
                "mend the cause, run the same command again"
            ) from error
        self.study.fail(trial, str(error))
        self._on_event(Noted(f"trial {trial.number} failed ({error}); its schedule is left out"))

    def confirm(self, *, budget: float | None) -> Report:
        """Measures both parents and the finalists of the budget on prompts that the search never saw; the report."""
        config = self._job.config
        for parent, schedule in PARENTS.items():
            chat = self._job.models.own_chats[parent]
            self.measure(f"{parent} as is", schedule, kind="parent", key=parent, phase="confirm", chat=chat)
        trials = load_trials(self._store, self.study, weights=config.weights)
        finalists = choose_finalists(trials, budget=budget, limit=config.confirm.finalists)
        for finalist in finalists:
            key = confirm_key(finalist.schedule)
            self.measure(f"confirm trial {finalist.trial}", finalist.schedule, kind="confirm", key=key, phase="confirm")
        return build_report(self._store, self.study, budget=budget)

    def introduce(self, storage: str) -> None:
        """Tells what lies ahead, and where it is kept."""
        config, done = self._job.config, self.study.counts().complete
        num_search, num_confirm = (
            sum(len(part.samples) for part in slices) for slices in (self._job.search, self._job.confirm)
        )
        plan = f"{config.search.trials} trials on {num_search} prompts, then up to {config.confirm.finalists} finalists"
        progress = f"; {done} done so far" if done else ""
        self._on_event(Noted(f"study {self.study.name}: {plan} on {num_confirm} others{progress} ({storage})"))
        for evaluation, point in zip(self.study.complete(), self.study.points(), strict=True):
            self.compare_budget(evaluation.schedule, point.mean_tokens)

    def compare_budget(self, schedule: Schedule, mean_tokens: float) -> None:
        """Takes in what a trial cost; tells, once both parents are measured, that the budget cannot bind, if so."""
        config = self._job.config
        parent = next((name for name, end in PARENTS.items() if end == schedule), None)
        if parent is None or config.budget is None:
            return
        self._parent_tokens[parent] = mean_tokens
        if sentence := slack_sentence(config.budget, self._parent_tokens, bundled=config.models.bundled):
            self._on_event(Noted(sentence))

    def close(self) -> None:
        """Frees the engine, if this run opened one; the next use opens another."""
        opened, self._opened = self._opened, None
        if opened:
            opened.close()

    def _twice(self, evaluate: Callable[[], list[Graded]]) -> list[Graded]:
        """Runs an evaluation, and once more with a new engine where one that this run opened fails."""
        try:
            return evaluate()
        except EngineError as error:
            if self._opened is None:
                raise
            reason = str(error)
        # not in the handler: the error's frames hold memory of the engine that failed
        self.close()
        self._on_event(Noted(f"the engine failed ({reason}); once more with a new one"))
        try:
            return evaluate()
        except EngineError as error:
            if self._opened is None:
                raise
            self.close()
            raise FailedTwice(str(error)) from error

    def _engine(self) -> Engine:
        """The engine that was given, or the config's, opened by its first use."""
        if self._given:
            return self._given
        if self._opened is None:
            self._on_event(Noted(f"engine: {self._job.engine_in_words}"))
            self._opened = open_engine(self._job)
            if self._opened.in_words != self._job.engine_in_words:
                self._on_event(Noted(f"engine: {self._opened.in_words}"))
        return self._opened

    def _next_step(self, phase: Phase) -> int:
        """The first step of the evaluation that begins, from 1."""
        if phase == "search":
            return self.study.counts().complete + 1
        self._num_confirmed += 1
        return self._job.config.search.trials + (self._num_confirmed - 1) * self._confirm_steps + 1

    def _generated(self, graded: Sequence[Graded]) -> None:
        self._on_event(Generated(len(graded), sum(g.response.num_tokens for g in graded)))


def enter(store: Store, job: Job, *, name: str) -> None:
    """Adds the study, or checks that its results compare with the job's and lets it grow. Raises ``StudyError``."""
    config = job.config.model_dump(mode="json")
    stored = store.study(name)
    if stored is None:
        store.create_study(name, config=config, identity=dict(job.identity))
        return
    check_identity(stored, job.identity)
    if stored.config != config:
        store.update_config(name, config)
