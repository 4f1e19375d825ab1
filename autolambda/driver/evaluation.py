"""Evaluates one merge on a slice: generates its responses batch by batch, grades them and stores them.

The slices and the rungs alone determine the batches (a rung is a number of responses at which a trial may stop). All
schedules answer the same prompts in the same order. In the search each schedule draws separate random numbers, so
neighbours share no luck beyond the prompts. In the confirmation all draw the same numbers, for close comparisons.

A resumed evaluation generates only missing responses. If the engine does not stream, a batch is one transaction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from autolambda.driver.engine import EngineSupervisor
from autolambda.driver.events import Began, Generated, Noted, OnEvent, Stage
from autolambda.driver.intake import EngineCall, Intake, Stopwatch
from autolambda.driver.job import Job
from autolambda.engines.base import Engine, Foreseeing, Prompt, Sampling
from autolambda.engines.chat import ChatFormat
from autolambda.errors import EngineError, GraderError
from autolambda.graders.grading import Score
from autolambda.graders.service import GradingService
from autolambda.merging.method import Method
from autolambda.responses import Grade, Graded, Key, Response
from autolambda.schedule import Schedule
from autolambda.statistics.pace import CallTime
from autolambda.study.store import Kind, Store, StoredEvaluation
from autolambda.tasks.base import Phase
from autolambda.tasks.requests import Request, batches, derive_seed, requests_on

OnMerge = Callable[[Schedule, Engine], None]
OnSeconds = Callable[[Kind, str, float], None]
OnCall = Callable[[Kind, str, CallTime], None]


@dataclass(frozen=True)
class EvaluationRequest:
    """Responses of one merge on the slices of a phase, from ``start`` to ``stop`` (exclusive) of their fixed order.

    ``kind`` and ``key`` name the evaluation in the study's database, ``title`` names it for people. ``stop`` is by
    default the end of the slices. ``num_responses`` is the size of the whole evaluation if this is a part of it.
    Running responses are aborted once all responses have more than ``max_tokens``, weighted by task. ``done``,
    ``share``, ``stage``, ``allowance`` and ``num_left`` are those of the event ``Began``.

    ``merge`` replaces the linear merge by ``schedule``. ``chat``, ``sampling`` and ``engine`` replace the study's
    settings. With ``only``, the other responses are left out. The first ``num_given`` tokens of each response are given
    to the engine, not generated.
    """

    title: str
    kind: Kind
    key: str
    schedule: Schedule
    phase: Phase = "search"
    start: int = 0
    stop: int | None = None
    num_responses: int | None = None
    max_tokens: float = math.inf
    done: float = 0.0
    share: float = 1.0
    stage: Stage | None = None
    allowance: float | None = None
    num_left: int = 0
    merge: Method | None = None
    chat: ChatFormat | None = None
    sampling: Sampling | None = None
    engine: Callable[[], Engine] | None = None
    only: Collection[Key] | None = None
    num_given: int = 0

    @property
    def method(self) -> Method:
        """The merge to set in the engine."""
        return self.merge or Method.linear(self.schedule)

    @property
    def is_fixed(self) -> bool:
        """Whether the size was fixed at the start. A confirmation must not grow depending on its results."""
        return self.kind in ("confirm", "parent", "baseline")


class Evaluator:
    """Measures the missing responses of an evaluation, with the engine, chat format, sampling and seed of a job.

    The engine is opened at its first use, so never if nothing is missing.
    """

    def __init__(
        self,
        job: Job,
        engine: EngineSupervisor,
        store: Store,
        grading: GradingService,
        *,
        study: str,
        on_event: OnEvent,
        on_merge: OnMerge = lambda schedule, engine: None,
        on_seconds: OnSeconds = lambda kind, key, seconds: None,
        on_call: OnCall = lambda kind, key, call: None,
    ) -> None:
        """``on_merge`` is called with each finalist and the engine that holds it, before it generates.

        ``on_seconds`` is called with the kind and key of an evaluation and the seconds of generation since the last
        call, after its responses are stored. ``on_call`` is called with the time of each call of the engine.
        """
        self._job, self._engine, self._store, self._grading, self._study = job, engine, store, grading, study
        self._on_event, self._on_merge, self._on_seconds, self._on_call = on_event, on_merge, on_seconds, on_call

    def run(self, request: EvaluationRequest) -> list[Graded]:
        """Returns the responses of a request in the order of its slices, stored and new ones.

        Stores new responses as they come. If the request's token limit is exceeded, the result ends there. Replaces a
        failed engine once. Stored responses are not generated again. Raises ``FailedTwice``, ``EngineError`` if no
        engine opens or the given one fails, and ``GraderError`` if a grader of the user fails.
        """
        wanted = requests_on(self._job.search if request.phase == "search" else self._job.confirm)
        wanted = wanted[request.start : request.stop]
        if request.only is not None:
            wanted = [each for each in wanted if each.key in request.only]
        size = request.num_responses or len(wanted)
        evaluation = self._store.evaluation(
            self._study, kind=request.kind, key=request.key, schedule=request.schedule, num_responses=size
        )
        if request.is_fixed:
            wanted = requests_on(self._job.confirm)[: evaluation.num_responses]
        self._on_event(_began(request, len(wanted)))
        for is_last in (False, True):
            with self._engine.attempt(is_last=is_last):
                return self._complete(request, evaluation, wanted)
        raise AssertionError("the last attempt returns or raises")

    def _complete(
        self, request: EvaluationRequest, evaluation: StoredEvaluation, wanted: Sequence[Request]
    ) -> list[Graded]:
        done, timer = {graded.key: graded for graded in self._store.graded(evaluation)}, Stopwatch()

        def store(fresh: Sequence[Graded]) -> None:
            self._store.add(evaluation, fresh)
            done.update({graded.key: graded for graded in fresh})
            self._on_seconds(request.kind, request.key, timer.take())
            num_tokens = sum(max(graded.response.num_tokens - request.num_given, 0) for graded in fresh)
            self._on_event(Generated(len(fresh), num_tokens))

        intake = Intake(self._score, self._graded, store)
        taken = {key: graded.response for key, graded in done.items()}
        prompts = _Prompts(self._job, request)
        parts = batches(wanted, size=self._job.batch_size)
        missing = [part for batch in parts if (part := [each for each in batch if each.key not in done])]
        engine: Engine | None = None
        for batch in missing:
            so_far = [(each, taken[each.key]) for each in wanted if each.key in taken]
            if any(response.finish_reason == "aborted" for _, response in so_far):
                break
            left = request.max_tokens - sum(each.weight * response.num_tokens for each, response in so_far)
            if engine is None:
                engine = (request.engine or self._engine)()
                engine.set_merge(request.method)
                if request.kind == "confirm":
                    self._on_merge(request.schedule, engine)
                if isinstance(engine, Foreseeing):
                    engine.expect([each for part in missing for each in prompts.of(part)], self._sampling(request))
            call = EngineCall(
                batch,
                intake,
                streams=engine.streams,
                max_tokens=left,
                on_event=self._on_event,
                num_given=request.num_given,
            )
            taken |= self._generate(engine, request, call, prompts.of(batch), timer)
        intake.settle(wait=True)
        if rest := timer.take():
            self._on_seconds(request.kind, request.key, rest)
        return [done[each.key] for each in wanted if each.key in done]

    def _generate(
        self,
        engine: Engine,
        request: EvaluationRequest,
        call: EngineCall,
        prompts: Sequence[Prompt],
        timer: Stopwatch,
    ) -> dict[Key, Response]:
        """Calls the engine once. Grades and stores its finished responses, even if it fails."""
        try:
            with timer:
                responses = engine.generate(prompts, self._sampling(request), watch=call.watch)
            timed = call.time(responses)
            call.take(responses)
        except EngineError:
            call.settle()
            raise
        self._on_call(request.kind, request.key, timed)
        return call.taken

    def _sampling(self, request: EvaluationRequest) -> Sampling:
        return request.sampling or self._job.models.sampling

    def _score(self, request: Request, response: Response) -> Future[Score]:
        if response.finish_reason == "aborted":  # cut off by the race: only its tokens count
            future: Future[Score] = Future()
            future.set_result(Score(Grade.TRUNCATED, None))
            return future
        think_end = self._job.models.chat.think_end
        return self._grading.score(response, request.sample.target, grader=request.grader, think_end=think_end)

    def _graded(self, request: Request, response: Response, future: Future[Score]) -> Graded:
        try:
            score = future.result()
        except GraderError as error:
            problem = f"task '{request.task}', sample '{request.sample.id}': {error}"
            if request.on_grader_error == "stop":
                raise GraderError(f"{problem}. Correct it, or set the task's on_grader_error to unparsed") from error
            self._on_event(Noted(f"{problem}; the response is left unparsed"))
            score = Score(Grade.UNPARSED, None)
        thought = response.finish_reason != "aborted" and self._job.models.chat.think_end in response.text
        return Graded(request.task, request.sample.id, request.repeat, response, score.grade, score.answer, thought)


class _Prompts:
    """Renders each prompt of an evaluation once."""

    def __init__(self, job: Job, request: EvaluationRequest) -> None:
        self._seed, self._phase = job.config.search.seed, request.phase
        self._chat = request.chat or job.models.chat
        self._schedule = request.schedule if request.phase == "search" else None
        self._rendered: dict[Key, Prompt] = {}

    def of(self, batch: Sequence[Request]) -> list[Prompt]:
        return [self._prompt(request) for request in batch]

    def _prompt(self, request: Request) -> Prompt:
        if request.key not in self._rendered:
            seed = seed_of(request, seed=self._seed, phase=self._phase, schedule=self._schedule)
            self._rendered[request.key] = Prompt(self._chat.render(request.sample), seed)
        return self._rendered[request.key]


def _began(request: EvaluationRequest, num_responses: int) -> Began:
    of = request
    return Began(of.title, of.schedule, num_responses, of.done, of.share, of.stage, of.allowance, of.num_left)


def seed_of(request: Request, *, seed: int, phase: Phase, schedule: Schedule | None) -> int:
    """Returns the seed of a response: specific to the ``schedule``, or equal for all schedules (``None``)."""
    own = [] if schedule is None else [schedule.key]
    return derive_seed(seed, phase, *own, request.task, request.sample.id, request.repeat)
