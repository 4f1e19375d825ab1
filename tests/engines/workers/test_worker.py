"""One worker, without Ray: pieces in, news out, whatever its engine does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from autolambda.engines.base import Progress, Prompt, Sampling
from autolambda.engines.workers.batches import WorkBatch
from autolambda.engines.workers.worker import NEWS_SECONDS, REST_SECONDS, Failure, Opened, Worker
from autolambda.errors import ConfigError, EngineError
from autolambda.merging.method import Method
from autolambda.responses import Response
from autolambda.schedule import Schedule

SAMPLING = Sampling(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, presence_penalty=0.0, stop=(), max_tokens=8)
HALF, WHOLE = Method.linear(Schedule.uniform(0.5)), Method.linear(Schedule.uniform(1.0))


class Stepping:
    """Row i of a piece takes i + 1 tokens; a step waits for ``go``. Keeps a record of what it was asked."""

    streams, in_words = False, "by hand"

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.threads: set[int] = set()
        self.go = threading.Semaphore(0)
        self.error: Exception | None = None

    def set_merge(self, method):
        self.threads.add(threading.get_ident())
        self.calls.append(method)

    def generate(self, prompts, sampling, *, watch=None):
        self.threads.add(threading.get_ident())
        self.calls.append(len(prompts))
        tokens: list[list[int]] = [[] for _ in prompts]
        for step in range(1, len(prompts) + 1):
            self.go.acquire()
            if self.error:
                raise self.error
            for row in range(step - 1, len(prompts)):
                tokens[row].append(step)
            ended = [Response("x" * len(t), len(t), "stop") if len(t) < step or i == step - 1 else None
                     for i, t in enumerate(tokens)]  # fmt: skip
            if not watch(Progress([len(each) for each in tokens], ended, tokens)):
                return [each or Response("", step, "aborted") for each in ended]
        return [each for each in ended if each]

    def fingerprint(self):
        return str(self.calls[-1])

    def close(self):
        self.calls.append("closed")


def piece(number: int, num: int, schedule: Method = HALF) -> WorkBatch:
    prompts = tuple(Prompt("p", seed) for seed in range(num))
    return WorkBatch(number, tuple(range(num)), prompts, schedule, SAMPLING)


@pytest.fixture
def engine() -> Stepping:
    return Stepping()


@pytest.fixture
def worker(engine: Stepping) -> Iterator[Worker]:
    worker = Worker(lambda: engine)
    yield worker
    engine.go.release(1000)
    worker.close()


def test_news_are_what_is_new(worker, engine):
    first = worker.work(piece(1, 3))
    assert (first.state, list(first.num_tokens), first.finished) == ("running", [], [])
    engine.go.release(2)
    time.sleep(REST_SECONDS)
    second = worker.news(1, 0)
    assert [each.place for each in second.finished] == [0, 1] and list(second.num_tokens) == [1, 2, 2]
    assert [list(each.tokens) for each in second.finished] == [[1], [1, 2]]
    assert worker.news(1, 1).finished == second.finished[1:]  # an answer that was lost is given again
    engine.go.release(1)
    last = worker.news(1, 2)
    while last.state == "running":
        last = worker.news(1, 2)
    assert last.state == "done" and [each.response for each in last.finished] == [Response("xxx", 3, "stop")]


def test_it_answers_though_its_engine_does_not_get_on(worker):
    start = time.monotonic()
    assert worker.work(piece(1, 1)).state == "running"
    assert worker.news(1, 0).state == "running"
    assert time.monotonic() - start == pytest.approx(2 * NEWS_SECONDS, abs=0.4)


def test_a_schedule_is_merged_where_the_engine_has_another(worker, engine):
    engine.go.release(100)
    for number, schedule in enumerate((HALF, HALF, WHOLE, HALF)):
        assert worker.work(piece(number, 1, schedule)).state == "done"
    assert engine.calls == [HALF, 1, 1, WHOLE, 1, HALF, 1]
    assert worker.fingerprint(WHOLE) == str(WHOLE)


def test_everything_of_the_engine_happens_in_one_thread(engine):
    opened_in = []
    worker = Worker(lambda: opened_in.append(threading.get_ident()) or engine)
    assert worker.open() == Opened("by hand", False)
    engine.go.release(10)
    worker.work(piece(1, 2))
    worker.close()
    assert engine.threads == {*opened_in} and threading.get_ident() not in engine.threads
    assert engine.calls[-1] == "closed"


@pytest.mark.parametrize("number", [1, None])
def test_an_aborted_piece_ends_as_it_is(worker, engine, number):
    worker.work(piece(1, 4))
    worker.abort(0)  # another one
    engine.go.release(1)
    assert worker.news(1, 0).state == "running"
    worker.abort(number)
    engine.go.release(1)
    news = worker.news(1, 1)
    assert (
        news.state == "done" and [each.response.finish_reason for each in news.finished] == ["stop"] + ["aborted"] * 2
    )
    assert [len(each.tokens) for each in news.finished] == [2, 2, 2]


def test_a_piece_that_is_not_known_has_failed(worker, engine):
    assert (worker.news(7, 0).state, worker.news(7, 0).error) == ("failed", "it was started again")
    worker.work(piece(1, 1))
    assert worker.news(7, 0).state == "failed"


@pytest.mark.parametrize(
    ("error", "reason"),
    [(EngineError("no memory; lower it"), "no memory; lower it"), (KeyError("a\nb"), "KeyError: 'a\\nb'")],
)
def test_an_engine_that_fails_is_closed_and_another_is_opened(error, reason):
    engines = [Stepping(), Stepping()]
    left = iter(engines)
    worker = Worker(lambda: next(left))
    engines[0].error = error
    for engine in engines:
        engine.go.release(10)
    assert (worker.work(piece(1, 1)).state, worker.news(1, 0).error) == ("failed", reason)
    assert worker.work(piece(2, 1)).state == "done"
    assert engines[0].calls == [HALF, 1, "closed"] and engines[1].calls == [HALF, 1]
    worker.close()


@pytest.mark.parametrize(("error", "is_input"), [(ConfigError("bad key"), True), (EngineError("bad luck"), False)])
def test_an_engine_that_does_not_open_is_said(error, is_input):
    def opening():
        raise error

    worker = Worker(opening)
    assert worker.open() == Failure(str(error), is_input)
    worker.close()


def test_who_opens_again_has_what_ran_before_dropped(worker, engine):
    """As a driver does that was cut off for a moment."""
    worker.work(piece(1, 4))
    answers = []
    asking = threading.Thread(target=lambda: answers.append(worker.open()))
    asking.start()
    while not worker._task.is_aborted:
        time.sleep(0.01)
    engine.go.release(1)
    asking.join()
    assert answers == [Opened("by hand", False)] and worker.news(1, 0).state == "done"
