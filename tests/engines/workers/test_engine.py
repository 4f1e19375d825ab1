"""Several workers on a real Ray cluster of two nodes: the answers of one engine, whatever is killed in the middle."""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from deadly import Deadly, refuse
from paths import HELPERS, ROOT
from postgres import free_port
from small_search import BUDGET, NAME, database, finished, finished_storage, small_config, storage_in

from autolambda.bundled import FOLDER
from autolambda.driver.engine import open_engine
from autolambda.driver.job import Job, open_job
from autolambda.driver.search import search
from autolambda.engines.base import Progress, Prompt, Sampling
from autolambda.engines.workers import dispatcher as crew
from autolambda.engines.workers.cluster import Share
from autolambda.engines.workers.engine import WorkersEngine
from autolambda.errors import ConfigError, EngineError
from autolambda.merging.method import Method
from autolambda.responses import Response
from autolambda.schedule import Schedule

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")
cluster_utils = pytest.importorskip("ray.cluster_utils")

pytestmark = [pytest.mark.usefixtures("one_thread")]

COMMAND = [sys.executable, "-W", "ignore", "-c", "from autolambda.cli.main import main; main()"]
HALF, OTHER = Schedule.uniform(0.5), Schedule.by_module(attention=0.4, ffn=0.7)
AROUND = Method("task_arithmetic", base=str(FOLDER / "base"))
NUM = 96


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with a core each; a node without one holds what Ray itself needs."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # of Ray's own, which leaves sockets and files to the collector
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HELPERS), os.environ.get("PYTHONPATH", "")]))
        started = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        for _ in range(2):
            started.add_node(num_cpus=1)
        yield started
        ray.shutdown()
        started.shutdown()


@pytest.fixture
def joined(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The cluster, as ``RAY_ADDRESS`` names it."""
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    return cluster


@dataclass
class Asked:
    """Prompts, what one engine answers under two schedules and a method, and what it asks of a watcher."""

    prompts: list[Prompt]
    sampling: Sampling
    answers: dict[Schedule | Method, list[Response]] = field(default_factory=dict)
    looks: list[Progress] = field(default_factory=list)


@pytest.fixture(scope="module")
def asked() -> Asked:
    one = open_job(small_config(engine__batch_size=256, tasks=[{"name": "arithmetic", "limit": NUM}]))
    prompts = [Prompt(one.models.chat.render(sample), seed) for seed, sample in enumerate(one.search[0].samples)]
    asked = Asked(prompts, one.models.sampling)
    with closing(open_engine(one)) as engine:
        engine.set_merge(AROUND)
        asked.answers[AROUND] = engine.generate(prompts, asked.sampling)
        for schedule in (OTHER, HALF):
            engine.set_merge(Method.linear(schedule))
            asked.looks.clear()
            asked.answers[schedule] = engine.generate(
                prompts, asked.sampling, watch=lambda progress: asked.looks.append(progress) is None
            )
    return asked


def opened(job: Job, notes: list[str]) -> WorkersEngine:
    engine = open_engine(job, on_note=notes.append)
    assert isinstance(engine, WorkersEngine)
    return engine


def busy(engine: WorkersEngine) -> Any:
    """A worker that has work left."""
    return next(member for member in engine._crew.members if member.piece and not member.is_silent)


def process_of(member: Any) -> psutil.Process:
    return psutil.Process(ray.get(member.actor.place.remote()).pid)


def once(act: Callable[[], None], *, after: int) -> Callable[[Progress], bool]:
    """A watcher that acts when it sees that so many have finished."""
    done = []

    def watch(progress: Progress) -> bool:
        if sum(each is not None for each in progress.responses) >= after and not done:
            done.append(act())
        return True

    return watch


def test_a_node_that_is_removed_is_not_waited_for(joined, asked):
    """A worker a node, and a third node that goes; what comes in its place is used."""
    node = joined.add_node(num_cpus=1)
    notes: list[str] = []
    job = open_job(small_config(engine__workers=3, engine__batch_size=256))
    with closing(opened(job, notes)) as engine:
        engine.set_merge(Method.linear(HALF))
        watch = once(lambda: joined.remove_node(node, allow_graceful=False), after=NUM // 4)
        assert engine.generate(asked.prompts, asked.sampling, watch=watch) == asked.answers[HALF]
        engine.set_merge(Method.linear(OTHER))
        assert engine.generate(asked.prompts, asked.sampling) == asked.answers[OTHER]
        assert engine._crew.num_usable == 2 and "is lost" in notes[0]
        joined.add_node(num_cpus=1)
        until_back(engine, asked, num_workers=3)


@pytest.fixture(scope="module")
def notes() -> list[str]:
    return []


@pytest.fixture(scope="module")
def two(cluster: Any, notes: list[str]) -> Iterator[WorkersEngine]:
    """An engine with two workers that both answer, for one test after the other."""
    cluster.add_node(num_cpus=2)  # for the engines that a test opens beside it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", cluster.address)
        engine = opened(open_job(small_config(engine__workers=2, engine__batch_size=256)), notes)
    yield engine
    engine.close()
    assert not ray.is_initialized()  # it has left the cluster


@pytest.fixture(autouse=True)
def no_notes(notes: list[str]) -> None:
    notes.clear()


def until_back(engine: WorkersEngine, asked: Asked, *, num_workers: int = 2) -> None:
    """Goes on until all workers answer, and once more."""
    engine.set_merge(Method.linear(HALF))
    deadline = time.monotonic() + 60
    while engine._crew.num_usable < num_workers:
        assert time.monotonic() < deadline
        assert engine.generate(asked.prompts[:32], asked.sampling) == asked.answers[HALF][:32]
        time.sleep(0.1)
    assert engine.generate(asked.prompts, asked.sampling) == asked.answers[HALF]


def test_another_method_is_merged_in_place_by_every_worker(two, asked):
    two.set_merge(AROUND)
    assert two.generate(asked.prompts, asked.sampling) == asked.answers[AROUND]
    two.set_merge(Method.linear(HALF))
    assert two.generate(asked.prompts, asked.sampling) == asked.answers[HALF]


def test_a_watcher_is_asked_what_one_engine_asks(two, asked):
    looks: list[Progress] = []
    assert two.in_words == "2 workers, each transformers on cpu, float32"
    two.set_merge(Method.linear(HALF))
    answers = two.generate(asked.prompts, asked.sampling, watch=lambda each: looks.append(each) is None)
    assert answers == asked.answers[HALF]
    assert list(map(seen, looks)) == list(map(seen, asked.looks))
    one = two.fingerprint()
    two.set_merge(Method.linear(OTHER))
    assert two.generate(asked.prompts, asked.sampling) == asked.answers[OTHER]
    assert two.fingerprint() != one and one.whole


def seen(progress: Progress) -> tuple[object, object]:
    return list(progress.num_tokens), list(progress.responses)


@pytest.mark.parametrize("most_tokens", [300, 1000, 2000])
def test_an_abort_leaves_what_one_engine_leaves(two, asked, most_tokens):
    """With batches that run ahead of it."""
    found = []
    with closing(open_engine(open_job(small_config()))) as one:
        for engine in (one, two):
            engine.set_merge(Method.linear(HALF))
            if engine is two:
                two.expect(asked.prompts, asked.sampling)
            left, answers = most_tokens, []
            for start in range(0, NUM, 32):
                batch = asked.prompts[start : start + 32]
                watch = functools.partial(lambda left, progress: sum(progress.num_tokens) <= left, left)
                answers += engine.generate(batch, asked.sampling, watch=watch)
                left = most_tokens - sum(each.num_tokens for each in answers)
                if any(each.finish_reason == "aborted" for each in answers):
                    break
            found.append(answers)
    assert found[0] == found[1]
    assert "aborted" in {each.finish_reason for each in found[0]}


def test_a_worker_that_is_killed_in_mid_trial_is_replaced(two, asked, notes):
    two.set_merge(Method.linear(HALF))
    watch = once(lambda: process_of(busy(two)).kill(), after=NUM // 4)
    assert two.generate(asked.prompts, asked.sampling, watch=watch) == asked.answers[HALF]
    assert len(notes) == 1 and re.match(r"worker \d on \S+ is lost: its process or its machine is gone", notes[0])
    until_back(two, asked)


def test_a_worker_that_is_suspended_in_mid_trial_is_not_waited_for(two, asked, notes, monkeypatch):
    monkeypatch.setattr(crew, "SILENT_SECONDS", 2.0)
    suspended: list[psutil.Process] = []

    def suspend() -> None:
        suspended.append(process_of(busy(two)))
        suspended[0].suspend()

    two.set_merge(Method.linear(HALF))
    assert two.generate(asked.prompts, asked.sampling, watch=once(suspend, after=NUM // 4)) == asked.answers[HALF]
    assert len(notes) == 1 and notes[0].endswith("does not answer; others do its work")
    two.set_merge(Method.linear(OTHER))  # goes on without it
    assert two.generate(asked.prompts, asked.sampling) == asked.answers[OTHER]
    assert two._crew.num_usable == 1 and len(notes) == 1
    suspended[0].resume()
    until_back(two, asked)
    assert notes[1:] == [notes[0].replace("does not answer; others do its work", "answers again")]


def test_an_abort_does_not_wait_for_a_worker_that_is_suspended(two, asked, monkeypatch):
    """What it had is generated again up to where it ends."""
    monkeypatch.setattr(crew, "SILENT_SECONDS", 2.0)
    suspended: list[psutil.Process] = []

    def stop(progress: Progress) -> bool:
        if max(progress.num_tokens) < 20:
            return True
        if not suspended:
            suspended.append(process_of(busy(two)))
            suspended[0].suspend()
        return False

    two.set_merge(Method.linear(HALF))
    answers = two.generate(asked.prompts, asked.sampling, watch=stop)
    suspended[0].resume()
    until_back(two, asked)
    with closing(open_engine(open_job(small_config()))) as one:
        one.set_merge(Method.linear(HALF))
        assert answers == one.generate(
            asked.prompts, asked.sampling, watch=lambda progress: max(progress.num_tokens) < 20
        )


def by_hand(opening: Callable[[], Any] = Deadly, notes: list[str] | None = None) -> WorkersEngine:
    return WorkersEngine(
        opening,
        num_workers=2,
        share=Share(num_gpus=0, num_cpus=1),
        decoder=lambda sampling: pytest.fail("nothing to decode"),
        most=None,
        on_note=(notes if notes is not None else []).append,
    )


@pytest.mark.parametrize(
    ("text", "reason"), [("die", "its process or its machine is gone"), ("fail", "out of luck; try again")]
)
def test_prompts_that_end_one_worker_after_the_other_end_the_engine(two, asked, text, reason):
    with closing(by_hand()) as engine:
        engine.set_merge(Method.linear(HALF))
        assert [each.text for each in engine.generate(asked.prompts, asked.sampling)] == [p.text for p in asked.prompts]
        with pytest.raises(EngineError, match="3 workers failed over the same prompts; the last, worker .*" + reason):
            engine.generate([Prompt(text, 1)], asked.sampling)


def test_without_any_worker_that_answers_the_engine_fails(two, asked, monkeypatch):
    monkeypatch.setattr(crew, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(crew, "GONE_SECONDS", 2.0)
    with closing(by_hand()) as engine:
        for member in engine._crew.members:
            process_of(member).suspend()
        with pytest.raises(EngineError, match="none of the 2 workers has answered for 2 seconds"):
            engine.generate(asked.prompts, asked.sampling)


def test_workers_with_different_weights_are_found(two):
    with closing(by_hand()) as engine, pytest.raises(EngineError, match="the workers hold 2 different merges"):
        engine.fingerprint()  # by hand it is the process


def test_a_search_with_two_workers_is_the_search_with_one(two, tmp_path):
    """The same trials, responses and verdict, bit for bit."""
    report = search(small_config(engine__workers=2), name=NAME, storage=storage_in(tmp_path))
    assert report.verdict is not None and finished().verdict == report.verdict
    assert database(storage_in(tmp_path)) == database(finished_storage())


def test_a_suspended_worker_ends_with_the_engine(two):
    engine = by_hand()
    process = process_of(engine._crew.members[0])
    process.suspend()
    engine.close()
    gone(process)


def test_what_is_wrong_on_another_machine_names_it(two, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "where-the-driver-runs")
    with pytest.raises(ConfigError, match=r"^worker \d on \S+: models.instruct: no such folder '/data/x'$"):
        by_hand(refuse)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"RAY_ADDRESS": "127.0.0.1:1"}, r"Ray at '127.0.0.1:1' cannot be used \(.*Connection refused\)"),
        (
            {},
            r"engine.workers: 64 workers with 1 CPU each are asked for, and .* have (\d) CPUs; set it to \1 at most",
        ),
    ],
)
def test_what_cannot_be_is_one_line(cluster, settings, reason, tmp_path):
    done = run_command(tmp_path, "--workers=64", **{"RAY_ADDRESS": cluster.address, **settings})
    assert done.returncode == 2, done.stdout
    assert re.search(rf"^error: .*{reason}.*\n\Z", done.stdout, re.MULTILINE), done.stdout
    assert "Traceback" not in done.stdout and "(raylet)" not in done.stdout


def test_a_cluster_that_is_guarded_by_a_token_is_joined(tmp_path):
    """``ray start`` guards one wherever the home folder holds a token, as a Ray of one's own leaves it there.

    A token is not taken unasked: it would shut out the workers of a cluster without one.
    """
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("0123456789abcdef" * 4)
    at_home = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | {"HOME": str(tmp_path)}
    evaluate = [*COMMAND, "evaluate", "--lambda=0.5", "--workers=2", "--set=tasks=[{name: arithmetic, limit: 8}]"]
    with started_ray(at_home) as address:
        said = [
            subprocess.run(
                evaluate,
                cwd=tmp_path,
                env=at_home | {"RAY_ADDRESS": address} | mode,
                capture_output=True,
                text=True,
                timeout=300,
            )
            for mode in ({"RAY_AUTH_MODE": "token"}, {})
        ]
    assert said[0].returncode == 0 and "accuracy" in said[0].stdout, said[0].stderr
    assert said[1].returncode == 2 and "set RAY_AUTH_MODE=token if the cluster is" in said[1].stderr, said[1].stderr


@contextmanager
def started_ray(environment: dict[str, str]) -> Iterator[str]:
    """The address of a cluster that ``ray start`` made on this machine."""
    port = free_port()
    start = [str(Path(sys.executable).with_name("ray")), "start", "--head", f"--port={port}", "--num-cpus=2", "--block"]
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ray", ignore_cleanup_errors=True) as folder:  # short: sockets
        head = subprocess.Popen(
            [*start, "--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert head.stdout is not None
        try:
            assert any("--block" in line for line in head.stdout), "ray start ended"
            yield f"127.0.0.1:{port}"
        finally:
            head.terminate()  # ends all that it started
            head.communicate()


def test_one_worker_does_without_ray():
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from small_search import small_config\n"
        "from autolambda.schedule import Schedule\n"
        "from autolambda.driver.search import evaluate\n"
        "evaluate(small_config(tasks=[{'name': 'arithmetic', 'limit': 2}]), Schedule.uniform(1.0))\n"
        "assert 'ray' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT)


def start_command(folder: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    """A search of some dozen seconds, by the real command."""
    settings = ["--set=search.trials=40", "--set=sampling.max_tokens=64", "--set=search.min_gain=0"]
    return subprocess.Popen(
        [*COMMAND, "search", f"--budget={BUDGET:g}", *settings, *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | environment,
    )


def run_command(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    process = start_command(folder, *options, **environment)
    try:
        output, _ = process.communicate(timeout=180)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, output)


def gone(*processes: psutil.Process, seconds: float = 30.0) -> None:
    """Waits until none of the processes is there."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    assert not [each for each in alive if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_behind(tmp_path, number):
    """With a Ray of the command's own, which ends with it however it ends."""
    process = start_command(tmp_path, "--workers=2")
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("trial 0"):
            break
    family = psutil.Process(process.pid).children(recursive=True)
    names = [" ".join(each.cmdline()) for each in family]
    assert all(any(part in name for name in names) for part in ("raylet", "gcs_server", "ray::Worker", "Agent"))
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    # Ray's two agents hold nothing, and end by themselves once they have tried for a minute to reach their Ray
    gone(*(each for each, name in zip(family, names, strict=True) if "Agent" not in name or number != signal.SIGKILL))
    if number != signal.SIGKILL:
        assert process.returncode == 130, output
        assert "interrupted; nothing is lost" in output
    shown = "".join(lines) + output
    assert "engine: 2 workers, each transformers on cpu, float32" in shown
    assert "raylet" not in shown and "Traceback" not in shown and "WARNING" not in shown
