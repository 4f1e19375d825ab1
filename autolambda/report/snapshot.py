"""What figures and pages are drawn from: a report with the history of its trials and the outcomes of all responses.

Everything comes from the database in one look; the texts of responses stay there, for they can be gigabytes.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas
from huggingface_hub import try_to_load_from_cache

from autolambda.bundled import FOLDER
from autolambda.config import Config
from autolambda.report.dataframes import history, outcomes_frame
from autolambda.report.report import UNFINISHED, Report, build_report
from autolambda.study.store import Store
from autolambda.study.trials import Study


@dataclass(frozen=True)
class StudySnapshot:
    """A study as it is at one moment.

    ``trials`` has the columns of ``history.HISTORY``, ``outcomes`` those of ``history.OUTCOMES``. ``num_layers`` is
    ``None`` where the models are not at hand.
    """

    report: Report
    trials: pandas.DataFrame
    outcomes: pandas.DataFrame
    num_layers: int | None

    @property
    def is_running(self) -> bool:
        """Whether the search is not over, or what it found is not confirmed yet."""
        return self.report.stop_reason == UNFINISHED or not self.report.confirmed

    @property
    def reference_tokens(self) -> float:
        """The mean tokens up to which a front's hypervolume looks: those of the longest measured schedule."""
        return _reference(self.report)


def load_snapshot(store: Store, study: Study, *, budget: float | None) -> StudySnapshot:
    """The snapshot of a study, running or done. Raises ``StudyError`` before its first trial is done."""
    ended = study.ended()  # first: while a study runs, what is read later holds all that this tells of
    with _without_collection():
        report = build_report(store, study, budget=budget)
        outcomes = outcomes_frame(store.outcomes(study.name))
    trials = history(ended, outcomes, weights=report.config.weights, reference_tokens=_reference(report))
    return StudySnapshot(report, trials, outcomes, num_layers_of(report.config))


@contextmanager
def _without_collection() -> Iterator[None]:
    """Responses by the hundred thousand are read and all stay: looking for garbage among them takes a sixth more."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def num_layers_of(config: Config) -> int | None:
    """The layers of the Thinking model, where its ``config.json`` lies on this machine."""
    source = config.models.thinking
    path = FOLDER / "thinking" / "config.json" if source is None else Path(source) / "config.json"
    try:
        if source is not None and not path.is_file():
            cached = try_to_load_from_cache(source, "config.json")
            path = Path(cached) if isinstance(cached, str) else path
        value = json.loads(path.read_text(encoding="utf-8"))["num_hidden_layers"]
    except (OSError, ValueError, KeyError, TypeError):  # ValueError: no JSON, or a folder's name as a hub id
        return None
    return value if type(value) is int and value > 0 else None


def _reference(report: Report) -> float:
    return max(result.score.mean_tokens for result in report.trials)
