"""Two workers beside one on the bundled pair, and the driver's share of the work with many simulated workers.

``pair`` alternates one engine in this process with two Ray workers on the same prompts; tokens a second, and a second
of all their processes' CPU time, which other work on the machine does not change. ``driver`` has workers that sleep and
answer with texts as long as a reasoning model's, through the real evaluation: streamed, graded, stored in SQLite.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import psutil
import ray

from autolambda.config_file import load_config
from autolambda.driver.engine import EngineSupervisor, open_engine
from autolambda.driver.evaluation import EvaluationRequest, Evaluator
from autolambda.driver.job import open_job
from autolambda.engines.base import Engine, Progress, Prompt, Sampling, Watch
from autolambda.engines.chat import ChatFormat
from autolambda.engines.workers.cluster import Share
from autolambda.engines.workers.engine import WorkersEngine
from autolambda.graders.service import GradingService
from autolambda.merging.method import Method
from autolambda.responses import Response, Sample
from autolambda.schedule import Schedule
from autolambda.study.store import Store
from autolambda.tasks.base import Slice

KEYS = ("tokens_a_second", "tokens_a_cpu_second", "cores")
SCHEDULE = Schedule.uniform(0.8)


def cpu_seconds(pids: Sequence[int]) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(each.user + each.system for each in times)


def pids_of(engine: Engine) -> list[int]:
    """The processes of an engine's workers, and this one."""
    workers = engine._dispatcher.workers if isinstance(engine, WorkersEngine) else []
    return [os.getpid(), *(found.pid for found in ray.get([worker.actor.address.remote() for worker in workers]))]


def pair(repeats: int, num_prompts: int) -> None:
    config = load_config(None, overrides={}, settings=["tasks=[{name: arithmetic, limit: 256}]"])
    jobs = [
        open_job(config.model_copy(update={"engine": config.engine.model_copy(update={"workers": n})})) for n in (1, 2)
    ]
    samples = jobs[0].search[0].samples
    render = jobs[0].models.chat.render
    prompts = [
        Prompt(render(sample), i) for i, sample in zip(range(num_prompts), itertools.cycle(samples), strict=False)
    ]
    rows: dict[int, list[tuple[float, float, float]]] = {1: [], 2: []}
    with closing(open_engine(jobs[0])) as one, closing(open_engine(jobs[1])) as two:
        assert isinstance(two, WorkersEngine)
        for repeat in range(repeats + 1):
            for number, engine in ((1, one), (2, two)):
                pids = pids_of(engine)
                wall, cpu = time.perf_counter(), cpu_seconds(pids)
                engine.set_merge(Method.linear(SCHEDULE))
                if number == 2:
                    two.expect(prompts, jobs[0].models.sampling)
                num_tokens = 0
                for start in range(0, num_prompts, 256):
                    responses = engine.generate(prompts[start : start + 256], jobs[0].models.sampling)
                    num_tokens += sum(response.num_tokens for response in responses)
                wall, cpu = time.perf_counter() - wall, cpu_seconds(pids) - cpu
                if repeat:  # the first warms up
                    rows[number].append((num_tokens / wall, num_tokens / cpu, cpu / wall))
    found = {
        number: {
            key: round(statistics.median(column), 2)
            for key, column in zip(KEYS, zip(*values, strict=True), strict=True)
        }
        for number, values in rows.items()
    }  # fmt: skip
    ratios = sorted(second[0] / first[0] for first, second in zip(rows[1], rows[2], strict=True))
    print(json.dumps({"medians": found, "ratios": [round(ratio, 2) for ratio in ratios],
                      "ratio": round(statistics.median(ratios), 2), "load": os.getloadavg()}))  # fmt: skip


@dataclass
class Sleeping:
    """Finishes its prompts evenly over so many seconds, each with a text as long as a chain of thought."""

    seconds: float
    num_tokens: int
    streams: bool = True
    in_words: str = "asleep"

    def set_merge(self, method: Method) -> None:
        pass

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        assert watch is not None
        chance = random.Random(prompts[0].seed)
        words = [f"{chance.getrandbits(20):x} " for _ in range(4000)]
        lengths = [max(1, round(chance.lognormvariate(0, 0.6) * self.num_tokens)) for _ in prompts]
        start, done = time.monotonic(), list[Response | None]([None] * len(prompts))
        for row, length in enumerate(lengths):
            time.sleep(max(0.0, start + self.seconds * (row + 1) / len(prompts) - time.monotonic()))
            text = "".join(chance.choices(words, k=length * 4 // 6)) + "</think>\n\\boxed{7}"
            done[row] = Response(text, length, "stop")
            running = min(1.0, (time.monotonic() - start) / max(self.seconds, 1e-9))
            watch(
                Progress(
                    [each.num_tokens if each else round(running * n) for each, n in zip(done, lengths, strict=True)],
                    done,
                )
            )
        return [response for response in done if response]

    def fingerprint(self) -> str:
        return ""

    def close(self) -> None:
        pass


class Plain:
    def apply_chat_template(self, messages: Sequence[dict[str, str]], **_: object) -> str:
        return messages[-1]["content"]


def driver(num_workers: int, rate: float, num_tokens: int, seconds: float, grader: str) -> None:
    ray.init(address="local", num_cpus=num_workers, include_dashboard=False, log_to_driver=False)
    per_worker = round(rate * seconds)
    samples = tuple(
        Sample(f"s{i}", ({"role": "user", "content": f"What is {i}? " * 40},), "7")
        for i in range(num_workers * per_worker)
    )
    slices = (Slice("task", grader, samples, 1),)
    sampling = Sampling(1.0, 1.0, 0, 0.0, 0.0, (), 32_768)
    engine = WorkersEngine(
        lambda: Sleeping(seconds, num_tokens), num_workers=num_workers, share=Share(0, 1),
        batch_size=None,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, closing(Store(f"sqlite:///{folder}/study.db")) as store:
        store.create_study("s", config={}, identity={})
        grading = GradingService()
        grading.start({grader})
        for key in ("warm-up", "measured"):
            part = slices if key == "measured" else (replace(slices[0], samples=samples[:num_workers]),)
            job: Any = SimpleNamespace(
                search=part,
                confirm=part,
                batch_size=None,
                models=SimpleNamespace(chat=ChatFormat(Plain(), "", {}, "</think>"), sampling=sampling),
                config=SimpleNamespace(search=SimpleNamespace(seed=0)),
            )
            evaluator = Evaluator(
                job,
                EngineSupervisor(job, engine, print),
                store,
                grading,
                study="s",
                on_event=lambda event: None,
                on_merge=lambda schedule, engine: None,
            )
            request = EvaluationRequest(key, "trial", key, SCHEDULE, max_tokens=1e12)
            wall, cpu = time.perf_counter(), cpu_seconds([os.getpid()])
            graded = evaluator.run(request)
            wall, cpu = time.perf_counter() - wall, cpu_seconds([os.getpid()]) - cpu
        grading.close()
        size = os.path.getsize(f"{folder}/study.db")
    print(json.dumps({
        "workers": num_workers, "responses": len(graded), "tokens": num_tokens, "grader": grader,
        "seconds": round(wall, 1),
        "responses_a_second": round(len(graded) / wall, 1),
        "driver_cores": round(cpu / wall, 3),
        "driver_ms_a_response": round(1e3 * cpu / len(graded), 2),
        "database_mb": round(size / 1e6, 1),
        "load": os.getloadavg()[0],
    }))  # fmt: skip
    engine.close()
    ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    two = kinds.add_parser("pair")
    two.add_argument("--repeats", type=int, default=5)
    two.add_argument("--prompts", type=int, default=512)
    many = kinds.add_parser("driver")
    many.add_argument("--workers", type=int, default=32)
    many.add_argument("--rate", type=float, default=2.0, help="responses a second a worker")
    many.add_argument("--tokens", type=int, default=4000, help="tokens of a response, on average")
    many.add_argument("--seconds", type=float, default=30.0)
    many.add_argument("--grader", default="number")
    arguments = parser.parse_args()
    if arguments.kind == "pair":
        pair(arguments.repeats, arguments.prompts)
    else:
        driver(arguments.workers, arguments.rate, arguments.tokens, arguments.seconds, arguments.grader)


if __name__ == "__main__":
    main()
