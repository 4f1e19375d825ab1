"""Notes of a run for its watcher, as sentences: the plan, warnings, the end of the search."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autolambda.driver.cost import FEW_ROWS, in_bytes, proof_sentence, rounded, weight_memory
from autolambda.driver.events import Noted, OnEvent
from autolambda.driver.identity import BATCH_SIZE
from autolambda.driver.job import Job
from autolambda.engines.think_tag import tags_in
from autolambda.merging.difference.values import ParentDifference
from autolambda.optimizer.aims import TYPICAL_FINALISTS
from autolambda.optimizer.ladder import paced
from autolambda.optimizer.propose import Stop
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.space import PARENTS, parent_of
from autolambda.optimizer.token_allowance import TokenAllowance
from autolambda.report.report import too_few
from autolambda.report.sentences import slack_sentence
from autolambda.responses import Graded
from autolambda.schedule import Schedule
from autolambda.statistics.metrics import Measured
from autolambda.statistics.pace import CallTime
from autolambda.statistics.words import duration
from autolambda.study.databases.connection import shown_storage
from autolambda.study.measured import MeasuredSchedules
from autolambda.study.timing import calls_of
from autolambda.study.trials import Study
from autolambda.tasks.base import Slice

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
LITTLE_BYTES = 1e9  # of memory, which need not be told
MOSTLY = 0.9  # share of a task's responses without an answer that triggers a note about its grader


class RunNotes:
    """Notes to the watcher that depend on earlier notes; each is sent once."""

    def __init__(self, job: Job, study: Study, on_event: OnEvent) -> None:
        self._job, self._study, self._on_event = job, study, on_event
        self._parent_tokens: dict[str, float] = {}
        self._questioned: set[str] = set()
        self._is_uncompared = self._is_forecast = False

    def warn(self, difference: ParentDifference | None) -> None:
        """Sends the warnings about the pair and the tasks, and whether rounding to nearest would distort merges."""
        distorted = difference.sentences() if difference and difference.distorts else ()
        for warning in (*self._job.notes, *distorted):
            self._on_event(Noted(warning))

    def introduce(self, storage: str, measured: MeasuredSchedules, allowance: TokenAllowance | None) -> None:
        """Sends the plan, what its prompts can prove, and where results are stored."""
        job, num_trials = self._job, measured.observations.num_trials
        progress = (
            f" {num_trials} {'merge is' if num_trials == 1 else 'merges are'} done already." if num_trials else ""
        )
        self._on_event(
            Noted(
                f"Plan: try at most {job.config.search.trials} merges on {_sizes(job.search)}, then check the best "
                f"{job.config.confirm.finalists} on {_sizes(job.confirm, new=True)}.{progress}"
            )
        )
        self._on_event(Noted(f"Study {self._study.name} is kept in {shown_storage(storage)}."))
        counted = sum(len(part.samples) for part in job.confirm if part.max_drop is None)
        few = too_few(counted, job.config.tasks)
        wanted = f"At least {FEW_ROWS} rows are wanted in all, better 200."
        self._on_event(Noted(f"{few} {wanted}" if few else proof_sentence(job.search, job.confirm)))
        for result in measured.all:
            self.check_budget(result.schedule, result.measured.mean_tokens.value)
        self.forecast(measured, allowance)

    def forecast(self, measured: MeasuredSchedules, allowance: TokenAllowance | None) -> None:
        """Sends once what the whole search will probably cost, as soon as both parents are measured."""
        if allowance is None or self._is_forecast:
            return
        self._is_forecast = True
        calls = [call for each in measured.all for call in calls_of(self._study, "trial", str(each.trial))]
        num_tokens = measured.observations.num_tokens
        self._on_event(Noted(forecast_sentence(self._job, allowance, spent=num_tokens, calls=calls)))

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
                    Noted(
                        f"task '{part.task}': grader '{part.grader}' finds no answer in {share} of the responses; "
                        f"look at some: autolambda report {self._study.name} --format html --out report.html"
                    )
                )


def forecast_sentence(job: Job, allowance: TokenAllowance, *, spent: int, calls: Sequence[CallTime]) -> str:
    """Returns the tokens, time and memory to expect, once both parents are measured and ``spent`` tokens were used.

    ``calls`` are those of the engine so far, whose speed is taken to last.
    """
    config, mean = job.config, allowance.ends / 2
    searched, confirmed = (sum(part.num_responses for part in phase) for phase in (job.search, job.confirm))
    search = max(min(allowance.search, config.search.trials * searched * mean), spent)
    length = mean if config.budget is None else min(mean, config.budget)
    final = (config.confirm.finalists * length + allowance.ends) * confirmed
    total = search + min(allowance.confirm(search), final)
    said = f"Forecast: about {rounded(total)} tokens in all, of which {rounded(spent)} are done"
    if seconds := _seconds_left(job, allowance, calls, search=search - spent, confirm=total - search):
        said += f"; {duration(seconds)} more at the present speed"
    return f"{said}{_memory(job, allowance.ends)}."


def _seconds_left(
    job: Job, allowance: TokenAllowance, calls: Sequence[CallTime], *, search: float, confirm: float
) -> float | None:
    """Returns the seconds for the tokens that are left to both phases, ``None`` if no call says anything about them.

    A call waits for its longest response, so the pace counts calls too: trials from the first rung on, then finalists.
    """
    spent, seconds = sum(call.num_tokens for call in calls), math.fsum(call.seconds for call in calls)
    pace = next((call.pace for call in reversed(calls) if call.pace), None)
    if pace is None:
        return (search + confirm) * seconds / spent if spent else None
    aims, mean = job.aims(job.config.budget), allowance.ends / 2
    first = (paced(aims, pace, allowance) if job.grows_rungs else aims).rungs[0]
    checked = TYPICAL_FINALISTS + len(PARENTS)
    size = min(job.batch_size or math.inf, confirm / mean / checked)
    num_calls = search / mean / first + (confirm / mean / size if size else 0)
    return pace.seconds(search + confirm, mean_tokens=mean, num_calls=num_calls)


def _memory(job: Job, ends: float) -> str:
    """Returns the memory of weights and cache; empty if it is little. Both ends take ``ends`` tokens together."""
    pair, text = job.models.pair, job.models.pair.thinking.text_config
    heads, hidden = text.get("num_attention_heads"), text.get("hidden_size")
    size = text.get("head_dim") or (hidden // heads if type(hidden) is type(heads) is int and heads else None)
    groups, width = text.get("num_key_value_heads") or heads, DTYPE_BYTES.get(job.identity.get("engine.dtype", ""))
    weights, cache = weight_memory(pair, job), 0.0
    number = {2: "two", 3: "three", 4: "four"}[weights.num_models]
    own = "as much" if weights.model == weights.merge else in_bytes(weights.model)
    said = f"{in_bytes(weights.merge)} of weights for the merge, {own} for each of the {number} models"
    if weights.packed:
        said = f"{said}, {in_bytes(weights.packed)} of the merge's weights packed for the CPU"
    if type(size) is type(groups) is int and width and not text.get("kv_lora_rank"):
        rows = min(job.batch_size or BATCH_SIZE, sum(part.num_responses for part in job.search))
        cache = 2.0 * pair.num_layers * groups * size * width * ends * rows
        said = f"{said}, and about {in_bytes(cache)} of cache for {rows} responses at a time"
    return f"; memory: {said}" if weights.total + cache >= LITTLE_BYTES else ""


def _sizes(slices: Sequence[Slice], *, new: bool = False) -> str:
    """Returns prompts and repeats in words: ``67 prompts, 4 responses each``; a range of repeats if tasks differ."""
    prompts = sum(len(part.samples) for part in slices)
    least, most = (of(part.repeats for part in slices) for of in (min, max))
    words = f"{prompts:,} {'new ' if new else ''}prompt{'' if prompts == 1 else 's'}"
    if most == 1:
        return words
    up_to = "up to " if new else ""
    return f"{words}, {up_to}{most if least == most else f'{least} to {most}'} responses each"


def stop_sentence(stop: Stop, settings: SearchSettings, allowance: TokenAllowance | None) -> str:
    """Returns why the search is over, and what comes next."""
    if stop.reason == "tokens" and allowance:
        why = f"too few of its {allowance.search:,.0f} tokens are left for another merge"
    elif stop.reason == "trials":
        why = f"{settings.trials} merges are tried (search.trials)"
    elif stop.reason == "gain" and stop.gain is not None:
        why = (
            f"one more finalist should raise the accuracy of the answer by {100 * stop.gain:.2f} points, less than "
            f"{100 * settings.min_gain:g} (search.min_gain)"
        )
    else:
        why = "every merge of search.spaces is tried"
    return f"Search done: {why}. Now checking the best on new prompts."
