"""Several engines behind one interface: each is a Ray actor with its own GPUs, and they share the prompts of a merge.

The tokens of an aborted response depend on timing. A search with several workers is therefore valid, but not
reproducible bit for bit.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from autolambda.engines.base import Engine, Fingerprint, Prompt, Sampling, Watch
from autolambda.engines.workers.batches import CallState
from autolambda.engines.workers.cluster import Share, addresses_of, check_room, connected, start
from autolambda.engines.workers.dispatcher import MAX_DEATHS, Dispatcher, OnNote
from autolambda.engines.workers.handle import Failure, WorkerHandle, close, replied
from autolambda.engines.workers.worker import Opened, Worker
from autolambda.errors import ConfigError, EngineError
from autolambda.merging.method import Method
from autolambda.responses import Response
from autolambda.schedule import Schedule

CLOSE_SECONDS = 10.0  # for an engine to free its memory and end its processes


class WorkersEngine:
    """Implements ``engines.base.Engine`` and ``Foreseeing`` with an engine in each worker, opened by ``opening``."""

    def __init__(
        self,
        opening: Callable[[], Engine],
        *,
        num_workers: int,
        share: Share,
        batch_size: int | None,
        on_note: OnNote = lambda note: None,
    ) -> None:
        """Starts all workers and reports their events to ``on_note``.

        ``batch_size`` limits the prompts of a batch; ``None`` is for engines that fill their own batches. Raises
        ``ConfigError`` if the machines cannot hold the workers, or if the user can correct why an engine does not open.
        Raises ``EngineError`` for other failures.
        """
        self._method = Method.linear(Schedule.uniform(1.0))
        self._call: CallState | None = None
        self._next = 0  # the first place of the call that no `generate` has asked for yet
        self.streams, self.in_words = False, ""
        self._dispatcher = Dispatcher([], batch_size=batch_size, on_note=on_note)
        self._cluster = ExitStack()
        self._cluster.enter_context(connected())
        try:
            check_room(share, num_workers)
            workers = [WorkerHandle(i, start(Worker, share, [opening])) for i in range(num_workers)]
            self._dispatcher.workers = workers
            addresses = addresses_of([worker.actor for worker in workers], share, on_note=on_note)
            for worker, address in zip(workers, addresses, strict=True):
                worker.host = address.host
            self._open(workers)
        except BaseException:
            self.close()
            raise

    def set_merge(self, method: Method) -> None:
        """Stores the merge. Each batch carries it to its worker, which merges. A base model is read on its host."""
        self._call = None
        self._dispatcher.stop()
        self._method = method

    def expect(self, prompts: Sequence[Prompt], sampling: Sampling) -> None:
        """Starts on the prompts of the next calls, in order, as workers become idle."""
        self._call, self._next = CallState(prompts, self._method, sampling), 0
        self._dispatcher.start(self._call)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        """Returns one response per prompt, in order.

        Calls ``watch`` at every update of the workers. If it returns ``False``, running responses end with the tokens
        so far. Prompts that no worker has begun get an empty ``aborted`` response of 0 tokens. Raises ``EngineError``.
        """
        if not prompts:
            return []
        call, places = self._claim(prompts, sampling)
        while True:
            progress = call.progress(places)
            finished = [response for response in progress.responses if response]
            if watch and not watch(progress):
                return self._stopped(call, places)
            if len(finished) == len(prompts):
                return finished
            self._dispatcher.step()

    def fingerprint(self) -> Fingerprint:
        """Returns the fingerprint of all answering workers. Raises ``EngineError`` if they differ."""
        found = set(self._dispatcher.fingerprints(self._method))
        if len(found) != 1:
            raise EngineError(f"the workers hold {len(found)} different merges; compare the checkpoints on their hosts")
        return found.pop()

    def close(self) -> None:
        """Ends all workers, and Ray if this engine started or joined it."""
        close(self._dispatcher.workers, seconds=CLOSE_SECONDS)
        self._dispatcher.workers = []
        self._cluster.close()

    def _open(self, workers: Sequence[WorkerHandle]) -> None:
        for worker in workers:
            worker.open()
        num_deaths = 0
        while not all(worker.is_open for worker in workers):
            for worker in replied(workers):
                reply = worker.receive()
                if isinstance(reply, Opened):
                    worker.is_open, self.streams, self.in_words = True, reply.streams, reply.in_words
                elif isinstance(reply, Failure) and not reply.is_lost:
                    where = "" if worker.host == socket.gethostname() else f"{worker.in_words}: "
                    raise (ConfigError if reply.is_input else EngineError)(f"{where}{reply.reason}")
                elif isinstance(reply, Failure):
                    num_deaths += 1
                    if num_deaths == MAX_DEATHS or reply.is_final:
                        raise EngineError(f"{worker.in_words}: its engine does not open ({reply.reason})")
                    worker.open()
        num_hosts = len({worker.host for worker in workers})
        on = f" on {num_hosts} machines" if num_hosts > 1 else ""
        self.in_words = f"{len(workers)} workers{on}, each {self.in_words}"

    def _claim(self, prompts: Sequence[Prompt], sampling: Sampling) -> tuple[CallState, range]:
        """Returns the places of the prompts: the next ones of the expected call, or all of a new one."""
        end = self._next + len(prompts)
        if not self._call or self._call.sampling != sampling or self._call.prompts[self._next : end] != [*prompts]:
            self.expect(prompts, sampling)
        assert self._call is not None
        start, self._next = self._next, self._next + len(prompts)
        return self._call, range(start, self._next)

    def _stopped(self, call: CallState, places: range) -> list[Response]:
        """Stops a call and returns its responses, finished or aborted."""
        self._call = None
        self._dispatcher.stop()
        while self._dispatcher.is_running(call):
            self._dispatcher.step()
        return [call.responses[place] or Response("", call.num_tokens[place], "aborted") for place in places]
