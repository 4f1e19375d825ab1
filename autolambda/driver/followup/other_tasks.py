"""Other tasks as a job of a study: its models and its sampling, with prompts that its search never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from autolambda.driver.job import Job
from autolambda.driver.prompts import fitting
from autolambda.errors import ConfigError, TaskError
from autolambda.responses import Sample
from autolambda.tasks.base import Slice
from autolambda.tasks.config import TaskConfig
from autolambda.tasks.digest import prompts_key
from autolambda.tasks.slices import ConfirmSize, open_slices


@dataclass(frozen=True)
class OtherTasks:
    """The ``job`` on other tasks, whose confirm slices hold the prompts, with a digest of each source and notes.

    A digest covers all prompts of a source, so that more of them may be measured later.
    """

    job: Job
    digests: tuple[str, ...]
    notes: tuple[str, ...]


def open_other_tasks(job: Job, tasks: Sequence[TaskConfig], *, limit: int) -> OtherTasks:
    """Opens at most ``limit`` prompts a task, those of its confirmation first, without any that the study searched on.

    Raises ``TaskError`` for a task that cannot be used, and ``ConfigError`` for a limit below 1.
    """
    if limit < 1:
        raise ConfigError(f"--limit: at least 1 prompt a task, seen {limit}")
    whole = [task.model_copy(update={"limit": None}) for task in tasks]
    opened = open_slices(whole, ConfirmSize(None, None, job.config.confirm.share), seed=job.config.search.seed)
    searched = {_text(sample) for part in job.search for sample in part.samples}
    notes, parts = list(opened.notes), list[Slice]()
    for task, searchable, held_back in zip(tasks, opened.search, opened.confirm, strict=True):
        samples = (*held_back.samples, *searchable.samples)
        unseen = tuple(each for each in samples if _text(each) not in searched)
        if lost := len(samples) - len(unseen):
            notes.append(f"{task.label}: {lost} prompts are left out, because the study searched on them")
        if not unseen:
            raise TaskError(f"task '{task.label}': the study searched on all of its prompts; name another task")
        repeats = task.repeats or task.own_repeats
        parts.append(replace(held_back, samples=unseen, repeats=repeats, weight=1.0, max_drop=None))
    chats = [job.models.chat, *job.models.own_chats.values()]
    first = [replace(part, samples=part.samples[:limit]) for part in parts]
    fitted = fitting(job.models, chats, first, [task.unusable_share for task in tasks])
    context = max(job.context, fitted.longest + job.models.sampling.max_tokens)
    digests = tuple(str(prompts_key([[part], [part]])["search"]["digest"]) for part in parts)
    return OtherTasks(
        replace(job, confirm=fitted.slices, context=context), digests, (*dict.fromkeys(notes), *fitted.notes)
    )


def _text(sample: Sample) -> str:
    """Returns the messages of a prompt without differences in white space."""
    return "\n".join(" ".join(str(message.get("content", "")).split()) for message in sample.messages)
