"""Several workers on a real Ray cluster: what a search promises, whatever is killed in the middle."""

from __future__ import annotations

import os
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
from deadly import Deadly, refuse
from paths import HELPERS
from small_search import NAME, database, finished, finished_storage, small_config, storage_in

from autolambda.driver.engine import open_engine
from autolambda.driver.job import Job, open_job
from autolambda.driver.search import search
from autolambda.engines.base import Progress, Prompt, Sampling
from autolambda.engines.workers import cluster as cluster_module
from autolambda.engines.workers import dispatcher as dispatcher_module
from autolambda.engines.workers.batches import CallState, WorkBatch
from autolambda.engines.workers.cluster import Share
from autolambda.engines.workers.engine import WorkersEngine
from autolambda.engines.workers.handle import WorkerHandle
from autolambda.errors import ConfigError, EngineError
from autolambda.merging.method import Method
from autolambda.responses import Response
from autolambda.schedule import Schedule

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")
cluster_utils = pytest.importorskip("ray.cluster_utils")

pytestmark = [pytest.mark.usefixtures("one_thread")]

HALF = Method.linear(Schedule.uniform(0.5))
OTHER = Method.linear(Schedule.by_module(attention=0.4, ffn=0.7))
NUM = 96


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Nodes with four cores in all; a node without one holds what Ray itself needs."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # of Ray's own, which leaves sockets and files to the collector
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else all of it takes minutes on a busy machine
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HELPERS), os.environ.get("PYTHONPATH", "")]))
        started = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        for num_cpus in (1, 1, 2):
            started.add_node(num_cpus=num_cpus)
        yield started
        ray.shutdown()
        started.shutdown()


@dataclass
class Asked:
    """Prompts, and what one engine answers under two merges."""

    prompts: list[Prompt]
    sampling: Sampling
    answers: dict[Method, list[Response]]


@pytest.fixture(scope="module")
def asked() -> Asked:
    one = open_job(small_config(engine__batch_size=256, tasks=[{"name": "arithmetic", "limit": NUM, "repeats": 1}]))
    prompts = [Prompt(one.models.chat.render(sample), seed) for seed, sample in enumerate(one.search[0].samples)]
    asked = Asked(prompts, one.models.sampling, {})
    with closing(open_engine(one)) as engine:
        for method in (OTHER, HALF):
            engine.set_merge(method)
            asked.answers[method] = engine.generate(prompts, asked.sampling)
    return asked


@pytest.fixture(scope="module")
def notes() -> list[str]:
    return []


@pytest.fixture(scope="module")
def two(cluster: Any, notes: list[str]) -> Iterator[WorkersEngine]:
    """An engine with two workers that both answer, for one test after the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", cluster.address)
        engine = opened(open_job(small_config(engine__workers=2, engine__batch_size=256)), notes)
    yield engine
    engine.close()
    assert not ray.is_initialized()  # it has left the cluster


@pytest.fixture(autouse=True)
def no_notes(notes: list[str]) -> None:
    notes.clear()


def opened(job: Job, notes: list[str]) -> WorkersEngine:
    engine = open_engine(job, on_note=notes.append)
    assert isinstance(engine, WorkersEngine)
    return engine


def busy(engine: WorkersEngine) -> WorkerHandle:
    """A worker that has work left."""
    return next(worker for worker in engine._dispatcher.workers if worker.batch and not worker.is_silent)


def process_of(worker: WorkerHandle) -> psutil.Process:
    return psutil.Process(ray.get(worker.actor.address.remote()).pid)


def once(act: Callable[[], None], *, after: int) -> Callable[[Progress], bool]:
    """A watcher that acts when it sees that so many have finished."""
    done = []

    def watch(progress: Progress) -> bool:
        if sum(each is not None for each in progress.responses) >= after and not done:
            done.append(act())
        return True

    return watch


def until_back(engine: WorkersEngine, asked: Asked, *, num_workers: int = 2) -> None:
    """Goes on until all workers answer, and once more."""
    engine.set_merge(HALF)
    deadline = time.monotonic() + 60
    while engine._dispatcher.num_usable < num_workers:
        assert time.monotonic() < deadline
        assert engine.generate(asked.prompts[:32], asked.sampling) == asked.answers[HALF][:32]
        time.sleep(0.1)
    assert engine.generate(asked.prompts, asked.sampling) == asked.answers[HALF]


def test_the_responses_are_those_of_one_engine(two, asked):
    """Under every merge, also if calls are told ahead and workers run ahead of them."""
    assert two.in_words == "2 workers, each transformers on cpu, float32"
    fingerprints = set()
    for method in (HALF, OTHER):
        two.set_merge(method)
        two.expect(asked.prompts, asked.sampling)
        parts = [two.generate(asked.prompts[i : i + 32], asked.sampling) for i in range(0, NUM, 32)]
        assert [each for part in parts for each in part] == asked.answers[method]
        fingerprints.add(two.fingerprint())
    assert len(fingerprints) == 2


def test_responses_come_while_others_run_and_an_abort_ends_those(two, asked):
    looks: list[Progress] = []

    def watch(progress: Progress) -> bool:
        looks.append(progress)
        return not any(progress.responses)

    two.set_merge(HALF)
    two.expect(asked.prompts, asked.sampling)
    answers = two.generate(asked.prompts[:64], asked.sampling, watch=watch)
    assert len(answers) == 64 and None in looks[-1].responses
    whole = [each.finish_reason != "aborted" for each in answers]
    assert 0 < sum(whole) < 64
    for i in range(64):
        if whole[i]:
            assert answers[i] == asked.answers[HALF][i]
        else:
            assert asked.answers[HALF][i].text.startswith(answers[i].text)
    assert two.generate(asked.prompts, asked.sampling) == asked.answers[HALF]


def test_a_worker_that_is_suspended_in_mid_trial_is_not_waited_for(two, asked, notes, monkeypatch):
    monkeypatch.setattr(dispatcher_module, "SILENT_SECONDS", 2.0)
    suspended: list[psutil.Process] = []

    def suspend() -> None:
        suspended.append(process_of(busy(two)))
        suspended[0].suspend()

    two.set_merge(HALF)
    assert two.generate(asked.prompts, asked.sampling, watch=once(suspend, after=NUM // 4)) == asked.answers[HALF]
    assert len(notes) == 1 and notes[0].endswith("does not answer; others do its work")
    two.set_merge(OTHER)  # goes on without it
    assert two.generate(asked.prompts, asked.sampling) == asked.answers[OTHER]
    assert two._dispatcher.num_usable == 1 and len(notes) == 1
    suspended[0].resume()
    until_back(two, asked)
    assert notes[1:] == [notes[0].replace("does not answer; others do its work", "answers again")]


@pytest.mark.slow
def test_a_node_that_is_removed_is_not_waited_for(two, cluster, asked):
    """A node for each worker, of which one goes; what comes in its place is used."""
    nodes = [cluster.add_node(num_cpus=3) for _ in range(2)]
    with closing(by_hand(num_cpus=3)) as engine:
        watch = once(lambda: cluster.remove_node(nodes[0], allow_graceful=False), after=0)
        prompts = [Prompt("wait", i) for i in range(8)]
        assert len(engine.generate(prompts, asked.sampling, watch=watch)) == 8
        assert engine._dispatcher.num_usable == 1
        cluster.add_node(num_cpus=3)
        while engine._dispatcher.num_usable < 2:
            engine.generate([Prompt("x", 0)], asked.sampling)


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_search_ends_with_a_verdict_and_stores_each_response_once(
    two, asked, notes, tmp_path, monkeypatch, is_killed
):
    """Also if a worker is killed in the middle of a trial; Ray starts it again."""
    give = WorkerHandle.give

    def give_and_kill(worker: WorkerHandle, batch: WorkBatch, call: CallState) -> None:
        give(worker, batch, call)
        given.append(worker)
        if len(given) == 6 and is_killed:
            process_of(worker).kill()

    given: list[WorkerHandle] = []
    monkeypatch.setattr(WorkerHandle, "give", give_and_kill)
    report = search(small_config(), name=NAME, storage=storage_in(tmp_path), engine=two)
    assert report.verdict is not None and len(given) > 6
    if is_killed:
        reason = "is lost: its process or its machine is gone"
        assert len(notes) == 1 and re.match(rf"worker \d on \S+ {reason}", notes[0])
        until_back(two, asked)
    finished()
    found, one = database(storage_in(tmp_path)), database(finished_storage())
    assert len(found["trials"]) == len(one["trials"]) == 6
    counts = Counter(row[:4] for row in found["responses"])  # evaluation, task, sample, repeat
    assert set(counts.values()) == {1}
    for number, kind, _, _, num_responses in found["evaluations"]:
        assert kind == "trial" or sum(key[0] == number for key in counts) == num_responses
    mine, others = texts_of(found), texts_of(one)
    both = mine.keys() & others.keys()
    assert len(both) >= 32 and all(mine[key] == others[key] for key in both)


def texts_of(found: dict[str, list[Any]]) -> dict[tuple[object, ...], bytes]:
    """The text of each response that was not stopped, by kind, schedule, task, sample and repeat."""
    evaluations = {number: (kind, schedule) for number, kind, _, schedule, _ in found["evaluations"]}
    return {(*evaluations[row[0]], *row[1:4]): row[4] for row in found["responses"] if row[6] != "aborted"}


def by_hand(opening: Callable[[], Any] = Deadly, *, num_workers: int = 2, num_cpus: int = 1) -> WorkersEngine:
    return WorkersEngine(opening, num_workers=num_workers, share=Share(0, num_cpus), batch_size=None)


@pytest.mark.parametrize(
    ("text", "reason"), [("die", "its process or its machine is gone"), ("fail", "out of luck; try again")]
)
def test_prompts_that_end_one_worker_after_the_other_end_the_engine(two, asked, text, reason):
    with closing(by_hand()) as engine:
        assert engine.streams  # as the engines in it
        engine.set_merge(HALF)
        assert [each.text for each in engine.generate(asked.prompts, asked.sampling)] == [p.text for p in asked.prompts]
        with pytest.raises(EngineError, match="3 workers failed over the same prompts; the last, worker .*" + reason):
            engine.generate([Prompt(text, 1)], asked.sampling)


def test_workers_with_different_weights_are_found(two):
    with closing(by_hand()) as engine, pytest.raises(EngineError, match="the workers hold 2 different merges"):
        engine.fingerprint()  # by hand it is the process


def test_a_suspended_worker_ends_with_the_engine(two, monkeypatch):
    monkeypatch.setattr("autolambda.engines.workers.engine.CLOSE_SECONDS", 1.0)
    engine = by_hand()
    process = process_of(engine._dispatcher.workers[0])
    process.suspend()
    engine.close()
    process.wait(timeout=30)


def test_what_is_wrong_on_another_machine_names_it(two, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "where-the-driver-runs")
    with pytest.raises(ConfigError, match=r"^worker \d on \S+: models.instruct: no such folder '/data/x'$"):
        by_hand(refuse)


def test_a_wait_for_cores_that_other_work_holds_is_told(two, monkeypatch):
    monkeypatch.setattr(cluster_module, "NOTE_SECONDS", 1.0)
    monkeypatch.setattr(cluster_module, "START_SECONDS", 2.0)
    notes: list[str] = []
    with pytest.raises(ConfigError, match=r"engine.workers: [012] of 4 workers started within 2 seconds; other work"):
        WorkersEngine(Deadly, num_workers=4, share=Share(0, 1), batch_size=None, on_note=notes.append)
    assert len(notes) == 1 and re.match(r"waiting for [234] workers: other work holds their CPUs", notes[0])


def test_more_workers_than_the_machines_hold_are_refused(two):
    reason = r"64 workers with 1 CPU each are asked for, and the \d machines .* have (\d+) CPUs; set it to \1 at most"
    with pytest.raises(ConfigError, match=reason):
        by_hand(num_workers=64)
