"""Logs a study to Weights & Biases: a run with a step for each evaluation, its answer as the summary, its report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import wandb

from autolambda.report.report import Report
from autolambda.tracking.base import Tracked, answer_of

PROJECT = "autolambda"


class WandbTracker:
    """Implements ``tracking.base.Tracker``. Without a login the run is kept offline, for ``wandb sync``."""

    def __init__(self, study: str) -> None:
        settings = wandb.Settings(silent=True, console="off")
        has_login = wandb.setup().settings.mode != "online" or wandb.login(prompt=False)
        mode: Literal["offline"] | None = None if has_login else "offline"  # else it would ask on the terminal
        self._run = wandb.init(name=study, group=study, project=_project(), mode=mode, settings=settings)
        self._columns = ("name", "kind", "schedule", "accuracy", "mean_tokens", "think_ratio")
        self._rows: list[Iterable[str | float]] = []

    def log(self, evaluation: Tracked) -> None:
        metrics = {f"{evaluation.kind}/{name}": value for name, value in evaluation.metrics.items()}
        schedule = ", ".join(f"{name} {value:g}" for name, value in evaluation.params.items())
        numbers = [evaluation.metrics[name] for name in self._columns[3:]]
        self._rows.append([evaluation.name, evaluation.kind, schedule, *numbers])
        params = {f"schedule/{name}": value for name, value in evaluation.params.items()}
        self._run.log({"number": evaluation.number, **metrics, **params})

    def finish(self, report: Report, files: Mapping[str, Path]) -> None:
        self._run.log({"evaluations": wandb.Table(columns=list(self._columns), data=self._rows)})
        self._run.summary.update(answer_of(report))
        artifact = wandb.Artifact(f"{self._run.name}-report", type="report")
        for name, path in files.items():
            artifact.add_file(str(path), name=name)
        self._run.log_artifact(artifact)

    def close(self) -> None:
        self._run.finish()


def _project() -> str:
    return wandb.setup().settings.project or PROJECT
