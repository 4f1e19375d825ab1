"""vLLM's engine core as a process of its own, as on a GPU: it says why it failed, and it ends with its driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
from paths import HELPERS, ROOT
from vllm_engines import needs_vllm, opened

from autolambda.merging.method import Method
from tests.engines.test_contract import GREEDY, MIXED, prompts

pytestmark = [needs_vllm, pytest.mark.usefixtures("one_thread")]

ON_A_GPU = "01"  # vLLM on a CPU reads 1 as: the workers are processes too; on a GPU only several ranks are
WITH_WORKERS = "1"


@pytest.mark.parametrize(
    ("processes", "arguments"),
    [
        (ON_A_GPU, {}),
        pytest.param(WITH_WORKERS, {}, marks=pytest.mark.slow),
        pytest.param(WITH_WORKERS, {"tensor_parallel_size": 2}, marks=pytest.mark.slow),
    ],
)
def test_an_engine_in_processes_of_its_own(parents, processes, arguments):
    """It fails in one line, generates what an engine in this process does, and ends when its driver is killed."""
    with opened(*parents) as engine:
        engine.set_merge(Method.linear(MIXED))
        expected = [response.text for response in engine.generate(prompts(20), GREEDY)]
    with start_driver(parents, processes, arguments) as driver:
        failed, responses, begun = driver.stdout.readline(), driver.stdout.readline(), descendants(driver)
        driver.kill()
        _, alive = psutil.wait_procs(begun, timeout=5)
        for process in alive:
            process.kill()
        said = driver.stderr.read()
    assert "cache blocks" in json.loads(failed), said
    assert json.loads(failed).startswith("vLLM failed while starting: No available memory for the cache blocks")
    assert "; lower sampling.max_tokens, or give more by" in json.loads(failed) and "Traceback" not in said
    assert json.loads(responses) == expected
    assert begun and not alive


def start_driver(parents: tuple[Path, Path], processes: str, arguments: Mapping[str, int]) -> subprocess.Popen[str]:
    environment = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(HELPERS)]),
        "VLLM_ENABLE_V1_MULTIPROCESSING": processes,
        "VLLM_CPU_OMP_THREADS_BIND": "|".join(map(str, range(arguments.get("tensor_parallel_size", 1)))),
    }
    command = [sys.executable, "-W", "ignore", str(HELPERS / "vllm_driver.py"), *map(str, parents)]
    return subprocess.Popen(
        [*command, json.dumps(arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def descendants(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(driver.pid).children(recursive=True)
