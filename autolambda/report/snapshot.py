"""A snapshot of a study for figures and pages: the report, its trials, the outcome of each response.

All of it is read at once. The texts of responses stay in the database, because they can take gigabytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pandas
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from autolambda.bundled import FOLDER
from autolambda.config import Config
from autolambda.files import load_json
from autolambda.report.dataframes import history, outcomes_frame
from autolambda.report.read import build_report
from autolambda.report.report import UNFINISHED, Report
from autolambda.study.store import Store
from autolambda.study.timing import EngineTime, engine_time
from autolambda.study.trials import Study


@dataclass(frozen=True)
class StudySnapshot:
    """A study at one moment.

    ``trials`` has the columns of ``dataframes.history``, ``outcomes`` the columns of ``dataframes.OUTCOMES``.
    ``num_layers`` is ``None`` if the models are not on this machine. ``measured_at`` is when the last trial ended.
    ``seconds`` are engine seconds a response, where known: of the pick (its name) and of both parents. ``engine_time``
    is that of all calls.
    """

    report: Report
    trials: pandas.DataFrame
    outcomes: pandas.DataFrame
    num_layers: int | None
    measured_at: datetime | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    engine_time: EngineTime = field(default_factory=EngineTime)

    @property
    def is_running(self) -> bool:
        """Whether the search goes on, or none of its results is confirmed yet."""
        return self.report.stop_reason == UNFINISHED or not self.report.confirmed

    @property
    def reference_tokens(self) -> float:
        """The reference of the hypervolume: the mean tokens of the longest measured schedule."""
        return _reference(self.report)


def load_snapshot(store: Store, study: Study, *, budget: float | None) -> StudySnapshot:
    """Returns the snapshot of a running or finished study. Raises ``StudyError`` before the first complete trial."""
    ended = study.ended()  # read first: in a running study, the later reads cover these trials
    report = build_report(store, study, budget=budget)
    outcomes = outcomes_frame(store.outcomes(study.name))
    config, reference = report.config, _reference(report)
    trials = history(ended, outcomes, weights=config.weights, reference_tokens=reference, spaces=config.search.spaces)
    measured_at = max((each.at for each in ended if each.at), default=None)
    layers = num_layers_of(config)
    return StudySnapshot(report, trials, outcomes, layers, measured_at, _seconds(study, report), engine_time(study))


def _seconds(study: Study, report: Report) -> dict[str, float]:
    """Returns the engine seconds a response of the pick and of both parents, as far as they were kept."""
    found = {}
    for each in (report.best, *report.parents.values()):
        if each and each.confirmed:
            own = study.seconds_of("parent", each.parent) if each.parent else None
            seconds = own or study.seconds_of("confirm", each.schedule.key)
            if seconds:
                found[each.name] = seconds / each.measured.num_responses
    return found


def num_layers_of(config: Config) -> int | None:
    """Returns the Thinking model's number of layers; ``None`` without its ``config.json`` on this machine.

    Downloads nothing. A file without a usable number counts as missing: only labels of layers depend on it.
    """
    path = _model_config(config.models.thinking)
    if path is None:
        return None
    try:
        model = load_json(path.read_bytes())
    except (OSError, ValueError):  # it cannot be read, or is not JSON
        return None
    value = model.get("num_hidden_layers") if isinstance(model, dict) else None
    return value if type(value) is int and value > 0 else None


def _model_config(source: str | None) -> Path | None:
    """Returns ``config.json`` of a folder, of a model in the hub's cache, or without a source of the bundled model."""
    path = FOLDER / "thinking" / "config.json" if source is None else Path(source) / "config.json"
    if source is None or path.is_file():
        return path
    try:
        cached = try_to_load_from_cache(source, "config.json")
    except HFValidationError:  # the path of a folder that is gone
        return None
    return Path(cached) if isinstance(cached, str) else None


def _reference(report: Report) -> float:
    return max(result.score.mean_tokens for result in report.trials)
