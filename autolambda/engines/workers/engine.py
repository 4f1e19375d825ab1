"""Several engines behind one: each a Ray actor with GPUs of its own, a schedule's prompts shared among them.

The prompts are cut into pieces (pieces.py), each done by one worker (worker.py), handed out by a crew (crew.py). With
engines whose rows run in step, the responses and what a watcher is asked are those of one engine, whatever the number
of workers and whatever befalls them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from autolambda.engines.base import Engine, Fingerprint, Prompt, Sampling, Watch
from autolambda.engines.decoder import Decoder
from autolambda.engines.workers.batches import AsTheyCome, InStep, Rows, cut
from autolambda.engines.workers.cluster import Share, check_room, join, leave, placed, start
from autolambda.engines.workers.dispatcher import MAX_DEATHS, Dispatcher, OnNote
from autolambda.engines.workers.handle import Lost, WorkerHandle, answered, close
from autolambda.engines.workers.worker import Failure, Opened, Worker
from autolambda.errors import ConfigError, EngineError
from autolambda.merging.method import Method
from autolambda.responses import Response
from autolambda.schedule import Schedule

CLOSE_SECONDS = 10.0  # for an engine to let go of its memory and its processes


class WorkersEngine:
    """Implements ``engines.base.Engine`` and ``Foreseeing`` with an engine in each worker, opened by ``opening``."""

    def __init__(
        self,
        opening: Callable[[], Engine],
        *,
        num_workers: int,
        share: Share,
        decoder: Callable[[Sampling], Decoder],
        most: int | None,
        on_note: OnNote = lambda note: None,
    ) -> None:
        """Starts all workers. A piece has at most ``most`` prompts; ``None`` is for engines that fill their own batch.

        ``on_note`` is told what befalls a worker. Raises ``ConfigError`` where the machines cannot hold them, and for
        what the user can put right on one of them; ``EngineError`` where an engine does not open.
        """
        self._decoder, self._most = decoder, most
        self._crew = Dispatcher([], on_note)
        self._schedule = Method.linear(Schedule.uniform(1.0))
        self._rows: Rows | None = None
        self._next = 0  # the first row that is not asked for yet
        self.streams, self.in_words = False, ""
        self._leaves = join()
        try:
            check_room(share, num_workers)
            members = [WorkerHandle(i, start(Worker, share, [opening])) for i in range(num_workers)]
            self._crew = Dispatcher(members, on_note)
            places = placed([each.actor for each in members], share, on_note=on_note)
            for member, place in zip(members, places, strict=True):
                member.host = place.host
            self._open(members)
        except BaseException:
            self.close()
            raise

    def set_merge(self, method: Method) -> None:
        """Remembers it: each piece says its merge, and a worker merges first where it has another.

        A base model is read on each worker's machine.
        """
        self._rows = None
        self._crew.drop()
        self._schedule = method

    def expect(self, prompts: Sequence[Prompt], sampling: Sampling) -> None:
        """The prompts of the next calls, in order: workers that are free begin with them."""
        self._rows, self._next = Rows(prompts, self._schedule, sampling, in_step=not self.streams), 0
        parts = cut(range(len(prompts)), num_workers=self._crew.num_usable or 1, most=self._most)
        self._crew.begin(self._rows, parts, most=self._most)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        """One response a prompt, in order.

        Raises ``EngineError`` where several workers failed over the same prompts, or none answers any more.
        """
        if not prompts:
            return []
        rows, places = self._rows_of(prompts, sampling)
        self._next = places.stop
        looks = watch and (InStep if rows.in_step else AsTheyCome)(rows, places, watch)
        while True:
            is_done = all(rows.responses[row] for row in places)
            step = looks.look() if looks else None
            if step is not None:
                return self._ended_at(step, rows, places)
            if is_done:
                return [response for row in places if (response := rows.responses[row])]
            self._crew.step()

    def fingerprint(self) -> Fingerprint:
        """That of the weights of all workers that answer. Raises ``EngineError`` where they differ."""
        found = set(self._crew.fingerprints(self._schedule))
        if len(found) != 1:
            raise EngineError(f"the workers hold {len(found)} different merges; compare the checkpoints on their hosts")
        return found.pop()

    def close(self) -> None:
        """Ends all workers, and Ray where this engine started or joined it."""
        close(self._crew.members, seconds=CLOSE_SECONDS)
        self._crew = Dispatcher([], lambda note: None)
        if self._leaves:
            self._leaves = False
            leave()

    def _open(self, members: Sequence[WorkerHandle]) -> None:
        """Waits until every worker has its engine."""
        for member in members:
            member.open()
        num_deaths = 0
        while not all(member.is_open for member in members):
            for member in answered(members):
                reply = member.answer()
                if isinstance(reply, Opened):
                    member.is_open, self.streams, self.in_words = True, reply.streams, reply.in_words
                elif isinstance(reply, Failure):
                    where = "" if member.host == socket.gethostname() else f"{member.in_words}: "
                    raise (ConfigError if reply.is_input else EngineError)(f"{where}{reply.reason}")
                elif isinstance(reply, Lost):
                    num_deaths += 1
                    if num_deaths == MAX_DEATHS or reply.for_ever:
                        raise EngineError(f"{member.in_words}: its engine does not open ({reply.reason})")
                    member.open()
        num_hosts = len({member.host for member in members})
        on = f" on {num_hosts} machines" if num_hosts > 1 else ""
        self.in_words = f"{len(members)} workers{on}, each {self.in_words}"

    def _rows_of(self, prompts: Sequence[Prompt], sampling: Sampling) -> tuple[Rows, range]:
        """The rows of a call: the next ones expected, or others."""
        end = self._next + len(prompts)
        if self._rows is None or self._rows.sampling != sampling or self._rows.prompts[self._next : end] != [*prompts]:
            self.expect(prompts, sampling)
        assert self._rows is not None
        return self._rows, range(self._next, self._next + len(prompts))

    def _ended_at(self, step: int, rows: Rows, places: range) -> list[Response]:
        """The responses as they were at a step, or, where rows do not run in step, as they are."""
        self._crew.end(step, places)
        while self._crew.is_ending:
            self._crew.step()
        decoder = self._decoder(rows.sampling)
        return [rows.at(row, step, decoder) for row in places]
