"""One stage for each schedule in every table: by the confirmation if there is one, else by the estimate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from autolambda.report.results import ScheduleResult, stage


def with_stages(
    results: Sequence[ScheduleResult], *, known: Iterable[Sequence[ScheduleResult]]
) -> tuple[ScheduleResult, ...]:
    """Returns the results with the stage of their trial in the last of the ``known`` results that has it."""
    stages = {each.trial: stage(each.measured) for some in known for each in some}
    return tuple(replace(each, known_stage=stages.get(each.trial)) for each in results)
