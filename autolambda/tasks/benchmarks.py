"""The benchmarks by name: each file's one value."""

from __future__ import annotations

from collections.abc import Mapping

from autolambda.tasks import aime24, aime25, gpqa_diamond, gsm8k, ifeval, math500
from autolambda.tasks.base import Benchmark

BENCHMARKS: Mapping[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK for module in (gsm8k, math500, aime24, aime25, gpqa_diamond, ifeval)
}
