"""Logs a study to MLflow: an experiment with its name, a run for each evaluation, and a run with the answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunStatus

from autolambda.report.report import Report
from autolambda.tracking.base import Tracked, answer_of

_KEY = "autolambda.key"  # a tag: evaluations that an earlier run logged are not logged again


class MlflowTracker:
    """Implements ``tracking.base.Tracker``. The server or folder is MLflow's own setting (MLFLOW_TRACKING_URI)."""

    def __init__(self, study: str) -> None:
        self._client = MlflowClient()
        found = self._client.get_experiment_by_name(study)
        self._experiment = found.experiment_id if found else self._client.create_experiment(study)
        self._logged: set[str | None] = set()
        token: str | None = ""
        while token is not None:
            page = self._client.search_runs([self._experiment], max_results=1000, page_token=token or None)
            self._logged |= {run.data.tags.get(_KEY) for run in page}
            token = page.token or None

    def log(self, evaluation: Tracked) -> None:
        key = f"{evaluation.kind} {evaluation.name} {evaluation.metrics['num_responses']:g}"
        if key not in self._logged:
            params = {name: f"{value:g}" for name, value in evaluation.params.items()}
            self._run(evaluation.name, {_KEY: key, "kind": evaluation.kind}, params, evaluation.metrics, {})
            self._logged.add(key)

    def finish(self, report: Report, files: Mapping[str, Path]) -> None:
        answer = answer_of(report)
        numbers = {name: value for name, value in answer.items() if not isinstance(value, str)}
        words = {name: value for name, value in answer.items() if isinstance(value, str)}
        self._run("answer", {"kind": "answer"}, words, numbers, files)

    def close(self) -> None:
        """Does nothing: each run is ended where it is logged."""

    def _run(
        self,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        metrics: Mapping[str, float],
        files: Mapping[str, Path],
    ) -> None:
        run = self._client.create_run(self._experiment, run_name=name, tags=dict(tags)).info.run_id
        now = int(1000 * time.time())
        self._client.log_batch(
            run,
            metrics=[Metric(key, float(value), now, 0) for key, value in metrics.items()],
            params=[Param(key, value) for key, value in params.items()],
        )
        for path in files.values():
            self._client.log_artifact(run, str(path))
        self._client.set_terminated(run, RunStatus.to_string(RunStatus.FINISHED))
