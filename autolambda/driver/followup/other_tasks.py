"""Other tasks as a job of a study: its models and its sampling, with prompts that it never used."""

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
    """Opens at most ``limit`` prompts a task, those of its confirmation first, without any that the study used.

    Raises ``TaskError`` for a task that cannot be used, and ``ConfigError`` for a limit below 1.
    """
    if limit < 1:
        raise ConfigError(f"--limit: at least 1 prompt a task, seen {limit}")
    size = ConfirmSize(None, None, job.config.confirm.share)
    seen = {_text(sample) for part in (*job.search, *job.confirm) for sample in part.samples}
    notes, parts = list[str](), list[Slice]()
    for task in tasks:
        opened = open_slices([task.model_copy(update={"limit": None})], size, seed=job.config.search.seed)
        notes += [note for note in opened.notes if note not in task.test_set_notes()]  # nothing is searched on here
        held_back, searchable = opened.confirm[0], opened.search[0]
        samples = _joined(held_back.samples, searchable.samples)
        unseen = tuple(each for each in samples if _text(each) not in seen)
        if lost := len(samples) - len(unseen):
            notes.append(f"{task.label}: {lost} prompts are left out, because the study searched or confirmed on them")
        if not unseen:
            raise TaskError(
                f"task '{task.label}': the study searched or confirmed on all of its prompts; name another task"
            )
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


def _joined(first: Sequence[Sample], second: Sequence[Sample]) -> tuple[Sample, ...]:
    """Returns both parts of a task. Ids that repeat, as those of two splits may, get a prefix in the second."""
    known = {each.id for each in first}
    if known.isdisjoint(each.id for each in second):
        return (*first, *second)
    return (*first, *(replace(each, id=f"search-{each.id}") for each in second))


def _text(sample: Sample) -> str:
    """Returns the messages of a prompt without differences in white space."""
    return "\n".join(" ".join(str(message.get("content", "")).split()) for message in sample.messages)
