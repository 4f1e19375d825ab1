"""An evaluation: a schedule's responses on a slice, generated batch by batch, graded, stored and measured.

The batches follow from the slices alone. Each (phase, task, sample, repeat) has one seed for all schedules, so that two
schedules are compared on the same prompts, and a resumed evaluation generates just the batches that are missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autolambda.chat import ChatFormat
from autolambda.engines.base import Engine, Prompt, Sampling
from autolambda.graders import GRADERS, grade
from autolambda.responses import Graded, Response, Sample
from autolambda.store import Store, StoredEvaluation
from autolambda.tasks.base import Phase, Slice

OnBatch = Callable[[Sequence[Graded]], None]


@dataclass(frozen=True)
class Owed:
    """One response to generate: a sample of a task and which of its repeats."""

    task: str
    grader: str
    sample: Sample
    repeat: int


@dataclass(frozen=True)
class Evaluator:
    """What all evaluations of a study share. ``engine`` is opened by its first use: where nothing is owed, never."""

    engine: Callable[[], Engine]
    chat: ChatFormat
    sampling: Sampling
    seed: int
    batch_size: int
    store: Store

    def run(
        self,
        evaluation: StoredEvaluation,
        slices: Sequence[Slice],
        *,
        phase: Phase,
        chat: ChatFormat | None = None,
        on_batch: OnBatch | None = None,
    ) -> list[Graded]:
        """All responses of an evaluation: those stored, and those still owed, stored as they arrive.

        ``chat`` stands in for the study's chat format (a parent under its own template).
        """
        done = {(g.task, g.sample_id, g.repeat): g for g in self.store.graded(evaluation)}
        graded: list[Graded] = []
        merged = False
        for batch in batches(slices, size=self.batch_size):
            stored = [done.get((owed.task, owed.sample.id, owed.repeat)) for owed in batch]
            fresh = [g for g in stored if g is not None]
            if len(fresh) < len(batch):
                if not merged:
                    self.engine().set_schedule(evaluation.schedule)
                    merged = True
                fresh = self._generate(batch, phase, chat or self.chat)
                self.store.add(evaluation, fresh)
                if on_batch:
                    on_batch(fresh)
            graded += fresh
        return graded

    def _generate(self, batch: Sequence[Owed], phase: Phase, chat: ChatFormat) -> list[Graded]:
        prompts = [
            Prompt(chat.render(owed.sample), derive_seed(self.seed, phase, owed.task, owed.sample.id, owed.repeat))
            for owed in batch
        ]
        responses = self.engine().generate(prompts, self.sampling)
        return [self._graded(owed, response) for owed, response in zip(batch, responses, strict=True)]

    def _graded(self, owed: Owed, response: Response) -> Graded:
        think_end = self.chat.think_end
        mark = grade(response, owed.sample.target, grader=GRADERS[owed.grader], think_end=think_end)
        thought = think_end in response.text
        return Graded(owed.task, owed.sample.id, owed.repeat, response, mark.grade, mark.answer, thought)


def batches(slices: Sequence[Slice], *, size: int) -> list[list[Owed]]:
    """All responses owed on the slices, in fixed order, cut into batches of ``size``: the units of work and commit."""
    owed = [
        Owed(part.task, part.grader, sample, repeat)
        for part in slices
        for repeat in range(part.repeats)
        for sample in part.samples
    ]
    return [owed[start : start + size] for start in range(0, len(owed), size)]


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from SHA-256 of the parts: neighbouring inputs give unrelated seeds."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1
