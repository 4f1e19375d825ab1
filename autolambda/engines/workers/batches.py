"""A call of several engines cut into pieces: who generates which rows, and what is known of each row.

Rows that run in step (transformers) follow from their prompts alone, so any worker's word counts, and a watcher is
asked just what one engine would have asked it. Others (vLLM) are drawn anew with their piece, and only the newest piece
of a row counts: of one that was lost the first rows are kept, never just the short ones that happened to be finished.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from autolambda.engines.base import WATCH_STEPS, Progress, Prompt, Sampling, Watch
from autolambda.merging.method import Method
from autolambda.responses import Response

if TYPE_CHECKING:  # it loads transformers, which a worker loads with its engine
    from autolambda.engines.decoder import Decoder

NOBODY = -1
State = Literal["running", "done", "failed"]


@dataclass(frozen=True)
class WorkBatch:
    """What one worker is asked for: ``rows`` are the places of its prompts in the whole call."""

    number: int
    rows: tuple[int, ...]
    prompts: tuple[Prompt, ...]
    schedule: Method
    sampling: Sampling


@dataclass(frozen=True)
class Finished:
    """The end of the row at ``place`` of a piece; ``tokens`` are its ids, for rows that run in step."""

    place: int
    response: Response
    tokens: array[int] | None


@dataclass(frozen=True)
class News:
    """What a worker has to say of a piece: tokens by place, the rows finished since; ``error`` where it failed."""

    num_tokens: Sequence[int]
    finished: Sequence[Finished]
    state: State
    error: str = ""


class Rows:
    """The prompts of a schedule, with the tokens so far and the responses of each, whoever generates them."""

    def __init__(self, prompts: Sequence[Prompt], schedule: Method, sampling: Sampling, *, in_step: bool) -> None:
        self.prompts, self.schedule, self.sampling = list(prompts), schedule, sampling
        self.in_step = in_step
        self.num_tokens = [0] * len(prompts)
        self.responses: list[Response | None] = [None] * len(prompts)
        self.tokens: list[array[int] | None] = [None] * len(prompts)
        self.num_deaths = [0] * len(prompts)
        self._owners = [NOBODY] * len(prompts)

    def piece(self, number: int, rows: Sequence[int], sampling: Sampling) -> WorkBatch:
        """A piece of these rows, whose word counts from now on."""
        for row in rows:
            self._owners[row] = number
        return WorkBatch(number, tuple(rows), tuple(self.prompts[row] for row in rows), self.schedule, sampling)

    def take(self, piece: WorkBatch, news: News) -> None:
        """Takes in what was said of a piece, as far as its word counts and nobody was quicker."""
        for row, num_tokens in zip(piece.rows, news.num_tokens, strict=False):
            if self._counts(piece, row):
                self.num_tokens[row] = max(num_tokens, self.num_tokens[row])
        for each in news.finished:
            row = piece.rows[each.place]
            if not self._counts(piece, row):
                continue
            if len(each.tokens or ()) >= len(self.tokens[row] or ()):
                self.tokens[row] = each.tokens
            if each.response.finish_reason != "aborted" or not self.in_step:  # else the step decides where it ends
                self.responses[row] = each.response
                self.num_tokens[row] = each.response.num_tokens

    def lose(self, piece: WorkBatch) -> None:
        """Nobody works on a piece any more, or it is not waited for."""
        if self.in_step:
            return
        mine = [row for row in piece.rows if self._owners[row] == piece.number]
        for row in itertools.dropwhile(lambda row: self.responses[row] is not None, mine):
            self.responses[row], self.num_tokens[row], self._owners[row] = None, 0, NOBODY

    def is_wanted(self, piece: WorkBatch) -> bool:
        """Whether any of its rows is still open to it."""
        return any(self._counts(piece, row) for row in piece.rows)

    def missing(self) -> list[int]:
        """The rows without a response."""
        return [row for row, response in enumerate(self.responses) if response is None]

    def missing_at(self, step: int, places: range) -> list[int]:
        """The rows at ``places`` whose tokens up to a step are not there. None that do not run in step: drawn anew."""
        rows = [row for row in places if self.responses[row] is None] if self.in_step else []
        return [row for row in rows if len(self.tokens[row] or ()) < step]

    def at(self, row: int, step: int, decoder: Decoder) -> Response:
        """A row's response at a step, aborted there unless it had ended; else, not in step, as far as it came."""
        response, tokens = self.responses[row], self.tokens[row]
        if not self.in_step:
            return response or Response("", self.num_tokens[row], "aborted")
        if response and response.num_tokens <= step and self._is_whole(response):
            return response
        assert tokens is not None
        return decoder.response(tokens[:step].tolist(), "aborted")

    def _is_whole(self, response: Response) -> bool:
        """Whether it was not cut short by a piece that was asked for up to a step alone."""
        return response.finish_reason == "stop" or response.num_tokens == self.sampling.max_tokens

    def _counts(self, piece: WorkBatch, row: int) -> bool:
        return self.responses[row] is None and (self.in_step or self._owners[row] == piece.number)


def cut(rows: Sequence[int], *, num_workers: int, most: int | None) -> list[tuple[int, ...]]:
    """The rows of each piece: the same number of pieces for every worker, of at most ``most`` rows, the first first.

    Without ``most`` there is one piece a worker, and all begin with the first rows: an engine that fills its own batch
    then finishes the first rows first.
    """
    from autolambda.engines.transformers.cache import ROW_STEP, round_up  # with torch: see above

    if not rows:
        return []
    if most is None:
        return [part for start in range(num_workers) if (part := tuple(rows[start::num_workers]))]
    num_pieces = num_workers * -(-len(rows) // (num_workers * most))
    size = min(most, round_up(-(-len(rows) // num_pieces), ROW_STEP))
    return [tuple(rows[start : start + size]) for start in range(0, len(rows), size)]


class InStep:
    """The looks of a watcher at rows that run in step, each at the step at which one engine would have asked.

    That is where a row ends, and every ``WATCH_STEPS`` steps (``TransformersEngine.generate``).
    """

    def __init__(self, rows: Rows, places: range, watch: Watch) -> None:
        self._rows, self._places, self._watch = rows, places, watch
        self._step = 0

    def look(self) -> int | None:
        """Makes the looks that are due; the step at which the watcher said no."""
        responses = [self._rows.responses[row] for row in self._places]
        known = [self._rows.num_tokens[row] for row in self._places]
        running = [count for count, response in zip(known, responses, strict=True) if response is None]
        reached = min(running) if running else max(known)
        ends = {count for count, response in zip(known, responses, strict=True) if response is not None}
        for step in sorted(ends | set(range(WATCH_STEPS, reached + 1, WATCH_STEPS))):
            if not self._step < step <= reached:
                continue
            self._step = step
            ended = [each if each and each.num_tokens <= step else None for each in responses]
            if not self._watch(Progress([min(count, step) for count in known], ended)):
                return step
        return None


class AsTheyCome:
    """The looks of a watcher at rows as they stand."""

    def __init__(self, rows: Rows, places: range, watch: Watch) -> None:
        self._rows, self._places, self._watch = rows, places, watch

    def look(self) -> int | None:
        """One look; 0 where the watcher said no."""
        part = slice(self._places.start, self._places.stop)
        return None if self._watch(Progress(self._rows.num_tokens[part], self._rows.responses[part])) else 0
