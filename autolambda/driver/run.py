"""A run: the work of one process on a study. It asks for trials, races them and reports events."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace

from autolambda.driver.engine import EngineSupervisor, FailedTwice
from autolambda.driver.evaluation import EvaluationRequest, Evaluator
from autolambda.driver.events import EvaluationEnded, Noted, OnEvent, Opened
from autolambda.driver.job import Job, swapped_error
from autolambda.driver.notes import RunNotes, stop_sentence
from autolambda.engines.base import Engine
from autolambda.errors import EngineError, StudyError
from autolambda.graders.service import GradingService
from autolambda.merging.difference.measure import measure_difference
from autolambda.optimizer.aims import Aims, allowance_of
from autolambda.optimizer.ladder import on_the_ladder, paced
from autolambda.optimizer.propose import Stop, propose
from autolambda.optimizer.racing import OVER_BUDGET, Race, Rung, RungOutcome
from autolambda.optimizer.space import PARENTS
from autolambda.optimizer.token_allowance import CONFIRM_SHARE, SEARCH_SHARE, TokenAllowance
from autolambda.responses import Graded, is_aborted
from autolambda.schedule import Schedule
from autolambda.statistics.estimates import number
from autolambda.statistics.swapped import are_swapped
from autolambda.study.measured import MeasuredSchedule, load_measured
from autolambda.study.store import Kind, Store
from autolambda.study.timing import add_call, pace_of
from autolambda.study.trials import Study, Trial
from autolambda.tasks.requests import Request

MAX_FAILURES = 2  # failed trials in a row that stop the search: the schedules are hardly the cause
SEARCH_PART = SEARCH_SHARE / (SEARCH_SHARE + CONFIRM_SHARE)  # of the progress; the rest is the confirmation's


class Run:
    """Asks for trials and races them: measures each rung by rung, and stops it early once it has lost."""

    def __init__(self, job: Job, store: Store, study: Study, engine: Engine | None, on_event: OnEvent) -> None:
        self.job, self.store, self.study, self.on_event = job, store, study, on_event
        self.engine = EngineSupervisor(job, engine, lambda note: on_event(Noted(note)))
        self.measured = load_measured(store, study, weights=job.config.weights)
        self.notes = RunNotes(job, study, on_event)
        self._num_failures = 0  # in a row
        if study.difference is None:  # also in a study of an earlier release
            study.keep_difference(measure_difference(job.models.pair))
        self.notes.warn(study.difference)
        self._grading = GradingService()
        self._grading.start({part.grader for part in (*job.search, *job.confirm)})
        self.evaluator = Evaluator(
            job,
            self.engine,
            store,
            self._grading,
            study=study.name,
            on_event=on_event,
            on_merge=self._keep_weights,
            on_seconds=study.add_seconds,
            on_call=functools.partial(add_call, study),
        )

    def evaluator_on(self, job: Job, engine: EngineSupervisor | None = None) -> Evaluator:
        """Returns an evaluator of another job's slices and settings, by default with the engine of the run.

        It stores responses and seconds in the study, but neither weights nor the pace of the engine.
        """
        self._grading.start({part.grader for part in (*job.search, *job.confirm)})
        return Evaluator(
            job,
            engine or self.engine,
            self.store,
            self._grading,
            study=self.study.name,
            on_event=self.on_event,
            on_seconds=self.study.add_seconds,
        )

    def num_missing(self, kind: Kind, wanted: Mapping[str, Sequence[Request]]) -> dict[str, int]:
        """Returns by key how many of the responses that evaluations of a kind want are not stored yet."""
        stored = self.store.keys_stored(self.study.name, kind=kind)
        return {
            key: sum(request.key not in stored.get(key, ()) for request in requests) for key, requests in wanted.items()
        }

    def next_trial(self) -> Trial | None:
        """Returns the trial that a crash interrupted, or a new one. ``None`` means that the search is over.

        Raises ``SwappedError`` if both ends are measured and show that the models are in each other's place.
        """
        self._check_order()
        if (interrupted := self.study.interrupted()) is not None:
            return interrupted
        settings = self.job.search_settings
        answer = propose(self.measured.observations, settings, self._aims)
        if isinstance(answer, Stop):
            self.study.stopped_for = answer.reason
            self.on_event(Noted(stop_sentence(answer, settings, self.allowance())))
            return None
        self.study.stopped_for = None
        return self.study.start(answer, ranges=settings.ranges)

    def race(self, trial: Trial) -> None:
        """Measures a trial rung by rung until it is complete or has lost, and stores the outcome.

        Raises like ``Evaluator.run``.
        """
        title = f"trial {trial.number}"
        graded: list[Graded] = []
        found: MeasuredSchedule | None = None
        settings = self.job.search_settings
        race = Race(trial.schedule, trial.start, trial.stop, self.measured.observations, settings, self._aims)
        for rung in race:
            fresh = self.evaluator.run(self._request(trial, title, rung))
            graded += fresh
            found = None if is_aborted(fresh) else self.measured.pooled(trial, graded)
            num_tokens = sum(each.response.num_tokens for each in fresh)
            if found:
                race.tell(RungOutcome(found.observation, num_tokens))
            else:
                race.tell(RungOutcome(None, num_tokens, self.measured.floor(graded)))
        stopped = race.stopped
        self._num_failures = 0
        self.measured.keep(replace(found, stopped=stopped) if found else None, race.observations)
        measured = found.measured if found else None
        self.on_event(EvaluationEnded(title, "trial", trial.schedule, measured, stopped))
        self.notes.forecast(self.measured, self.allowance())
        self.notes.check_graders(measured)
        self.notes.check_thinking(trial.schedule, graded)
        if stopped or measured is None:
            self.study.prune(trial, stopped or OVER_BUDGET)
            return
        self.study.tell(trial, measured)
        self.notes.check_budget(trial.schedule, measured.mean_tokens.value)

    def give_up(self, trial: Trial, error: FailedTwice) -> None:
        """Marks a trial failed. Raises ``EngineError`` after ``MAX_FAILURES`` failures in a row."""
        self._num_failures += 1
        if self._num_failures == MAX_FAILURES:
            raise EngineError(
                f"{error}; {MAX_FAILURES} trials in a row failed. Nothing stored is lost; "
                "correct the cause, then run the same command again"
            ) from error
        self.study.fail(trial, str(error))
        self.measured.fail(trial)
        self.on_event(Noted(f"trial {trial.number} failed ({error}); its schedule is left out"))

    def close(self) -> None:
        """Frees the engine and the processes that grade."""
        self._grading.close()
        self.engine.close()

    def responses_of(self, schedule: Schedule) -> list[Graded]:
        """Returns the stored responses of a schedule on the search slice, with their texts."""
        stored = self.store.evaluations(self.study.name, kind="trial")
        return [graded for row in stored if row.schedule == schedule for graded in self.store.graded(row)]

    def _request(self, trial: Trial, title: str, rung: Rung) -> EvaluationRequest:
        done, share = self._progress(rung.stop - rung.start)
        observations, settings = self.measured.observations, self.job.search_settings
        return EvaluationRequest(
            title,
            "trial",
            str(trial.number),
            trial.schedule,
            start=rung.start,
            stop=rung.stop,
            num_responses=trial.stop - trial.start,
            max_tokens=rung.max_tokens,
            done=done,
            share=share,
            stage="first sweep" if on_the_ladder(observations, settings, self._aims) else "search",
            allowance=allowance.total if (allowance := self.allowance()) else None,
        )

    def allowance(self) -> TokenAllowance | None:
        """Returns the tokens that the study may generate; ``None`` before both ends are measured."""
        aims = self.job.aims(self.job.config.budget)
        return allowance_of(self.measured.observations.measured, self.job.search_settings, aims)

    @property
    def _aims(self) -> Aims:
        """The aims of the search; with the rungs for the engine's pace, if the job goes by it and it is known."""
        aims = self.job.aims(self.job.config.budget)
        if not self.job.grows_rungs:
            return aims
        pace, allowance = pace_of(self.study), self.allowance()
        return paced(aims, pace, allowance) if pace and allowance else aims

    def open(self, budget: float | None) -> None:
        """Tells the watcher what is to be done, and what earlier runs have measured."""
        earlier = tuple(
            EvaluationEnded(f"trial {each.trial}", "trial", each.schedule, each.measured, each.stopped)
            for each in self.measured.all
        )
        num_tokens = self.store.num_tokens(self.study.name)
        self.on_event(Opened(self.study.name, budget, self.job.search_settings.trials, earlier, num_tokens))

    def _check_order(self) -> None:
        ends = [self.measured.of(PARENTS[name]) for name in ("instruct", "thinking")]
        if self.job.config.models.allow_swapped or ends[0] is None or ends[1] is None:
            return
        first, second = (end.measured for end in ends if end)
        if are_swapped(first, second):
            does = "closes its thinking in {:.0%} of the responses and takes {} tokens"
            one, other = (does.format(e.think_ratio.value, number(e.mean_tokens.value)) for e in (first, second))
            said = f"the two models are swapped (INSTRUCT {one}, THINKING {other.removeprefix('closes its thinking ')})"
            raise swapped_error(self.job.config.models, said)

    def _keep_weights(self, schedule: Schedule, engine: Engine) -> None:
        """Stores the SHA-256 of a finalist's weights, which an export compares.

        Raises ``StudyError`` if an earlier run merged the schedule to other weights.
        """
        found, known = engine.fingerprint(), self.study.weights_of(schedule)
        if not found.whole:
            self.notes.say_uncompared()
        elif known is None:
            self.study.keep_weights(schedule, found.digest)
        elif known != found.digest:
            raise StudyError(
                f"study '{self.study.name}': {schedule} was merged to other weights before, with other versions of "
                "autolambda or PyTorch; go on with those, or start another study"
            )

    def _progress(self, num_responses: int) -> tuple[float, float]:
        """Returns the finished part of the search and the part of this evaluation (0 to 1), by tokens."""
        observations, settings = self.measured.observations, self.job.search_settings
        allowance = self.allowance()
        by_trials = SEARCH_PART / settings.trials
        if allowance is None:
            return by_trials * observations.num_trials, by_trials
        num_measured = sum(observation.num_responses for observation in observations.measured)
        cost = num_responses * observations.num_tokens / max(num_measured, 1)
        by_tokens = SEARCH_PART / allowance.search
        done = max(by_tokens * observations.num_tokens, by_trials * observations.num_trials)
        return min(done, SEARCH_PART), max(by_tokens * cost, by_trials)
