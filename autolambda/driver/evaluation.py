"""An evaluation: a schedule's responses on a slice, generated batch by batch, graded, stored and measured.

The batches follow from the slices and the rungs alone. All schedules answer the same prompts in the same order. In the
search each draws its own random numbers, so that neighbours do not share their luck beyond that of the prompts; in the
confirmation all draw the same ones, so that they compare closely. A resumed evaluation generates just what is missing.
An engine that does not stream has each batch stored in one transaction: it is there whole or missing whole. Grades that
take long are given while the engine goes on.
"""

from __future__ import annotations

import itertools
import math
import operator
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autolambda.engines.base import Engine, Foreseeing, Progress, Prompt, Sampling
from autolambda.errors import EngineError, GraderError
from autolambda.graders.grading import Mark
from autolambda.graders.service import GradingService
from autolambda.merging.method import Method
from autolambda.responses import Grade, Graded, Key, Response
from autolambda.schedule import Schedule
from autolambda.study.store import Store, StoredEvaluation
from autolambda.tasks.base import Phase, Slice
from autolambda.tasks.requests import Request, batches, derive_seed, requests_on

if TYPE_CHECKING:  # it loads transformers and torch, which who only reads a study does without
    from autolambda.engines.chat import ChatFormat

# Between two stores while an engine streams: a commit waits for the disk.
STORE_SECONDS = 1.0
EVERYTHING = slice(None)

OnBatch = Callable[[Sequence[Graded]], None]
OnNote = Callable[[str], None]


@dataclass(frozen=True)
class Evaluator:
    """What all evaluations of a study share. ``engine`` is opened by its first use: where nothing is owed, never.

    ``batch_size`` is the number of responses that one call of the engine is asked for; ``None`` is all that are owed.
    ``on_note`` is told of a grader that failed where the task says to go on.
    """

    engine: Callable[[], Engine]
    chat: ChatFormat
    sampling: Sampling
    seed: int
    batch_size: int | None
    store: Store
    marking: GradingService = field(default_factory=GradingService)
    on_note: OnNote = lambda note: None

    def run(
        self,
        evaluation: StoredEvaluation,
        slices: Sequence[Slice],
        *,
        phase: Phase,
        window: slice = EVERYTHING,
        chat: ChatFormat | None = None,
        on_batch: OnBatch | None = None,
        on_merge: Callable[[Engine], None] | None = None,
        most_tokens: float = math.inf,
        merge: Method | None = None,
    ) -> list[Graded]:
        """An evaluation's responses in the slices' order: those stored, and those still owed, stored as they come.

        They are those in a ``window`` of the fixed order. ``chat`` stands in for the study's chat format (a parent
        under its own template). ``merge`` is by default ``Method.linear`` of the evaluation's schedule. ``on_batch`` is
        told of each group that was stored, ``on_merge`` of the engine before
        it generates. Once they hold more than ``most_tokens``, each by its weight and those of unfinished responses
        included, what still runs is aborted and the result ends there. Raises ``EngineError``, and ``GraderError`` for
        a grader of the user's own that fails; what was stored until then is not generated again.
        """
        wanted = requests_on(slices)[window]
        done = {graded.key: graded for graded in self.store.graded(evaluation)}

        def keep(fresh: Sequence[Graded]) -> None:
            self.store.add(evaluation, fresh)
            done.update({graded.key: graded for graded in fresh})
            if on_batch:
                on_batch(fresh)

        own = evaluation.schedule if phase == "search" else None
        rendered: dict[Key, Prompt] = {}

        def prompt(owed: Request) -> Prompt:
            if owed.key not in rendered:
                text = (chat or self.chat).render(owed.sample)
                rendered[owed.key] = Prompt(text, self.seed_of(owed, phase, own))
            return rendered[owed.key]

        intake = _Intake(self._mark, self._graded, keep)
        taken = {key: graded.response for key, graded in done.items()}
        missing = [[owed for owed in batch if owed.key not in done] for batch in batches(wanted, size=self.batch_size)]
        merged = False
        for batch in filter(None, missing):
            so_far = [(owed, taken[owed.key]) for owed in wanted if owed.key in taken]
            if any(response.finish_reason == "aborted" for _, response in so_far):
                break
            left = most_tokens - sum(owed.weight * response.num_tokens for owed, response in so_far)
            if not merged:
                engine = self.engine()
                engine.set_merge(merge or Method.linear(evaluation.schedule))
                if on_merge:
                    on_merge(engine)
                if isinstance(engine, Foreseeing):
                    engine.expect([prompt(owed) for part in missing for owed in part], self.sampling)
                merged = True
            taken |= self._generate(batch, [prompt(owed) for owed in batch], intake, left)
        intake.settle(wait=True)
        return [done[owed.key] for owed in wanted if owed.key in done]

    def seed_of(self, owed: Request, phase: Phase, schedule: Schedule | None) -> int:
        """The seed of a response: of this schedule alone, or (``None``) the same for all."""
        own = [] if schedule is None else [schedule.key]
        return derive_seed(self.seed, phase, *own, owed.task, owed.sample.id, owed.repeat)

    def _generate(
        self, batch: Sequence[Request], prompts: Sequence[Prompt], intake: _Intake, most_tokens: float
    ) -> dict[Key, Response]:
        """One call of the engine; what it had finished is graded and stored, also where it fails."""
        engine = self.engine()
        call = _Call(batch, intake, streams=engine.streams, most_tokens=most_tokens)
        is_watched = engine.streams or most_tokens < math.inf or intake.is_waiting
        try:
            call.take(engine.generate(prompts, self.sampling, watch=call.watch if is_watched else None))
        except EngineError:
            intake.settle(wait=True)
            raise
        return call.taken

    def _mark(self, owed: Request, response: Response) -> Future[Mark]:
        if response.finish_reason == "aborted":  # cut by us: nothing is read from it, and it only counts as tokens
            future: Future[Mark] = Future()
            future.set_result(Mark(Grade.TRUNCATED, None))
            return future
        return self.marking.mark(response, owed.sample.target, grader=owed.grader, think_end=self.chat.think_end)

    def _graded(self, owed: Request, response: Response, future: Future[Mark]) -> Graded:
        try:
            mark = future.result()
        except GraderError as error:
            where = f"task '{owed.task}', sample '{owed.sample.id}': {error}"
            if owed.on_grader_error == "stop":
                raise GraderError(f"{where}. Mend it, or set the task's on_grader_error to unparsed") from error
            self.on_note(f"{where}; the response is left unparsed")
            mark = Mark(Grade.UNPARSED, None)
        thought = response.finish_reason != "aborted" and self.chat.think_end in response.text
        return Graded(owed.task, owed.sample.id, owed.repeat, response, mark.grade, mark.answer, thought)


class _Intake:
    """Has responses graded and keeps them, in the groups and the order in which they came.

    A grade that takes long does not hold up the engine: its group is kept at a later look.
    """

    def __init__(
        self,
        mark: Callable[[Request, Response], Future[Mark]],
        graded: Callable[[Request, Response, Future[Mark]], Graded],
        keep: OnBatch,
    ) -> None:
        self._mark, self._graded, self._keep = mark, graded, keep
        self._groups: deque[list[tuple[Request, Response, Future[Mark]]]] = deque()

    @property
    def is_waiting(self) -> bool:
        """Whether some grades are still to come."""
        return bool(self._groups)

    def take(self, group: Sequence[tuple[Request, Response]]) -> None:
        """Takes in a group, which is stored in one transaction."""
        self._groups.append([(owed, response, self._mark(owed, response)) for owed, response in group])
        self.settle()

    def settle(self, *, wait: bool = False) -> None:
        """Keeps the first groups whose grades are all there, or (``wait``) all. Raises ``GraderError``."""
        while self._groups and (wait or all(future.done() for _, _, future in self._groups[0])):
            self._keep([self._graded(*each) for each in self._groups.popleft()])


class _Call:
    """One call of ``generate``: each of its responses goes to the intake once, in groups."""

    def __init__(self, batch: Sequence[Request], intake: _Intake, *, streams: bool, most_tokens: float) -> None:
        self.taken: dict[Key, Response] = {}
        self._batch, self._intake = batch, intake
        self._streams, self._most_tokens = streams, most_tokens
        self._weights = [owed.weight for owed in batch]
        self._kept_at = time.monotonic()

    def watch(self, progress: Progress) -> bool:
        """Takes in the first responses up to one that still runs, at most every ``STORE_SECONDS``.

        Not all that are finished: those are the short ones, and whoever drew the others anew after a crash would give
        the long ones a second chance to be short. ``False``, once there are more tokens than allowed.
        """
        if sum(map(operator.mul, self._weights, progress.num_tokens)) > self._most_tokens:
            return False
        if self._streams and time.monotonic() - self._kept_at >= STORE_SECONDS:
            self.take(list(itertools.takewhile(lambda response: response is not None, progress.responses)))
        self._intake.settle()
        return True

    def take(self, responses: Sequence[Response | None]) -> None:
        """Takes in the responses that are new, given in the order of the call's prompts."""
        pairs = zip(self._batch, responses, strict=False)  # the first ones while others still run
        fresh = [(owed, each) for owed, each in pairs if each is not None and owed.key not in self.taken]
        if fresh:
            self.taken |= {owed.key: response for owed, response in fresh}
            self._intake.take(fresh)
            self._kept_at = time.monotonic()
