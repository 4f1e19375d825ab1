"""Sends the events of a search to the trackers of ``search.callbacks`` as well.

A tracker that fails is left out from then on, with one note: nothing that it does may cost the study anything.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from autolambda.config import Config, TrackerName
from autolambda.driver.events import EvaluationEnded, Event, Noted, OnEvent, Opened
from autolambda.errors import ConfigError, reason
from autolambda.report.json_csv import report_json
from autolambda.report.report import Report
from autolambda.tracking.base import Tracker, tracked


class Tracking:
    """Receives the events of one search, as an ``OnEvent``, and passes them on."""

    def __init__(self, names: tuple[TrackerName, ...], study: str, on_event: OnEvent) -> None:
        self._on_event, self._number = on_event, 0
        self._trackers: dict[str, Tracker] = {}
        for name in names:
            with self._kept(name):
                self._trackers[name] = _open(name, study)

    def __call__(self, event: Event) -> None:
        self._on_event(event)
        if isinstance(event, Opened):
            for each in event.earlier:
                self._log(each)
        elif isinstance(event, EvaluationEnded):
            self._log(event)

    def finish(self, report: Report, page: Callable[[], str]) -> None:
        """Logs the answer, with the ``page`` and the JSON of the report as files."""
        if not self._trackers:
            return
        with TemporaryDirectory() as folder:
            files = {"report.html": page(), "report.json": report_json(report)}
            paths: Mapping[str, Path] = {name: Path(folder, name) for name in files}
            for name, path in paths.items():
                path.write_text(files[name], encoding="utf-8")
            for name, tracker in list(self._trackers.items()):
                with self._kept(name):
                    tracker.finish(report, paths)

    def close(self) -> None:
        """Ends the runs of the trackers."""
        for name, tracker in list(self._trackers.items()):
            with self._kept(name):
                tracker.close()

    def _log(self, event: EvaluationEnded) -> None:
        self._number += 1
        if found := tracked(event, self._number):
            for name, tracker in list(self._trackers.items()):
                with self._kept(name):
                    tracker.log(found)

    @contextmanager
    def _kept(self, name: str) -> Iterator[None]:
        """Leaves a tracker out if the block fails, with a note."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they would break the display
                yield
        except Exception as error:  # a library may raise anything
            self._trackers.pop(name, None)
            said = reason(error, with_type=True)
            self._on_event(Noted(f"{name} failed ({said}); the search goes on without it, and nothing stored is lost"))


@contextmanager
def tracking(config: Config, *, study: str, on_event: OnEvent) -> Iterator[Tracking]:
    """Yields what takes the events of a search. Raises ``ConfigError`` if a tracker of the config is not installed."""
    check_installed(config.search.callbacks)
    found = Tracking(config.search.callbacks, study, on_event)
    try:
        yield found
    finally:
        found.close()


def check_installed(names: tuple[TrackerName, ...]) -> None:
    """Raises ``ConfigError`` with the command that installs what is missing."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"search.callbacks: {' and '.join(missing)} not installed; "
            f"run: pip install 'autolambda[{','.join(missing)}]'"
        )


def _open(name: TrackerName, study: str) -> Tracker:
    """Opens a tracker. The imports are here, because each library is optional and slow to load."""
    if name == "mlflow":
        from autolambda.tracking.mlflow import MlflowTracker

        return MlflowTracker(study)
    if name == "wandb":
        from autolambda.tracking.wandb import WandbTracker

        return WandbTracker(study)
    from autolambda.tracking.tensorboard import TensorboardTracker

    return TensorboardTracker(study)
