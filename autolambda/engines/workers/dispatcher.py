"""A crew: several workers and the pieces that are handed out to them, whatever befalls one or the other.

A piece of a worker that ended, or that does not answer, is done by others as soon as they are free; where rows run in
step the first answer counts. Ray starts workers again; here it is only seen that nobody waits for them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from autolambda.engines.base import Fingerprint
from autolambda.engines.workers.batches import News, Rows, cut
from autolambda.engines.workers.handle import WorkerHandle, answered
from autolambda.engines.workers.worker import Failure, Opened
from autolambda.errors import EngineError
from autolambda.merging.method import Method

SILENT_SECONDS = 10.0  # without an answer, after which others take over a worker's piece
GONE_SECONDS = 300.0  # without any worker that answers, after which the engine has failed
MAX_DEATHS = 3  # of workers over the same prompts: it is then hardly theirs

OnNote = Callable[[str], None]


class Dispatcher:
    """Works on one call's rows at a time; ``on_note`` is told what befalls a worker."""

    def __init__(self, members: Sequence[WorkerHandle], on_note: OnNote) -> None:
        self.members, self._on_note = members, on_note
        self._rows: Rows | None = None
        self._most: int | None = None
        self._end: tuple[int, range] | None = None  # the step at which these rows end
        self._waiting: deque[tuple[int, ...]] = deque()
        self._is_short = False  # rows may have nobody who works on them
        self._num_pieces = 0
        self._answered_at = time.monotonic()

    @property
    def num_usable(self) -> int:
        """The workers that answer."""
        return sum(member.is_usable for member in self.members)

    @property
    def is_ending(self) -> bool:
        """Whether rows that were ended are still to come as they are."""
        assert self._rows is not None and self._end is not None
        if self._rows.in_step:
            return bool(self._rows.missing_at(*self._end))
        return any(member.rows is self._rows and member.is_usable for member in self.members)

    def begin(self, rows: Rows, parts: Sequence[tuple[int, ...]], *, most: int | None) -> None:
        """Drops what it worked on and begins with the parts of other rows; later ones have at most ``most``."""
        self.drop()
        self._rows, self._most, self._answered_at = rows, most, time.monotonic()
        self._waiting.extend(parts)

    def drop(self) -> None:
        """Has everything ended; nobody waits for it."""
        for member in self.members:
            member.abort()
        self._rows, self._end, self._is_short = None, None, False
        self._waiting.clear()

    def end(self, step: int, places: range) -> None:
        """Has everything ended as it is; the rows at ``places`` are needed up to ``step``."""
        for member in self.members:
            member.abort()
        self._end, self._is_short = (step, places), True
        self._waiting.clear()

    def fingerprints(self, schedule: Method) -> list[Fingerprint]:
        """What each worker that answers holds under a schedule."""
        return [member.fingerprint(schedule) for member in self.members if member.is_usable]

    def step(self) -> None:
        """Hands out what waits, and takes in what the workers answer."""
        if self._is_short:
            self._refill()
        for member in self.members:
            if self._waiting and member.is_usable and member.piece is None:
                self._hand_out(member)
        for member in answered(self.members):
            self._hear(member)
        for member in self.members:
            if not member.is_silent and member.silent_seconds > SILENT_SECONDS:
                self._on_note(f"{member.in_words} does not answer; others do its work")
                member.is_silent = True
                self._lose(member)
        self._check_answering()

    def _hand_out(self, member: WorkerHandle) -> None:
        """Gives the next piece to a worker that has none."""
        assert self._rows is not None
        sampling = self._rows.sampling
        if self._end:
            sampling = replace(sampling, max_tokens=self._end[0])
        self._num_pieces += 1
        member.give(self._rows.piece(self._num_pieces, self._waiting.popleft(), sampling), self._rows)

    def _check_answering(self) -> None:
        """Raises ``EngineError`` where no worker is left, or none has answered for long."""
        if self.num_usable:
            self._answered_at = time.monotonic()
        elif all(member.is_gone for member in self.members):
            raise EngineError("all workers are lost, and Ray does not start them again")
        elif time.monotonic() - self._answered_at > GONE_SECONDS:
            raise EngineError(f"none of the {len(self.members)} workers has answered for {GONE_SECONDS:g} seconds")

    def _hear(self, member: WorkerHandle) -> None:
        """Takes in one answer."""
        reply, piece, rows = member.answer(), member.piece, member.rows
        if member.is_silent:
            member.is_silent = False
            self._on_note(f"{member.in_words} answers again")
        if isinstance(reply, News):
            assert piece is not None and rows is not None
            rows.take(piece, reply)
            if reply.state == "running":
                if rows is not self._rows or not rows.is_wanted(piece):
                    member.abort()
                member.follow()
                return
            if reply.state == "failed":
                self._count_death(member, reply.error)
                self._lose(member)
            self._is_short = True
            member.let_go()
        elif isinstance(reply, Opened):
            member.is_open = True
        elif isinstance(reply, Failure):
            member.is_gone = True
            self._on_note(f"{member.in_words} is left out: {reply.reason}")
        else:
            member.is_gone = reply.for_ever
            self._on_note(f"{member.in_words} is lost: {reply.reason}")
            self._count_death(member, reply.reason)
            self._lose(member)
            member.let_go()
            if not reply.for_ever:
                member.open()

    def _lose(self, member: WorkerHandle) -> None:
        """Nobody waits for a worker's piece any more."""
        if member.piece and member.rows is self._rows and self._rows and not self._end:
            self._rows.lose(member.piece)
        self._is_short = True

    def _count_death(self, member: WorkerHandle, reason: str) -> None:
        """Raises ``EngineError`` where too many failed over the same prompts."""
        rows = self._rows
        if rows is None or member.rows is not rows or member.piece is None:
            return
        for row in member.piece.rows:
            if rows.responses[row] is None:
                rows.num_deaths[row] += 1
        if max(rows.num_deaths[row] for row in member.piece.rows) >= MAX_DEATHS:
            raise EngineError(f"{MAX_DEATHS} workers failed over the same prompts; the last, {member.name}: {reason}")

    def _refill(self) -> None:
        """Has the rows that nobody works on wait for somebody."""
        self._is_short = False
        rows = self._rows
        if rows is None:
            return
        taken = {row for part in self._waiting for row in part}
        for member in self.members:
            if member.rows is rows and member.piece and member.is_usable:
                taken.update(member.piece.rows)
        needed = rows.missing_at(*self._end) if self._end else rows.missing()
        num_idle = sum(member.is_usable and member.piece is None for member in self.members)
        left = [row for row in needed if row not in taken]
        self._waiting.extendleft(reversed(cut(left, num_workers=max(num_idle, 1), most=self._most)))
