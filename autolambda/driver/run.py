"""A run: one process's work on a study. It measures schedules and races them, and tells the watcher.

Everything that is measured is in the database before the next thing begins.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from autolambda.driver.baselines import check_baselines
from autolambda.driver.engine import EngineSupervisor, FailedTwice
from autolambda.driver.evaluation import EVERYTHING, Evaluator
from autolambda.driver.events import Began, EvaluationEnded, Generated, Noted, OnEvent
from autolambda.driver.job import Job
from autolambda.engines.base import Engine, Sampling
from autolambda.engines.chat import ChatFormat
from autolambda.errors import EngineError, StudyError
from autolambda.graders.service import GradingService
from autolambda.merging.method import Method
from autolambda.optimizer.propose import Proposal, Stop, allowance_of, on_the_ladder, propose
from autolambda.optimizer.racing import OVER_BUDGET, most_tokens, stopped_for
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.surrogate import ENDS
from autolambda.optimizer.token_allowance import CONFIRM_SHARE
from autolambda.report.report import slack_sentence
from autolambda.responses import Graded, is_aborted
from autolambda.schedule import Schedule
from autolambda.statistics.metrics import Measured
from autolambda.study.connection import shown_storage
from autolambda.study.measured import load_measured
from autolambda.study.store import Kind, Store
from autolambda.study.trials import Study, Trial
from autolambda.tasks.base import Phase

MOSTLY = 0.9  # of a task's responses
MAX_FAILURES = 2  # trials in a row that fail before the search stops: it is then hardly their schedules
PARENTS = dict(zip(("instruct", "thinking"), ENDS, strict=True))


class Run:
    """One process's work on a study: measures schedules, tells the watcher."""

    def __init__(self, job: Job, store: Store, study: Study, engine: Engine | None, on_event: OnEvent) -> None:
        self.job, self.store, self.study = job, store, study
        self.on_event = on_event
        self.engine = EngineSupervisor(job, engine, lambda note: on_event(Noted(note)))
        self._parent_tokens: dict[str, float] = {}
        self._unread: set[str] = set()
        config = job.config
        self._aims = job.aims(config.budget)
        self.record = load_measured(store, study, weights=config.weights)
        self._marking = GradingService()
        self._evaluator = Evaluator(
            self.engine,
            job.models.chat,
            job.models.sampling,
            config.search.seed,
            job.batch_size,
            store,
            self._marking,
            lambda note: on_event(Noted(note)),
        )
        check_baselines(job)
        for warning in (*job.models.pair.warnings, *job.warnings):
            on_event(Noted(warning))
        self._marking.start({part.grader for part in (*job.search, *job.confirm)})

    def next_trial(self) -> Trial | None:
        """The trial to measure next; ``None``, once there is none, and the reason is told."""
        settings = self.job.config.search_settings

        def ask() -> Proposal | None:
            answer = propose(self.record.evidence, settings, self._aims)
            if isinstance(answer, Proposal):
                self.study.stopped_for = None
                return answer
            self.study.stopped_for = answer.reason
            self.on_event(Noted(stop_sentence(answer, settings)))
            return None

        return self.study.ask(ask, num_knots=settings.knots)

    def race(self, trial: Trial) -> None:
        """Measures a trial rung by rung until it is at its end or has lost, and tells it. Raises as ``generate``."""
        config = self.job.config
        on_ladder = on_the_ladder(self.record.evidence, config.search_settings, self._aims)
        title, key = f"trial {trial.number}", str(trial.number)
        rungs = [trial.start, *(rung for rung in self._aims.rungs if trial.start < rung < trial.stop), trial.stop]
        stopped: str | None = None
        graded: list[Graded] = []
        for start, stop in itertools.pairwise(rungs):
            limit = math.inf if on_ladder else most_tokens(stop - start, config.budget)
            window = slice(start, stop)
            graded += self.generate(
                title,
                trial.schedule,
                kind="trial",
                key=key,
                window=window,
                most_tokens=limit,
                planned=trial.stop - trial.start,
            )
            if is_aborted(graded):
                stopped = OVER_BUDGET
            elif not on_ladder:
                evidence = self.record.with_trial(trial, graded)
                stopped = stopped_for(trial.schedule, evidence, config.search_settings, self._aims)
            if stopped:
                break
        self.record.add(trial, graded, stopped=stopped)
        seen = self.record.of(trial.schedule)
        measured = None if is_aborted(graded) or seen is None else seen.measured
        self.on_event(EvaluationEnded(title, trial.schedule, measured, stopped))
        self._compare_graders(measured)
        if stopped or measured is None:
            self.study.prune(trial, stopped or OVER_BUDGET)
            return
        self.study.tell(trial, measured)
        self.compare_budget(trial.schedule, measured.mean_tokens.value)

    def generate(
        self,
        title: str,
        schedule: Schedule,
        *,
        kind: Kind,
        key: str,
        phase: Phase = "search",
        chat: ChatFormat | None = None,
        window: slice = EVERYTHING,
        most_tokens: float = math.inf,
        planned: int | None = None,
        progress: tuple[float, float] | None = None,
        engine: Callable[[], Engine] | None = None,
        sampling: Sampling | None = None,
        merge: Method | None = None,
    ) -> list[Graded]:
        """A schedule's responses on a window of a slice, from the stored ones as far as there are any.

        ``planned`` is the size of the evaluation, where the window is a part of it; ``engine`` and ``sampling`` stand
        in for the study's, ``merge`` for the schedule's linear one.

        Raises ``FailedTwice``, or ``EngineError`` where no engine opens or the given one fails.
        """
        slices = self.job.search if phase == "search" else self.job.confirm
        num_responses = len(range(*window.indices(sum(part.num_responses for part in slices))))
        evaluation = self.store.evaluation(
            self.study.name, kind=kind, key=key, schedule=schedule, num_responses=planned or num_responses
        )
        if phase == "confirm" and kind != "ablation":  # as many as were planned when it began
            window, num_responses = slice(0, evaluation.num_responses), evaluation.num_responses
        done, share = progress or self._progress(num_responses)
        self.on_event(Began(title, schedule, num_responses, done, share))
        own = self._evaluator
        evaluator = replace(own, engine=engine or own.engine, sampling=sampling or own.sampling)
        return self.engine.retry_once(
            lambda: evaluator.run(
                evaluation,
                slices,
                phase=phase,
                window=window,
                chat=chat,
                on_batch=self._generated,
                on_merge=functools.partial(self._know_weights, schedule) if kind == "confirm" else None,
                most_tokens=most_tokens,
                merge=merge,
            )
        )

    def _know_weights(self, schedule: Schedule, engine: Engine) -> None:
        """Keeps what a finalist's weights are, so that an export can show that its own are these.

        Raises ``StudyError`` where an earlier run had merged it to others: its responses are of another model.
        """
        found, known = engine.fingerprint(), self.study.weights_of(schedule)
        if known is None and found.whole:
            self.study.keep_weights(schedule, found.digest)
        elif known is not None and found.whole and known != found.digest:
            raise StudyError(
                f"study '{self.study.name}': {schedule} was merged to other weights before, with other versions of "
                "autolambda or PyTorch; go on with those, or start another study"
            )

    def fail(self, trial: Trial, error: FailedTwice, *, is_last: bool) -> None:
        """Gives a trial up; but raises ``EngineError`` for the last before the search stops: it is hardly its fault."""
        if is_last:
            raise EngineError(
                f"{error}; {MAX_FAILURES} trials in a row failed. Nothing stored is lost; "
                "mend the cause, run the same command again"
            ) from error
        self.study.fail(trial, str(error))
        self.record.fail(trial)
        self.on_event(Noted(f"trial {trial.number} failed ({error}); its schedule is left out"))

    def introduce(self, storage: str) -> None:
        """Tells what lies ahead, and where it is kept."""
        config, evidence = self.job.config, self.record.evidence
        num_search, num_confirm = (
            sum(len(part.samples) for part in slices) for slices in (self.job.search, self.job.confirm)
        )
        plan = (
            f"up to {config.search.trials} trials on up to {num_search} prompts, "
            f"then up to {config.confirm.finalists} finalists on up to {num_confirm} others"
        )
        progress = f"; {evidence.num_trials} trials done so far" if evidence.num_trials else ""
        self.on_event(Noted(f"study {self.study.name}: {plan}{progress} ({shown_storage(storage)})"))
        for seen in self.record.seen:
            self.compare_budget(seen.schedule, seen.measured.mean_tokens.value)

    def compare_budget(self, schedule: Schedule, mean_tokens: float) -> None:
        """Takes in what a trial cost; tells, once both parents are measured, that the budget cannot bind, if so."""
        config = self.job.config
        parent = next((name for name, end in PARENTS.items() if end == schedule), None)
        if parent is None or config.budget is None:
            return
        self._parent_tokens[parent] = mean_tokens
        if sentence := slack_sentence(config.budget, self._parent_tokens, bundled=config.models.bundled):
            self.on_event(Noted(sentence))

    def _compare_graders(self, measured: Measured | None) -> None:
        """Tells, once a task, that its grader finds no answer in nearly all responses: hardly the model's fault."""
        for part in self.job.search:
            task = measured.tasks.get(part.task) if measured else None
            if task and task.unparsed_ratio.value > MOSTLY and part.task not in self._unread:
                self._unread.add(part.task)
                share = f"{task.unparsed_ratio.value:.0%}"
                self.on_event(
                    Noted(f"task '{part.task}': grader '{part.grader}' finds no answer in {share} of the responses")
                )

    def close(self) -> None:
        """Frees the engine and the processes that grade."""
        self._marking.close()
        self.engine.close()

    def _progress(self, num_responses: int) -> tuple[float, float]:
        """How much of the whole is done before an evaluation of the search, and how much that is: by its tokens."""
        evidence, settings = self.record.evidence, self.job.config.search_settings
        granted = allowance_of(evidence.points, settings, self._aims)
        by_trials = (1 - CONFIRM_SHARE) / settings.trials
        if granted is None:
            return by_trials * evidence.num_trials, by_trials
        cost = num_responses * evidence.num_tokens / max(sum(point.num_responses for point in evidence.points), 1)
        done = max(evidence.num_tokens / granted.total, by_trials * evidence.num_trials)
        return min(done, 1 - CONFIRM_SHARE), max(cost / granted.total, by_trials)

    def _generated(self, graded: Sequence[Graded]) -> None:
        self.on_event(Generated(len(graded), sum(g.response.num_tokens for g in graded)))


def stop_sentence(stop: Stop, settings: SearchSettings) -> str:
    """Why the search is over."""
    if stop.reason == "trials":
        return f"the search is over: {settings.trials} trials are done (search.trials)"
    if stop.reason == "tokens":
        return "the search is over: its share of the tokens is spent (search.max_tokens_generated)"
    if stop.reason == "spaces":
        return "the search is over: no schedule is left that was not tried (search.spaces)"
    assert stop.gain is not None
    return (
        f"the search is over: all that is still unknown is expected to be worth {100 * stop.gain:.2f} points of "
        f"accuracy, less than {100 * settings.min_gain:g} (search.min_gain)"
    )
