"""The prompts of a study, read again from its tasks, because the database holds only their ids.

A task file may have changed, so prompts are shown only if their hash is the stored one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from autolambda.config import Config
from autolambda.errors import InputError
from autolambda.responses import Sample
from autolambda.tasks.base import Slice
from autolambda.tasks.digest import prompts_key
from autolambda.tasks.slices import open_slices


@dataclass(frozen=True)
class Prompts:
    """The samples by task and id. If it is empty, ``problem`` says why in a sentence."""

    samples: Mapping[tuple[str, str], Sample] = field(default_factory=dict)
    problem: str | None = None

    def text(self, task: str, sample_id: str) -> str | None:
        """Returns the text of a prompt, or ``None`` if it is unknown. Several messages are shown with their roles."""
        sample = self.samples.get((task, sample_id))
        if sample is None:
            return None
        messages = [(str(each.get("role", "")), str(each.get("content", ""))) for each in sample.messages]
        if len(messages) == 1:
            return messages[0][1]
        return "\n\n".join(f"[{role}]\n{content}" for role, content in messages)

    def target(self, task: str, sample_id: str) -> str | None:
        """Returns the answer that the grader expects; ``None`` if it is unknown."""
        sample = self.samples.get((task, sample_id))
        return sample.target if sample else None


def load_prompts(config: Config, identity: Mapping[str, Any]) -> Prompts:
    """Returns the prompts of a study with this ``identity``; empty if its tasks are missing or have changed."""
    try:
        opened = open_slices(config.tasks, config.confirm_size, seed=config.search.seed)
    except InputError as error:
        return Prompts(problem=f"Only the ids of prompts are shown: {error}.")
    too_long = {(task, sample_id) for task, sample_id in identity.get("tasks.too_long", ())}
    slices = [[_without(part, too_long) for part in phase] for phase in (opened.search, opened.confirm)]
    if prompts_key(slices) != identity.get("tasks"):
        changed = ", ".join(task.path or task.label for task in config.tasks)
        return Prompts(
            problem=f"Only the ids of prompts are shown, because the prompts have changed since the search ({changed})."
        )
    samples = {(part.task, sample.id): sample for phase in slices for part in phase for sample in part.samples}
    return Prompts(samples)


def _without(part: Slice, too_long: Collection[tuple[str, str]]) -> Slice:
    """Returns a slice without the prompts that did not fit the model's context."""
    return replace(part, samples=tuple(each for each in part.samples if (part.task, each.id) not in too_long))
