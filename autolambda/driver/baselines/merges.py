"""The baselines that merge by another method: task arithmetic and TIES around a base model, and SLERP."""

from __future__ import annotations

from dataclasses import dataclass

from autolambda.config import BaselineName
from autolambda.driver.baselines.base import Beside, measure_baseline
from autolambda.driver.job import Job
from autolambda.driver.models import base_folder
from autolambda.driver.run import Run
from autolambda.errors import ConfigError
from autolambda.merging.merge import Merge, check_in_place, open_merge
from autolambda.merging.method import AROUND_BASE, BaselineMethod, Method
from autolambda.schedule import Schedule


@dataclass(frozen=True)
class MergedBaseline:
    """Implements ``base.Baseline`` by a merge method. SLERP takes the mean lambda of the last finalist."""

    name: BaselineMethod

    def check(self, job: Job) -> None:
        """Opens and reads the base model, if the method needs one.

        Raises like ``base_for`` and ``open_around_base``. Raises ``ConfigError`` if only one of base and parents has a
        tied lm_head.
        """
        if self.name in AROUND_BASE:
            check_in_place(open_around_base(job, baseline_method(job, self.name, lam=1.0)))

    def measure(self, run: Run, beside: Beside) -> None:
        """Measures the missing responses. Raises like ``Evaluator.run``."""
        schedule = Schedule.uniform(round(beside.finalist.other, 4))
        key = f"slerp at lambda {schedule.other:g}" if self.name == "slerp" else self.name
        merge = baseline_method(run.job, self.name, lam=schedule.other)
        measure_baseline(run, key, schedule, num_responses=beside.num_responses, merge=merge)


def open_around_base(job: Job, method: Method) -> Merge:
    """Returns a merge around the base model, whose values are all read.

    Raises ``PairError`` if the base does not fit, and ``CheckpointError`` if it is broken.
    """
    merge = open_merge(job.models.pair, method)
    assert merge.base is not None
    merge.base.digest()  # reads every value
    return merge


def baseline_method(job: Job, name: BaselineMethod, *, lam: float) -> Method:
    """Returns the merge of a baseline; ``lam`` is for SLERP. Raises ``ConfigError`` if a base is missing."""
    if name == "slerp":
        return Method("slerp", Schedule.uniform(lam))
    return Method(name, base=base_for(job, name))


def base_for(job: Job, name: BaselineName) -> str:
    """Returns the base model that a baseline needs. Raises ``ConfigError`` if there is none."""
    source = base_folder(job.config.models)
    if source is None:
        raise ConfigError(f"models.base: {name} needs the base model of both parents; set it, or leave {name} out")
    return source
