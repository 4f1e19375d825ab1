"""The prompts of a study, read again from its tasks: its database holds their ids alone.

They are shown only where they are those that were asked: a task file that has changed since says nothing about them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autolambda.config import Config
from autolambda.errors import InputError
from autolambda.responses import Sample
from autolambda.tasks.digest import prompts_key
from autolambda.tasks.slices import open_slices


@dataclass(frozen=True)
class Prompts:
    """The samples by task and id; where there are none, ``problem`` says why in a sentence."""

    samples: Mapping[tuple[str, str], Sample] = field(default_factory=dict)
    problem: str | None = None

    def text(self, task: str, sample_id: str) -> str | None:
        """A prompt as it was asked, a role before each message where there are several; ``None`` if unknown."""
        sample = self.samples.get((task, sample_id))
        if sample is None:
            return None
        messages = [(str(each.get("role", "")), str(each.get("content", ""))) for each in sample.messages]
        if len(messages) == 1:
            return messages[0][1]
        return "\n\n".join(f"[{role}]\n{content}" for role, content in messages)

    def target(self, task: str, sample_id: str) -> str | None:
        """What the grader compares with; ``None`` if unknown."""
        sample = self.samples.get((task, sample_id))
        return sample.target if sample else None


def load_prompts(config: Config, identity: Mapping[str, Any]) -> Prompts:
    """The prompts of a study whose results depend on ``identity``; none where its tasks are gone or have changed."""
    try:
        opened = open_slices(config.tasks, config.confirm_size, seed=config.search.seed)
    except InputError as error:
        return Prompts(problem=f"Prompts are shown by their ids: {error}.")
    slices = (opened.search, opened.confirm)
    if prompts_key(slices) != identity.get("tasks"):
        changed = ", ".join(task.path or task.label for task in config.tasks)
        return Prompts(problem=f"Prompts are shown by their ids: they are no longer those that were asked ({changed}).")
    samples = {(part.task, sample.id): sample for phase in slices for part in phase for sample in part.samples}
    return Prompts(samples)
