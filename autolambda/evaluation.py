"""An evaluation: a schedule's responses on a slice, generated batch by batch, graded, stored and measured.

The batches follow from the slices and the rungs alone. All schedules answer the same prompts in the same order. In the
search each draws its own random numbers, so that neighbours do not share their luck beyond that of the prompts; in the
confirmation all draw the same ones, so that they compare closely. A resumed evaluation generates just what is missing.
An engine that does not stream has each batch stored in one transaction: it is there whole or missing whole.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolambda.engines.base import Engine, Progress, Prompt, Sampling
from autolambda.graders import GRADERS, grade
from autolambda.responses import Grade, Graded, Response, Sample
from autolambda.schedule import Schedule
from autolambda.store import Store, StoredEvaluation
from autolambda.tasks.base import Phase, Slice

if TYPE_CHECKING:  # it loads transformers and torch, which who only reads a study does without
    from autolambda.chat import ChatFormat

# Between two stores while an engine streams: a commit waits for the disk.
STORE_SECONDS = 1.0
EVERYTHING = slice(None)

OnBatch = Callable[[Sequence[Graded]], None]
Key = tuple[str, str, int]  # task, sample id, repeat: unique in an evaluation


@dataclass(frozen=True)
class Owed:
    """One response to generate: a sample of a task and which of its repeats."""

    task: str
    grader: str
    sample: Sample
    repeat: int

    @property
    def key(self) -> Key:
        return (self.task, self.sample.id, self.repeat)


@dataclass(frozen=True)
class Evaluator:
    """What all evaluations of a study share. ``engine`` is opened by its first use: where nothing is owed, never.

    ``batch_size`` is the number of responses that one call of the engine is asked for; ``None`` is all that are owed.
    """

    engine: Callable[[], Engine]
    chat: ChatFormat
    sampling: Sampling
    seed: int
    batch_size: int | None
    store: Store

    def run(
        self,
        evaluation: StoredEvaluation,
        slices: Sequence[Slice],
        *,
        phase: Phase,
        window: slice = EVERYTHING,
        chat: ChatFormat | None = None,
        on_batch: OnBatch | None = None,
        most_tokens: float = math.inf,
    ) -> list[Graded]:
        """An evaluation's responses in the slices' order: those stored, and those still owed, stored as they come.

        They are those in a ``window`` of the fixed order. ``chat`` stands in for the study's chat format (a parent
        under its own template); ``on_batch`` is told of each group that was stored. Once they hold more than
        ``most_tokens``, those of unfinished responses included, what still runs is aborted and the result ends there.
        Raises ``EngineError``; what was stored until then is not generated again.
        """
        wanted = owed_on(slices)[window]
        done = {_key(graded): graded for graded in self.store.graded(evaluation)}

        def keep(fresh: Sequence[Graded]) -> None:
            self.store.add(evaluation, fresh)
            done.update({_key(graded): graded for graded in fresh})
            if on_batch:
                on_batch(fresh)

        missing = [[owed for owed in batch if owed.key not in done] for batch in batches(wanted, size=self.batch_size)]
        merged = False
        for batch in filter(None, missing):
            so_far = [done[owed.key] for owed in wanted if owed.key in done]
            left = most_tokens - sum(graded.response.num_tokens for graded in so_far)
            if is_aborted(so_far):
                break
            if not merged:
                self.engine().set_schedule(evaluation.schedule)
                merged = True
            own = evaluation.schedule if phase == "search" else None
            self._generate(batch, [self.seed_of(owed, phase, own) for owed in batch], chat or self.chat, keep, left)
        return [done[owed.key] for owed in wanted if owed.key in done]

    def seed_of(self, owed: Owed, phase: Phase, schedule: Schedule | None) -> int:
        """The seed of a response: of this schedule alone, or (``None``) the same for all."""
        own = [] if schedule is None else [json.dumps(schedule.to_dict(), sort_keys=True)]
        return derive_seed(self.seed, phase, *own, owed.task, owed.sample.id, owed.repeat)

    def _generate(
        self, batch: Sequence[Owed], seeds: Sequence[int], chat: ChatFormat, keep: OnBatch, most_tokens: float
    ) -> None:
        prompts = [Prompt(chat.render(owed.sample), seed) for owed, seed in zip(batch, seeds, strict=True)]
        engine = self.engine()
        intake = _Intake(batch, self._graded, keep, streams=engine.streams, most_tokens=most_tokens)
        is_watched = engine.streams or most_tokens < math.inf
        intake.take(engine.generate(prompts, self.sampling, watch=intake.watch if is_watched else None))

    def _graded(self, owed: Owed, response: Response) -> Graded:
        think_end = self.chat.think_end
        if response.finish_reason == "aborted":  # cut by us: nothing is read from it, and it only counts as tokens
            return Graded(owed.task, owed.sample.id, owed.repeat, response, Grade.TRUNCATED, None, False)
        mark = grade(response, owed.sample.target, grader=GRADERS[owed.grader], think_end=think_end)
        thought = think_end in response.text
        return Graded(owed.task, owed.sample.id, owed.repeat, response, mark.grade, mark.answer, thought)


class _Intake:
    """Takes in the responses of one call of ``generate``; each is graded and kept once, in groups."""

    def __init__(
        self,
        batch: Sequence[Owed],
        graded: Callable[[Owed, Response], Graded],
        keep: OnBatch,
        *,
        streams: bool,
        most_tokens: float,
    ) -> None:
        self._waiting = dict(enumerate(batch))
        self._graded, self._keep = graded, keep
        self._streams, self._most_tokens = streams, most_tokens
        self._kept_at = time.monotonic()

    def watch(self, progress: Progress) -> bool:
        """Takes in the first responses up to one that still runs, at most every ``STORE_SECONDS``.

        Not all that are finished: those are the short ones, and whoever drew the others anew after a crash would give
        the long ones a second chance to be short. ``False``, once there are more tokens than allowed.
        """
        if sum(progress.num_tokens) > self._most_tokens:
            return False
        if self._streams and time.monotonic() - self._kept_at >= STORE_SECONDS:
            self.take(list(itertools.takewhile(lambda response: response is not None, progress.responses)))
        return True

    def take(self, responses: Sequence[Response | None]) -> None:
        """Takes in the responses that are new, given in the order of the call's prompts."""
        fresh = {i: response for i, response in enumerate(responses) if response is not None and i in self._waiting}
        if fresh:
            self._keep([self._graded(self._waiting.pop(i), response) for i, response in fresh.items()])
            self._kept_at = time.monotonic()


def owed_on(slices: Sequence[Slice]) -> list[Owed]:
    """All responses owed on the slices, in fixed order: any number of the first holds the same share of each slice."""
    places = [
        (
            (repeat * len(part.samples) + place + 0.5) / part.num_responses,
            number,
            Owed(part.task, part.grader, sample, repeat),
        )
        for number, part in enumerate(slices)
        for repeat in range(part.repeats)
        for place, sample in enumerate(part.samples)
    ]
    return [owed for _, _, owed in sorted(places, key=lambda each: each[:2])]


def batches(owed: Sequence[Owed], *, size: int | None = None) -> list[Sequence[Owed]]:
    """``owed`` in its order, cut into batches of ``size``; ``None`` is all in one."""
    size = size or max(len(owed), 1)
    return [owed[start : start + size] for start in range(0, len(owed), size)]


def is_aborted(graded: Sequence[Graded]) -> bool:
    """Whether an evaluation was ended before its responses were: its tokens are then a lower bound."""
    return any(each.response.finish_reason == "aborted" for each in graded)


def _key(graded: Graded) -> Key:
    return (graded.task, graded.sample_id, graded.repeat)


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from SHA-256 of the parts: neighbouring inputs give unrelated seeds."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1
