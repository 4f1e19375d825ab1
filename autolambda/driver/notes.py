"""Notes of a run for its watcher, as sentences: the plan, warnings, the end of the search."""

from __future__ import annotations

from autolambda.driver.events import Noted, OnEvent
from autolambda.driver.job import Job
from autolambda.merging.difference.values import ParentDifference
from autolambda.optimizer.propose import Stop
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.space import ENDS
from autolambda.report.sentences import slack_sentence
from autolambda.schedule import Schedule
from autolambda.statistics.metrics import Measured
from autolambda.study.connection import shown_storage
from autolambda.study.measured import MeasuredSchedules

MOSTLY = 0.9  # share of a task's responses without an answer that triggers a note about its grader
PARENTS = dict(zip(("instruct", "thinking"), ENDS, strict=True))


class RunNotes:
    """Notes to the watcher that depend on earlier notes; each is sent once."""

    def __init__(self, job: Job, on_event: OnEvent) -> None:
        self._job, self._on_event = job, on_event
        self._parent_tokens: dict[str, float] = {}
        self._questioned: set[str] = set()

    def warn(self, difference: ParentDifference | None) -> None:
        """Sends the warnings about the pair and the tasks, and whether rounding to nearest would distort merges."""
        distorted = difference.sentences() if difference and difference.distorts else ()
        for warning in (*self._job.models.pair.warnings, *self._job.warnings, *distorted):
            self._on_event(Noted(warning))

    def introduce(self, study: str, storage: str, measured: MeasuredSchedules) -> None:
        """Sends the plan, and where results are stored."""
        config, num_trials = self._job.config, measured.observations.num_trials
        num_search, num_confirm = (
            sum(len(part.samples) for part in slices) for slices in (self._job.search, self._job.confirm)
        )
        plan = (
            f"up to {config.search.trials} trials on up to {num_search} prompts, "
            f"then up to {config.confirm.finalists} finalists on up to {num_confirm} others"
        )
        progress = f"; {num_trials} trials done so far" if num_trials else ""
        self._on_event(Noted(f"study {study}: {plan}{progress} ({shown_storage(storage)})"))
        for result in measured.all:
            self.check_budget(result.schedule, result.measured.mean_tokens.value)

    def check_budget(self, schedule: Schedule, mean_tokens: float) -> None:
        """Sends a note if the budget is above the mean tokens of both measured parents."""
        config = self._job.config
        parent = next((name for name, end in PARENTS.items() if end == schedule), None)
        if parent is None or config.budget is None:
            return
        self._parent_tokens[parent] = mean_tokens
        if sentence := slack_sentence(config.budget, self._parent_tokens, bundled=config.models.bundled):
            self._on_event(Noted(str(sentence)))

    def check_graders(self, measured: Measured | None) -> None:
        """Sends a note, once per task, if its grader finds no answer in nearly all responses."""
        for part in self._job.search:
            task = measured.tasks.get(part.task) if measured else None
            if task and task.unparsed_ratio.value > MOSTLY and part.task not in self._questioned:
                self._questioned.add(part.task)
                share = f"{task.unparsed_ratio.value:.0%}"
                self._on_event(
                    Noted(f"task '{part.task}': grader '{part.grader}' finds no answer in {share} of the responses")
                )


def stop_sentence(stop: Stop, settings: SearchSettings) -> str:
    """Returns why the search is over."""
    if stop.reason == "trials":
        return f"the search is over: {settings.trials} trials are done (search.trials)"
    if stop.reason == "tokens":
        return "the search is over: its share of the tokens is spent (search.max_tokens_generated)"
    if stop.reason == "spaces":
        return "the search is over: no schedule is left that was not tried (search.spaces)"
    assert stop.gain is not None
    return (
        f"the search is over: all that is still unknown is expected to be worth {100 * stop.gain:.2f} points of "
        f"accuracy, less than {100 * settings.min_gain:g} (search.min_gain)"
    )
