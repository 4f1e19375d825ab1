"""Logs a study as TensorBoard event files under studies/NAME/tensorboard, with its report beside them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from autolambda.report.report import Report
from autolambda.tracking.base import Tracked, answer_of


class TensorboardTracker:
    """Implements ``tracking.base.Tracker``. Each run writes a folder of its own, which holds the whole study so far."""

    def __init__(self, study: str) -> None:
        self.folder = Path("studies", study, "tensorboard", datetime.now().strftime("%Y%m%d-%H%M%S-%f"))
        self._writer = SummaryWriter(str(self.folder))

    def log(self, evaluation: Tracked) -> None:
        for name, value in evaluation.metrics.items():
            self._writer.add_scalar(f"{evaluation.kind}/{name}", value, evaluation.number)
        for name, value in evaluation.params.items():
            self._writer.add_scalar(f"{evaluation.kind}/schedule/{name}", value, evaluation.number)
        self._writer.flush()

    def finish(self, report: Report, files: Mapping[str, Path]) -> None:
        rows = [f"| {name} | {value} |" for name, value in answer_of(report).items()]
        self._writer.add_text("answer", "\n".join(["| | |", "|---|---|", *rows]))
        for name, path in files.items():
            shutil.copy(path, self.folder / name)

    def close(self) -> None:
        self._writer.close()
