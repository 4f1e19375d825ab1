"""The baselines by name, and those of a config: checked before anything is generated, measured at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import get_args

from autolambda.config import BaselineName, Config
from autolambda.driver.baselines.acm import AcmBaseline
from autolambda.driver.baselines.base import Baseline, Beside
from autolambda.driver.baselines.cap import CapBaseline
from autolambda.driver.baselines.merges import MergedBaseline
from autolambda.driver.baselines.sweep import SweepBaseline
from autolambda.driver.job import Job
from autolambda.driver.run import Run
from autolambda.merging.method import BaselineMethod

BASELINES: Mapping[BaselineName, Baseline] = {
    **{name: MergedBaseline(name) for name in get_args(BaselineMethod)},
    "acm": AcmBaseline(),
    "sweep": SweepBaseline(),
    "cut": CapBaseline(),
}


def check_baselines(job: Job) -> None:
    """Checks that the baselines of the config can be made. Raises like ``Baseline.check``."""
    for name in _chosen(job.config):
        BASELINES[name].check(job)


def measure_baselines(run: Run, beside: Beside) -> bool:
    """Measures the baselines of the config, and returns whether there are any. Raises like ``Evaluator.run``."""
    chosen = list(_chosen(run.job.config))
    for name in chosen:
        BASELINES[name].measure(run, beside)
    return bool(chosen)


def _chosen(config: Config) -> Iterator[BaselineName]:
    """Yields the baselines of the config, and last the cap, which is one by default."""
    yield from (name for name in config.search.baselines if name != "cut")
    if config.wants_cap:
        yield "cut"
