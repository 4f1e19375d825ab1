"""Measures a model with a cap on its thinking, from its stored whole responses: only answers are generated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autolambda.driver.baselines.drafts import Drafts
from autolambda.driver.evaluation import EvaluationRequest, seed_of
from autolambda.driver.run import Run
from autolambda.engines.base import Prompt
from autolambda.engines.closing import Closing
from autolambda.engines.wrappers import CutEngine
from autolambda.responses import Capped, Graded, Key, with_cut
from autolambda.schedule import Schedule
from autolambda.tasks.base import Phase
from autolambda.tasks.requests import requests_on


@dataclass(frozen=True)
class Model:
    """A model whose thinking is capped: the schedule, its name in ``Capped.of``, and its whole responses of a phase."""

    schedule: Schedule
    of: str
    phase: Phase
    drafts: Drafts


class Capping:
    """Measures caps within an allowance of ``reserve`` tokens, which stored responses used too."""

    def __init__(self, run: Run, reserve: float) -> None:
        self.run = run
        self.left = reserve  # tokens that may still be generated

    def measure(self, model: Model, cap: int, closing: Closing) -> list[Graded]:
        """Returns the responses under a cap, and generates the missing ones. Raises like ``Evaluator.run``."""
        drafts = model.drafts
        thoughts, capped = drafts.cut_by(cap), key_of(model, cap, closing)
        request = EvaluationRequest(
            f"cap at {cap} tokens",
            "cap",
            capped.key,
            model.schedule,
            phase=model.phase,
            done=1.0,
            share=0.0,
            stage="confirmation",
            chat=drafts.chat,
            engine=lambda: CutEngine(self.run.engine(), self._by_prompt(model, thoughts), cap=cap, closing=closing),
            only=thoughts,
            num_given=cap + closing.num_tokens,
        )
        answered = self.run.evaluator.run(request)
        self.left -= sum(capped.num_new(each.response.num_tokens) for each in answered)
        return with_cut(drafts.graded, answered)

    def _by_prompt(self, model: Model, thoughts: Mapping[Key, str]) -> dict[Prompt, str]:
        """Returns the thoughts by the prompts that the evaluation asks."""
        job = self.run.job
        schedule = model.schedule if model.phase == "search" else None
        return {
            Prompt(
                model.drafts.chat.render(request.sample),
                seed_of(request, seed=job.config.search.seed, phase=model.phase, schedule=schedule),
            ): thoughts[request.key]
            for request in requests_on(job.search if model.phase == "search" else job.confirm)
            if request.key in thoughts
        }


def key_of(model: Model, cap: int, closing: Closing) -> Capped:
    """Returns the key of the evaluation of a cap."""
    return Capped(model.of, model.phase, cap, closing.text, closing.num_tokens, len(model.drafts.graded))
