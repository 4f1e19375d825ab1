"""An exported folder in vLLM, in a process of its own: the greedy responses of the engine that was evaluated."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from small_search import small_config
from vllm_engines import fresh_vllm, needs_vllm

from autolambda.driver.engine import open_engine
from autolambda.driver.job import open_job
from autolambda.engines.base import Prompt
from autolambda.export.export import export
from autolambda.merging.method import Method
from autolambda.schedule import Profile, Schedule

pytestmark = pytest.mark.usefixtures("one_thread")

SCHEDULE = Schedule.by_depth_and_module(Profile((0.4, 0.9)), Profile((0.7,)))


@needs_vllm
def test_vllm_serves_what_was_evaluated(tmp_path: Path) -> None:
    job = open_job(small_config(engine__dtype="float32"))
    prompts = [Prompt(job.models.chat.render(sample), 0) for sample in job.search[0].samples]
    greedy = replace(job.models.sampling, temperature=0.0)
    with closing(open_engine(job)) as engine:
        engine.set_merge(Method.linear(SCHEDULE))
        evaluated = engine.generate(prompts, greedy)
    out = tmp_path / "out"
    export(job.models, SCHEDULE, out, max_shard_size=400_000)
    served = fresh_vllm(out, out, path="stream", schedule=Schedule.uniform(0.0), prompts=prompts, sampling=greedy)
    assert served.responses == evaluated and len({response.text for response in evaluated}) > 4
