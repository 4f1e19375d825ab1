"""Reads the report of a stored study."""

from __future__ import annotations

from autolambda.errors import ConfigError
from autolambda.report.report import Report, build_report
from autolambda.study.reader import open_for_reading


def read_report(name: str, storage: str | None, budget: float | None) -> Report:
    """Returns the report for ``budget`` (mean tokens per response), by default the study's own budget.

    Raises ``StudyError`` if the study or its first trial is missing, ``ConfigError`` for a budget that is not positive.
    """
    with open_for_reading(name, storage, with_texts=False) as reader:
        wanted = reader.config.budget if budget is None else positive_budget(budget)
        return build_report(reader.store, reader.study, budget=wanted)


def positive_budget(budget: float) -> float:
    """Returns the budget unchanged. Raises ``ConfigError`` unless it is a positive number."""
    if not 0 < budget < float("inf"):
        raise ConfigError(f"budget: a positive number of tokens, seen {budget:g}")
    return budget
