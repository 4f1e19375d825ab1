"""A run: one process's work on a study. It measures schedules, races and confirms them, and tells the watcher.

Everything that is measured is in the database before the next thing begins.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from autolambda.allowance import CONFIRM_SHARE
from autolambda.baselines import baseline_method, check_baselines, choose_cut
from autolambda.chat import ChatFormat
from autolambda.config import BaselineName, SearchConfig
from autolambda.confirm import plan
from autolambda.databases.base import shown_storage
from autolambda.engines.base import Engine, Sampling
from autolambda.engines.by_method import MethodEngine
from autolambda.engines.cut import CutEngine
from autolambda.errors import EngineError
from autolambda.evaluation import EVERYTHING, Evaluator, is_aborted
from autolambda.events import Began, Ended, Generated, Noted, OnEvent
from autolambda.graders.marking import Marking
from autolambda.job import Job, open_engine
from autolambda.metrics import Measured, measure
from autolambda.racing import OVER_BUDGET, most_tokens, stopped_for
from autolambda.record import load_record
from autolambda.report import Report, build_report, confirm_key, slack_sentence
from autolambda.responses import Graded
from autolambda.sampler import Proposal, Stop, allowance_of, on_the_ladder, propose
from autolambda.schedule import Schedule
from autolambda.store import Kind, Store
from autolambda.study import Study, Trial
from autolambda.surrogate import ENDS
from autolambda.tasks.base import Phase

MOSTLY = 0.9  # of a task's responses
MAX_FAILURES = 2  # trials in a row that fail before the search stops: it is then hardly their schedules
PARENTS = dict(zip(("instruct", "thinking"), ENDS, strict=True))

Step = tuple[str, Schedule, Kind, str, ChatFormat | None, int]  # title, schedule, kind, key, chat, responses


class FailedTwice(EngineError):
    """Two engines, one after the other, failed in one evaluation."""


class Run:
    """One process's work on a study: measures schedules, tells the watcher."""

    def __init__(self, job: Job, store: Store, study: Study, engine: Engine | None, on_event: OnEvent) -> None:
        self.job, self.store, self.study = job, store, study
        self._on_event = on_event
        self._given = engine
        self._opened: Engine | None = None
        self._parent_tokens: dict[str, float] = {}
        self._unread: set[str] = set()
        config = job.config
        self._aims = job.aims(config.budget)
        self._record = load_record(store, study, weights=config.weights)
        self._marking = Marking()
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
        config = self.job.config.search

        def ask() -> Proposal | None:
            answer = propose(self._record.evidence, config, self._aims)
            if isinstance(answer, Proposal):
                self.study.stopped_for = None
                return answer
            self.study.stopped_for = answer.reason
            self._on_event(Noted(stop_sentence(answer, config)))
            return None

        return self.study.ask(ask, num_knots=config.knots)

    def race(self, trial: Trial) -> None:
        """Measures a trial rung by rung until it is at its end or has lost, and tells it. Raises as ``generate``."""
        config = self.job.config
        on_ladder = on_the_ladder(self._record.evidence, config.search, self._aims)
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
                evidence = self._record.with_trial(trial, graded)
                stopped = stopped_for(trial.schedule, evidence, config.search, self._aims)
            if stopped:
                break
        self._record.add(trial, graded, stopped=stopped)
        seen = self._record.of(trial.schedule)
        measured = None if is_aborted(graded) or seen is None else seen.measured
        self._on_event(Ended(title, trial.schedule, measured, stopped))
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
    ) -> list[Graded]:
        """A schedule's responses on a window of a slice, from the stored ones as far as there are any.

        ``planned`` is the size of the evaluation, where the window is a part of it; ``engine`` and ``sampling`` stand
        in for the study's.

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
        self._on_event(Began(title, schedule, num_responses, done, share))
        own = self._evaluator
        evaluator = replace(own, engine=engine or own.engine, sampling=sampling or own.sampling)
        return self._twice(
            lambda: evaluator.run(
                evaluation,
                slices,
                phase=phase,
                window=window,
                chat=chat,
                on_batch=self._generated,
                most_tokens=most_tokens,
            )
        )

    def fail(self, trial: Trial, error: FailedTwice, *, is_last: bool) -> None:
        """Gives a trial up; but raises ``EngineError`` for the last before the search stops: it is hardly its fault."""
        if is_last:
            raise EngineError(
                f"{error}; {MAX_FAILURES} trials in a row failed. Nothing stored is lost; "
                "mend the cause, run the same command again"
            ) from error
        self.study.fail(trial, str(error))
        self._record.fail(trial)
        self._on_event(Noted(f"trial {trial.number} failed ({error}); its schedule is left out"))

    def confirm(self, *, budget: float | None) -> Report:
        """Measures both parents and the finalists of the budget on prompts that the search never saw; the report."""
        job, record = self.job, self._record
        agreed = plan(record.evidence, job.config, job.aims(budget))
        own = job.models.own_chats
        steps: list[Step] = [
            *((f"{name} as is", end, "parent", name, own[name], agreed.num_parent) for name, end in PARENTS.items()),
            *(
                (
                    f"confirm trial {seen.trial}",
                    seen.schedule,
                    "confirm",
                    confirm_key(seen.schedule),
                    None,
                    agreed.num_responses,
                )
                for seen in (record.seen[index] for index in agreed.finalists)
            ),
        ]
        for number, (title, schedule, kind, key, chat, size) in enumerate(steps):
            progress = (1 - CONFIRM_SHARE * (1 - number / len(steps)), CONFIRM_SHARE / len(steps))
            window = slice(0, size)
            graded = self.generate(
                title, schedule, kind=kind, key=key, phase="confirm", chat=chat, window=window, progress=progress
            )
            self._on_event(Ended(title, schedule, measure(graded, weights=job.config.weights)))
        if job.config.search.baselines and agreed.finalists:
            last = record.seen[agreed.finalists[-1]].schedule
            for method in job.config.search.baselines:
                self._baseline(method, last, agreed.num_responses, budget)
        return build_report(self.store, self.study, budget=budget)

    def _baseline(self, method: BaselineName, finalist: Schedule, size: int, budget: float | None) -> None:
        """Measures another method on the finalists' prompts; SLERP at the mean lambda of the finalist."""
        if method == "cut":
            self._cut(size, budget)
            return
        schedule = Schedule.uniform(round(finalist.other, 4))
        key = f"slerp at lambda {schedule.other:g}" if method == "slerp" else method
        chosen = baseline_method(self.job, method, lam=schedule.other)
        self._measure_baseline(key, schedule, size, lambda: MethodEngine(self.engine(), chosen))

    def _cut(self, size: int, budget: float | None) -> None:
        """The Thinking model with its thinking cut to meet the budget; once more where it thinks on after the cut."""
        thinking, chat = self._stored_responses(PARENTS["thinking"]), self.job.models.chat
        if not thinking or budget is None:
            self._on_event(Noted("baseline cut: it needs a budget and the Thinking model's own responses; left out"))
            return
        aim = budget
        for _ in range(2):
            cap = choose_cut(thinking, chat, budget=aim, weights=self.job.config.weights)
            if cap is None:
                self._on_event(Noted(f"baseline cut: no cap on the thinking meets {aim:.1f} tokens"))
                return
            engine = functools.partial(self._cut_engine, cap)
            found = self._measure_baseline(f"cut at {cap} tokens", PARENTS["thinking"], size, engine)
            if found <= budget:
                return
            aim = budget * budget / found

    def _stored_responses(self, schedule: Schedule) -> list[Graded]:
        """A schedule's responses on the search slice, with their texts."""
        stored = self.store.evaluations(self.study.name, kind="trial")
        return [graded for each in stored if each.schedule == schedule for graded in self.store.graded(each)]

    def _cut_engine(self, cap: int) -> Engine:
        return CutEngine(self.engine(), self.job.models.chat, cap=cap)

    def _measure_baseline(self, key: str, schedule: Schedule, size: int, engine: Callable[[], Engine]) -> float:
        """Generates what is missing of a baseline; its mean tokens."""
        job = self.job
        evaluation = self.store.evaluation(
            self.study.name, kind="baseline", key=key, schedule=schedule, num_responses=size
        )
        self._on_event(Began(f"baseline {key}", schedule, evaluation.num_responses, 1.0, 0.0))
        graded = replace(self._evaluator, engine=engine).run(
            evaluation,
            job.confirm,
            phase="confirm",
            window=slice(0, evaluation.num_responses),
            on_batch=self._generated,
        )
        measured = measure(graded, weights=job.config.weights)
        self._on_event(Ended(f"baseline {key}", schedule, measured))
        return measured.mean_tokens.value

    def introduce(self, storage: str) -> None:
        """Tells what lies ahead, and where it is kept."""
        config, evidence = self.job.config, self._record.evidence
        num_search, num_confirm = (
            sum(len(part.samples) for part in slices) for slices in (self.job.search, self.job.confirm)
        )
        plan = (
            f"up to {config.search.trials} trials on up to {num_search} prompts, "
            f"then up to {config.confirm.finalists} finalists on up to {num_confirm} others"
        )
        progress = f"; {evidence.num_trials} trials done so far" if evidence.num_trials else ""
        self._on_event(Noted(f"study {self.study.name}: {plan}{progress} ({shown_storage(storage)})"))
        for seen in self._record.seen:
            self.compare_budget(seen.schedule, seen.measured.mean_tokens.value)

    def compare_budget(self, schedule: Schedule, mean_tokens: float) -> None:
        """Takes in what a trial cost; tells, once both parents are measured, that the budget cannot bind, if so."""
        config = self.job.config
        parent = next((name for name, end in PARENTS.items() if end == schedule), None)
        if parent is None or config.budget is None:
            return
        self._parent_tokens[parent] = mean_tokens
        if sentence := slack_sentence(config.budget, self._parent_tokens, bundled=config.models.bundled):
            self._on_event(Noted(sentence))

    def _compare_graders(self, measured: Measured | None) -> None:
        """Tells, once a task, that its grader finds no answer in nearly all responses: hardly the model's fault."""
        for part in self.job.search:
            task = measured.tasks.get(part.task) if measured else None
            if task and task.unparsed_ratio.value > MOSTLY and part.task not in self._unread:
                self._unread.add(part.task)
                share = f"{task.unparsed_ratio.value:.0%}"
                self._on_event(
                    Noted(f"task '{part.task}': grader '{part.grader}' finds no answer in {share} of the responses")
                )

    def close(self) -> None:
        """Frees the engine and the processes that grade."""
        self._marking.close()
        self.free()

    def free(self) -> None:
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
        self.free()
        self._on_event(Noted(f"the engine failed ({reason}); once more with a new one"))
        try:
            return evaluate()
        except EngineError as error:
            if self._opened is None:
                raise
            self.free()
            raise FailedTwice(str(error)) from error

    def engine(self) -> Engine:
        """The engine that was given, or the config's, opened by its first use."""
        if self._given:
            return self._given
        if self._opened is None:
            self._on_event(Noted(f"engine: {self.job.engine_in_words}"))
            self._opened = open_engine(self.job, on_note=lambda note: self._on_event(Noted(note)))
            if self._opened.in_words != self.job.engine_in_words:
                self._on_event(Noted(f"engine: {self._opened.in_words}"))
        return self._opened

    def _progress(self, num_responses: int) -> tuple[float, float]:
        """How much of the whole is done before an evaluation of the search, and how much that is: by its tokens."""
        evidence, config = self._record.evidence, self.job.config.search
        granted = allowance_of(evidence.points, config, self._aims)
        by_trials = (1 - CONFIRM_SHARE) / config.trials
        if granted is None:
            return by_trials * evidence.num_trials, by_trials
        cost = num_responses * evidence.num_tokens / max(sum(point.num_responses for point in evidence.points), 1)
        done = max(evidence.num_tokens / granted.total, by_trials * evidence.num_trials)
        return min(done, 1 - CONFIRM_SHARE), max(cost / granted.total, by_trials)

    def _generated(self, graded: Sequence[Graded]) -> None:
        self._on_event(Generated(len(graded), sum(g.response.num_tokens for g in graded)))


def stop_sentence(stop: Stop, config: SearchConfig) -> str:
    """Why the search is over."""
    if stop.reason == "trials":
        return f"the search is over: {config.trials} trials are done (search.trials)"
    if stop.reason == "tokens":
        return "the search is over: its share of the tokens is spent (search.max_tokens_generated)"
    if stop.reason == "spaces":
        return "the search is over: no schedule is left that was not tried (search.spaces)"
    assert stop.gain is not None
    return (
        f"the search is over: all that is still unknown is expected to be worth {100 * stop.gain:.2f} points of "
        f"accuracy, less than {100 * config.min_gain:g} (search.min_gain)"
    )
