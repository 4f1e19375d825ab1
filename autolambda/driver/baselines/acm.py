"""The baseline ACM: coefficients of the layers from activations, without a search (arXiv 2505.14009)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autolambda.config import BaselineName
from autolambda.driver.baselines.base import Beside, measure_baseline
from autolambda.driver.baselines.merges import base_for, open_around_base
from autolambda.driver.events import Noted
from autolambda.driver.job import Job
from autolambda.driver.run import Run
from autolambda.engines.transformers.activations import layer_activations, mutual_information
from autolambda.merging.checkpoint import Checkpoint
from autolambda.merging.method import Method
from autolambda.optimizer.space import PARENTS
from autolambda.schedule import Profile, Schedule

SLOPE = 0.7  # the paper's t for merges of a long and a short thinker
NUM_TEXTS, MOST_TOKENS = 32, 256  # on which the activations are compared
NAME: BaselineName = "acm"


class AcmBaseline:
    """Implements ``base.Baseline``.

    The paper gives parent i in layer k the coefficient ``1 - 1 / (1 + exp(-t I))``. I is the mutual information between
    the activations of the parent and of the base model: the less a parent changed a layer, the less it weighs there.
    The paper adds both changes to the base. Here the two coefficients of a layer are scaled to a sum of 1, so the merge
    is a schedule: ``lambda = thinking / (instruct + thinking)``. ``activations.py`` estimates I.
    """

    def check(self, job: Job) -> None:
        """Opens and reads the base model. Raises like ``base_for`` and ``open_around_base``."""
        _base(job)

    def measure(self, run: Run, beside: Beside) -> None:
        """Measures the missing responses. Raises like ``Evaluator.run``, and ``CheckpointError``."""
        kept = run.study.kept(NAME)
        if not kept and not run.responses_of(PARENTS["thinking"]):
            run.on_event(Noted(f"baseline {NAME}: it needs responses of the Thinking model; left out"))
            return
        schedule = Schedule.from_dict({"lambda": {"bands": list(map(float, kept.split()))}}) if kept else _schedule(run)
        run.study.keep(NAME, " ".join(map(repr, schedule.attention.values)))
        measure_baseline(run, NAME, schedule, num_responses=beside.num_responses)


def schedule_of(instruct: Sequence[float], thinking: Sequence[float]) -> Schedule:
    """Returns the schedule from the mutual information of each layer, of either parent with the base model."""
    weights = [[1 - 1 / (1 + math.exp(-SLOPE * each)) for each in layers] for layers in (instruct, thinking)]
    lams = [two / (one + two) for one, two in zip(*weights, strict=True)]
    return Schedule.by_depth(Profile(tuple(lams), "bands"))


def _schedule(run: Run) -> Schedule:
    """Compares the three models on the search's prompts, with the Thinking model's responses."""
    job, texts = run.job, []
    prompts = {(part.task, sample.id): job.models.chat.render(sample) for part in job.search for sample in part.samples}
    tokenizer = job.models.chat.tokenizer
    for graded in run.responses_of(PARENTS["thinking"])[:NUM_TEXTS]:
        text = prompts[graded.task, graded.sample_id] + graded.response.text
        texts.append(tokenizer(text, add_special_tokens=False).input_ids[:MOST_TOKENS])
    pair, base = job.models.pair, _base(job)
    whole, instruct, thinking = (layer_activations(each, texts) for each in (base, pair.instruct, pair.thinking))
    return schedule_of(mutual_information(whole, instruct), mutual_information(whole, thinking))


def _base(job: Job) -> Checkpoint:
    base = open_around_base(job, Method("task_arithmetic", base=base_for(job, NAME))).base
    assert base is not None
    return base
