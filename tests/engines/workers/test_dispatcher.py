"""The dispatcher with workers that the test plays: whatever happens to them, each prompt is answered once."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence

import pytest

from autolambda.engines.base import Prompt, Sampling
from autolambda.engines.workers import dispatcher as module
from autolambda.engines.workers.batches import CallState, Update, WorkBatch
from autolambda.engines.workers.dispatcher import MAX_DEATHS, Dispatcher
from autolambda.engines.workers.handle import Failure, WorkerHandle
from autolambda.engines.workers.worker import Opened
from autolambda.errors import EngineError
from autolambda.merging.method import Method
from autolambda.responses import Response
from autolambda.schedule import Schedule

SAMPLING = Sampling(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, presence_penalty=0.0, stop=(), max_tokens=200)
LOST = Failure("its process or its machine is gone", is_lost=True)
FINAL = Failure("its process ended for good", is_lost=True, is_final=True)
OUT_OF_LUCK = Failure("out of luck; try again")


class Played(WorkerHandle):
    """A worker whose answers the test puts in ``replies``. Its batch is generated token by token."""

    def __init__(self, number: int) -> None:
        super().__init__(number, None)
        self.host, self.is_open = "here", True
        self.replies: deque[Opened | Update | Failure] = deque()
        self.given: list[WorkBatch] = []
        self.aborted: list[int] = []
        self.num_opened = 0
        self.seconds = 0.0

    @property
    def silent_seconds(self) -> float:
        return self.seconds

    def open(self) -> None:
        self.is_open, self.num_opened = False, self.num_opened + 1

    def give(self, batch: WorkBatch, call: CallState) -> None:
        self.batch, self.call = batch, call
        self.given.append(batch)

    def abort(self) -> None:
        if self.batch:
            self.aborted.append(self.batch.number)

    def receive(self) -> Opened | Update | Failure:
        self.seconds = 0.0
        return self.replies.popleft()

    def finish(self) -> None:
        """Answers its whole batch."""
        assert self.batch
        self.replies.append(finished(self.batch, range(len(self.batch.places)), is_last=True))


def finished(batch: WorkBatch, positions: Sequence[int], *, is_last: bool = False) -> Update:
    """An update in which these prompts of a batch have finished, each with a text that names batch and prompt."""
    ended = {i: Response(f"{batch.number} {batch.prompts[i].text}", 5, "stop") for i in positions}
    return Update([5] * len(batch.prompts), ended, is_last)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[Played]:
    monkeypatch.setattr(module, "replied", lambda workers: [worker for worker in workers if worker.replies])
    return [Played(0), Played(1)]


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def dispatcher(workers: list[Played], notes: list[str]) -> Dispatcher:
    return Dispatcher(workers, batch_size=16, on_note=notes.append)


def started(dispatcher: Dispatcher, num: int) -> CallState:
    call = CallState([Prompt(str(i), i) for i in range(num)], Method.linear(Schedule.uniform(0.5)), SAMPLING)
    dispatcher.start(call)
    dispatcher.step()
    return call


def texts(call: CallState) -> list[str]:
    return [response.text.split()[1] if response else "" for response in call.responses]


def test_idle_workers_get_the_first_batches(dispatcher, workers):
    call = started(dispatcher, 64)
    assert [worker.batch.places for worker in workers] == [tuple(range(16)), tuple(range(16, 32))]
    workers[1].finish()
    dispatcher.step()
    dispatcher.step()
    assert workers[1].batch.places == tuple(range(32, 48)) and workers[0].batch.places == tuple(range(16))
    while None in call.responses:
        for worker in workers:
            if worker.batch:
                worker.finish()
        dispatcher.step()
    assert texts(call) == [str(i) for i in range(64)]


def test_the_work_of_a_lost_worker_is_done_by_others(dispatcher, workers, notes):
    call = started(dispatcher, 32)
    first, other = workers
    first.replies += [finished(first.batch, [0, 1, 3]), LOST]
    dispatcher.step()
    dispatcher.step()
    assert notes == ["worker 1 on here is lost: its process or its machine is gone"]
    assert first.num_opened == 1 and dispatcher.num_usable == 1
    other.finish()
    dispatcher.step()
    dispatcher.step()
    assert other.batch.places == tuple(range(2, 16))  # the first two are kept
    other.finish()
    first.replies.append(Opened("", False))
    dispatcher.step()
    assert texts(call) == [str(i) for i in range(32)] and dispatcher.num_usable == 2
    assert [call.responses[i].text.split()[0] for i in (0, 1, 2, 3)] == ["1", "1", "3", "3"]


def test_a_silent_worker_is_not_waited_for(dispatcher, workers, notes):
    call = started(dispatcher, 32)
    silent, other = workers
    late = finished(silent.batch, range(16), is_last=False)
    silent.seconds = module.SILENT_SECONDS + 1
    other.finish()
    dispatcher.step()
    dispatcher.step()
    assert other.batch.places == tuple(range(16)) and dispatcher.num_usable == 1
    silent.replies.append(late)
    dispatcher.step()
    assert silent.aborted == [1] and call.responses[:16] == [None] * 16  # another worker's by now
    silent.replies.append(Update([], {}, is_last=True))
    other.finish()
    dispatcher.step()
    assert texts(call) == [str(i) for i in range(32)] and dispatcher.num_usable == 2
    assert notes == [
        "worker 1 on here does not answer; others do its work",
        "worker 1 on here answers again",
    ]


@pytest.mark.parametrize("failure", [LOST, OUT_OF_LUCK])
def test_prompts_are_blamed_after_several_deaths(dispatcher, workers, failure):
    started(dispatcher, 4)
    first, other = workers
    for _ in range(MAX_DEATHS - 1):
        worker = first if first.batch else other
        worker.replies.append(failure)
        dispatcher.step()
        worker.is_open = True
        dispatcher.step()
    (first if first.batch else other).replies.append(failure)
    reason = f"3 workers failed over the same prompts; the last, worker 1: {failure.reason}"
    with pytest.raises(EngineError, match=reason):
        dispatcher.step()


def test_a_worker_that_does_not_open_again_is_left_out(dispatcher, workers, notes):
    started(dispatcher, 32)
    workers[0].replies += [LOST, Failure("no such folder", is_input=True)]
    dispatcher.step()
    dispatcher.step()
    assert notes[1] == "worker 1 on here is left out: no such folder" and workers[0].is_gone
    workers[1].replies.append(FINAL)
    with pytest.raises(EngineError, match="all workers are lost, and Ray does not start them again"):
        dispatcher.step()


def test_without_any_worker_that_answers_the_engine_fails(dispatcher, workers, monkeypatch):
    monkeypatch.setattr(module, "GONE_SECONDS", 0.0)
    started(dispatcher, 32)
    for worker in workers:
        worker.seconds = module.SILENT_SECONDS + 1
    with pytest.raises(EngineError, match="none of the 2 workers has answered for 0 seconds"):
        dispatcher.step()


def test_a_call_that_is_stopped_ends_as_it_is(dispatcher, workers):
    call = started(dispatcher, 64)
    dispatcher.stop()
    assert [worker.aborted for worker in workers] == [[1], [2]] and dispatcher.is_running(call)
    aborted = Response("x", 3, "aborted")
    workers[0].replies.append(Update([3] * 16, dict.fromkeys(range(16), aborted), is_last=True))
    workers[1].replies += [Update([4] * 16, {}), LOST]
    while dispatcher.is_running(call):
        dispatcher.step()
    assert call.responses[:16] == [aborted] * 16 and call.responses[16:] == [None] * 48
    assert call.num_tokens == [3] * 16 + [4] * 16 + [0] * 32
    dispatcher.step()
    assert not any(worker.batch for worker in workers)  # nobody does the rest


def test_a_stopped_call_does_not_wait_for_a_silent_worker(dispatcher, workers):
    call = started(dispatcher, 32)
    dispatcher.stop()
    workers[0].finish()
    workers[1].seconds = module.SILENT_SECONDS + 1
    dispatcher.step()
    assert not dispatcher.is_running(call)


@pytest.mark.parametrize("seed", range(40))
def test_each_prompt_is_answered_once_whatever_happens(dispatcher, workers, seed, monkeypatch):
    monkeypatch.setattr(module, "MAX_DEATHS", 1000)
    chance = random.Random(seed)
    workers.extend(Played(i) for i in range(2, 4))
    dispatcher._batch_size = chance.choice([16, None])
    call = started(dispatcher, 100)
    seen: dict[int, Response] = {}
    for step in range(10_000):
        if None not in call.responses:
            break
        for worker in workers:
            if not worker.is_open:
                worker.replies.append(Opened("", False))
            elif worker.batch and chance.random() < 0.7:
                act_by_chance(worker, chance, step)
        dispatcher.step()
        first = next((i for i, response in enumerate(call.responses) if response is None), 100)
        for place in range(first):  # what a caller may have stored never changes
            assert seen.setdefault(place, call.responses[place]) == call.responses[place]
    assert texts(call) == [str(i) for i in range(100)]


def act_by_chance(worker: Played, chance: random.Random, step: int) -> None:
    """Some prompts finish; or the batch ends, fails, is lost, or its worker is silent for a while."""
    event = chance.choice(["some", "some", "all", "lost", "failed", "silent"])
    if event == "silent":
        worker.seconds = module.SILENT_SECONDS + 1
    elif event == "some":
        some = [i for i in range(len(worker.batch.places)) if chance.random() < 0.5]
        worker.replies.append(finished(worker.batch, some))
    elif event == "all":
        worker.finish()
    else:
        worker.replies.append(LOST if event == "lost" else OUT_OF_LUCK)
