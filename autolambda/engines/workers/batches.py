"""Shares a call of ``generate`` among workers: cuts it into batches and keeps the state of each prompt.

Only the newest batch of a prompt counts, so late answers are ignored. If a batch is lost, its responses before the
first unfinished one are kept, and all later ones are generated again. Keeping every finished response would be biased:
only long responses would be drawn twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from autolambda.engines.base import Progress, Prompt, Sampling
from autolambda.merging.method import Method
from autolambda.responses import Response

_PADDING = 16  # the transformers engine fills a batch up to a multiple of this


@dataclass(frozen=True)
class WorkBatch:
    """Prompts that one worker generates under one merge; ``places`` are their positions in the call."""

    number: int
    places: tuple[int, ...]
    prompts: tuple[Prompt, ...]
    method: Method
    sampling: Sampling


@dataclass(frozen=True)
class Update:
    """The progress of a worker on a batch.

    ``num_tokens`` holds the tokens of each prompt so far; it is empty if the batch has not begun. ``finished`` maps
    positions in the batch to the responses that finished since the last update.
    """

    num_tokens: Sequence[int] = ()
    finished: Mapping[int, Response] = field(default_factory=dict)
    is_last: bool = False


class CallState:
    """The prompts of a call. Holds the tokens so far, the response and the newest batch of each."""

    def __init__(self, prompts: Sequence[Prompt], method: Method, sampling: Sampling) -> None:
        self.prompts, self.method, self.sampling = list(prompts), method, sampling
        self.num_tokens = [0] * len(prompts)
        self.responses: list[Response | None] = [None] * len(prompts)
        self._num_deaths = [0] * len(prompts)
        self._owners: list[int | None] = [None] * len(prompts)  # numbers of batches

    def batch(self, number: int, places: Sequence[int]) -> WorkBatch:
        """Makes the newest batch of the prompts at these places. Earlier batches no longer count for them."""
        for place in places:
            self._owners[place] = number
        prompts = tuple(self.prompts[place] for place in places)
        return WorkBatch(number, tuple(places), prompts, self.method, self.sampling)

    def take(self, batch: WorkBatch, update: Update) -> None:
        """Stores an update for the unfinished prompts whose newest batch this is."""
        mine = set(self.unfinished(batch))
        for place, num_tokens in zip(batch.places, update.num_tokens, strict=False):
            if place in mine:
                self.num_tokens[place] = num_tokens
        for position, response in update.finished.items():
            place = batch.places[position]
            if place in mine:
                self.responses[place], self.num_tokens[place] = response, response.num_tokens

    def unfinished(self, batch: WorkBatch) -> list[int]:
        """Returns the places without a response whose newest batch this is."""
        return [place for place in batch.places if self.responses[place] is None and self._owns(batch, place)]

    def release(self, batch: WorkBatch) -> list[int]:
        """Gives up a batch. Returns the places that another batch must generate, by the rule at the top."""
        mine = [place for place in batch.places if self._owns(batch, place)]
        lost = list(itertools.dropwhile(lambda place: self.responses[place] is not None, mine))
        for place in lost:
            self.responses[place], self.num_tokens[place], self._owners[place] = None, 0, None
        return lost

    def count_death(self, batch: WorkBatch) -> int:
        """Counts a failed worker for each unfinished prompt of its batch. Returns the highest count among them."""
        unfinished = self.unfinished(batch)
        for place in unfinished:
            self._num_deaths[place] += 1
        return max((self._num_deaths[place] for place in unfinished), default=0)

    def progress(self, places: range) -> Progress:
        """Returns the progress of the prompts at these places."""
        part = slice(places.start, places.stop)
        return Progress(self.num_tokens[part], self.responses[part])

    def _owns(self, batch: WorkBatch, place: int) -> bool:
        return self._owners[place] == batch.number


def cut(places: Sequence[int], *, num_workers: int, batch_size: int | None) -> list[tuple[int, ...]]:
    """Returns the places of each batch, in order: equally many batches per worker, of at most ``batch_size`` places.

    Without a ``batch_size``, each worker gets one batch of interleaved places. Engines that fill their own batches then
    finish the first prompts first.
    """
    if not places:
        return []
    if batch_size is None:
        return [part for start in range(num_workers) if (part := tuple(places[start::num_workers]))]
    num_batches = num_workers * -(-len(places) // (num_workers * batch_size))
    size = min(batch_size, -(-len(places) // (num_batches * _PADDING)) * _PADDING)
    return [tuple(places[start : start + size]) for start in range(0, len(places), size)]
