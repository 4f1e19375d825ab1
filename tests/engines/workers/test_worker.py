"""One worker, without Ray: batches in, updates out, whatever its engine does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from autolambda.engines.base import Fingerprint, Progress, Prompt, Sampling, Watch
from autolambda.engines.workers.batches import Update, WorkBatch
from autolambda.engines.workers.worker import UPDATE_SECONDS, Opened, Worker
from autolambda.errors import EngineError
from autolambda.merging.method import Method
from autolambda.responses import Response
from autolambda.schedule import Schedule

SAMPLING = Sampling(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, presence_penalty=0.0, stop=(), max_tokens=8)
HALF, WHOLE = Method.linear(Schedule.uniform(0.5)), Method.linear(Schedule.uniform(1.0))


class Stepping:
    """Prompt i of a batch takes i + 1 tokens, and each step waits for ``go``. Keeps a record of its calls."""

    streams, in_words = False, "by hand"

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.threads: set[int] = set()
        self.go = threading.Semaphore(0)
        self.error: Exception | None = None

    def set_merge(self, method: Method) -> None:
        self.threads.add(threading.get_ident())
        self.calls.append(method)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        self.threads.add(threading.get_ident())
        self.calls.append(len(prompts))
        assert watch
        for step in range(1, len(prompts) + 1):
            self.go.acquire()
            if self.error:
                raise self.error
            ended = [Response("x", i + 1, "stop") if i < step else None for i in range(len(prompts))]
            if not watch(Progress([min(i + 1, step) for i in range(len(prompts))], ended)):
                return [each or Response("", step, "aborted") for each in ended]
        return [each for each in ended if each]

    def fingerprint(self) -> Fingerprint:
        return Fingerprint(str(self.calls[-1]), whole=False)

    def close(self) -> None:
        self.calls.append("closed")


def batch(number: int, num: int, method: Method = HALF) -> WorkBatch:
    prompts = tuple(Prompt("p", seed) for seed in range(num))
    return WorkBatch(number, tuple(range(num)), prompts, method, SAMPLING)


@pytest.fixture
def engine() -> Stepping:
    return Stepping()


@pytest.fixture
def worker(engine: Stepping) -> Iterator[Worker]:
    worker = Worker(lambda: engine)
    yield worker
    engine.go.release(1000)
    worker.close()


def until(updates: Iterator[Update], is_met: Callable[[Update], object]) -> Update:
    """The next update that meets a condition."""
    return next(update for update in updates if is_met(update))


def test_an_update_says_what_is_new(worker, engine):
    updates = worker.work(batch(1, 3))
    assert next(updates) == Update([], {})
    engine.go.release(2)
    finished = {}
    while len(finished) < 2:
        update = next(updates)
        assert not finished.keys() & update.finished.keys()  # each is told once
        finished |= update.finished
    assert finished == {0: Response("x", 1, "stop"), 1: Response("x", 2, "stop")}
    assert update.num_tokens == [1, 2, 2] and not update.is_last
    engine.go.release(1)
    assert until(updates, lambda update: update.is_last) == Update([1, 2, 3], {2: Response("x", 3, "stop")}, True)
    assert list(updates) == []


def test_updates_come_though_the_engine_does_not_get_on(worker):
    start = time.monotonic()
    updates = worker.work(batch(1, 1))
    assert [next(updates).is_last for _ in range(3)] == [False] * 3
    assert time.monotonic() - start == pytest.approx(2 * UPDATE_SECONDS, abs=0.4)


def test_an_engine_merges_only_what_it_does_not_hold(worker, engine):
    engine.go.release(100)
    for number, method in enumerate((HALF, HALF, WHOLE, HALF), start=1):
        assert list(worker.work(batch(number, 1, method)))[-1].is_last
    assert engine.calls == [HALF, 1, 1, WHOLE, 1, HALF, 1]
    assert worker.fingerprint(WHOLE).digest == str(WHOLE)


def test_one_thread_opens_the_engine_and_uses_it(engine):
    opened_in = []
    worker = Worker(lambda: opened_in.append(threading.get_ident()) or engine)
    assert worker.open() == Opened("by hand", False)
    engine.go.release(10)
    list(worker.work(batch(1, 2)))
    worker.close()
    assert engine.threads == {*opened_in} and threading.get_ident() not in engine.threads
    assert engine.calls[-1] == "closed"


def test_an_aborted_batch_ends_as_it_is(worker, engine):
    updates = worker.work(batch(2, 4))
    worker.abort(1)  # another batch
    engine.go.release(1)
    assert until(updates, lambda update: update.finished).num_tokens == [1, 1, 1, 1]
    worker.abort(2)
    engine.go.release(1)
    last = until(updates, lambda update: update.is_last)
    assert [last.finished[i].finish_reason for i in (1, 2, 3)] == ["stop", "aborted", "aborted"]
    assert last.num_tokens == [1, 2, 2, 2]


def test_an_abort_that_overtakes_its_batch_holds(worker, engine):
    worker.abort(1)
    assert list(worker.work(batch(1, 4)))[-1] == Update([], {}, True)
    assert engine.calls == [HALF]


@pytest.mark.parametrize("error", [EngineError("no memory; lower it"), KeyError("x")])
def test_an_engine_that_fails_is_closed_and_another_is_opened(error):
    engines = [Stepping(), Stepping()]
    left = iter(engines)
    worker = Worker(lambda: next(left))
    engines[0].error = error
    for engine in engines:
        engine.go.release(10)
    with pytest.raises(type(error)):
        list(worker.work(batch(1, 1)))
    assert list(worker.work(batch(2, 1)))[-1].is_last
    assert engines[0].calls == [HALF, 1, "closed"] and engines[1].calls == [HALF, 1]
    worker.close()


def test_opening_again_aborts_what_ran_before(worker, engine):
    """As a driver does that lost its connection for a moment."""
    updates = worker.work(batch(1, 4))
    next(updates)
    engine.go.release(4)
    assert worker.open() == Opened("by hand", False)
    assert until(updates, lambda update: update.is_last).finished[3].finish_reason == "aborted"
