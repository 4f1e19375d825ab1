"""Notes of a run for its watcher, as sentences: the plan, warnings, the end of the search."""

from __future__ import annotations

from collections.abc import Sequence

from autolambda.driver.cost import proof_sentence
from autolambda.driver.events import Noted, OnEvent
from autolambda.driver.job import Job
from autolambda.engines.think_tag import tags_in
from autolambda.merging.difference.values import ParentDifference
from autolambda.optimizer.propose import Stop
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.space import parent_of
from autolambda.report.sentences import slack_sentence
from autolambda.responses import Graded
from autolambda.schedule import Schedule
from autolambda.statistics.metrics import Measured
from autolambda.study.connection import shown_storage
from autolambda.study.measured import MeasuredSchedules
from autolambda.tasks.base import Slice

MOSTLY = 0.9  # share of a task's responses without an answer that triggers a note about its grader


class RunNotes:
    """Notes to the watcher that depend on earlier notes; each is sent once."""

    def __init__(self, job: Job, on_event: OnEvent) -> None:
        self._job, self._on_event = job, on_event
        self._parent_tokens: dict[str, float] = {}
        self._questioned: set[str] = set()
        self._is_uncompared = False

    def warn(self, difference: ParentDifference | None) -> None:
        """Sends the warnings about the pair and the tasks, and whether rounding to nearest would distort merges."""
        distorted = difference.sentences() if difference and difference.distorts else ()
        for warning in (*self._job.notes, *distorted):
            self._on_event(Noted(warning))

    def introduce(self, study: str, storage: str, measured: MeasuredSchedules) -> None:
        """Sends the plan, and where results are stored."""
        job, num_trials = self._job, measured.observations.num_trials
        plan = (
            f"up to {job.config.search.trials} trials on up to {_sizes(job.search)}, "
            f"then up to {job.config.confirm.finalists} finalists on others, {_sizes(job.confirm, up_to='up to ')}"
        )
        progress = f"; {num_trials} trials done so far" if num_trials else ""
        self._on_event(Noted(f"study {study}: {plan}{progress} ({shown_storage(storage)})"))
        self._on_event(Noted(proof_sentence(job.search, job.confirm)))
        for result in measured.all:
            self.check_budget(result.schedule, result.measured.mean_tokens.value)

    def check_budget(self, schedule: Schedule, mean_tokens: float) -> None:
        """Sends a note if the budget is above the mean tokens of both measured parents."""
        config = self._job.config
        parent = parent_of(schedule)
        if parent is None or config.budget is None:
            return
        self._parent_tokens[parent] = mean_tokens
        if sentence := slack_sentence(config.budget, self._parent_tokens, bundled=config.models.bundled):
            self._on_event(Noted(str(sentence)))

    def say_uncompared(self) -> None:
        """Sends a note, once, that an export cannot be compared with the weights in this engine."""
        if not self._is_uncompared:
            self._on_event(
                Noted(
                    "this engine holds the weights in another layout than the files, so an export cannot be compared "
                    "with the confirmed weights by SHA-256"
                )
            )
        self._is_uncompared = True

    def check_thinking(self, schedule: Schedule, graded: Sequence[Graded]) -> None:
        """Sends a note if no response of the Thinking parent closes its thinking, with the tags that are there."""
        whole = [each for each in graded if each.response.finish_reason == "stop"]
        if parent_of(schedule) != "thinking" or not whole or any(each.thought for each in graded):
            return
        tags = tags_in(*(each.response.text for each in whole))
        instead = f"they have {', '.join(tags)}" if tags else "look at some in the report"
        self._on_event(
            Noted(
                f"the Think ratio at lambda 1 is 0: no response has {self._job.models.chat.think_end}; {instead}, and "
                "set models.think_end to the tag that closes thinking"
            )
        )

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


def _sizes(slices: Sequence[Slice], *, up_to: str = "") -> str:
    """Returns prompts and repeats in words, such as ``67 prompts x 4``; a range of repeats if tasks differ."""
    prompts = sum(len(part.samples) for part in slices)
    least, most = (of(part.repeats for part in slices) for of in (min, max))
    if most == 1:
        return f"{prompts} prompts"
    return f"{prompts} prompts x {up_to}{most if least == most else f'{least} to {most}'}"


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
        f"the search is over: one more finalist is expected to raise the accuracy of the answer by "
        f"{100 * stop.gain:.2f} points, less than {100 * settings.min_gain:g} (search.min_gain)"
    )
