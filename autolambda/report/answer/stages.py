"""The stages of a study, and one stage for each schedule in every table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from autolambda.optimizer.space import is_between
from autolambda.report.results import ScheduleResult, stage
from autolambda.statistics.curve import CurvePoint
from autolambda.statistics.stages import Stages, detect_stages


def with_stages(
    results: Sequence[ScheduleResult], *, known: Iterable[Sequence[ScheduleResult]]
) -> tuple[ScheduleResult, ...]:
    """Returns the results with the stage of their trial in the last of the ``known`` results that has it."""
    stages = {each.trial: stage(each.measured) for some in known for each in some}
    return tuple(replace(each, known_stage=stages.get(each.trial)) for each in results)


def stages_of(trials: Sequence[ScheduleResult]) -> Stages:
    """Returns the stages by Think ratios of uniform schedules from one parent to the other.

    The independent unit is a prompt, not a response.
    """
    points = [
        CurvePoint(e.schedule.lam, e.measured.think_ratio.value, e.measured.think_ratio.num_prompts)
        for e in trials
        if is_between(e.schedule.lam)
    ]
    if len({point.lam for point in points}) < 2:
        return Stages(None, None, ("fewer than two uniform lambdas are measured",))
    return detect_stages(points)
