"""Opens and checks the models and tasks of a config, before any weight is moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autolambda.config import Config, EngineConfig, EngineName
from autolambda.driver.cost import cost_lines, proof_sentence, slice_lines
from autolambda.driver.identity import BATCH_SIZE, identity_of, sizes_of
from autolambda.driver.limits import LimitError, limited
from autolambda.driver.models import Models, open_models
from autolambda.engines.chat import ChatFormat
from autolambda.engines.device import vllm_device
from autolambda.engines.transformers.loading import resolve_device
from autolambda.engines.vllm.arguments import check_arguments, installed_version
from autolambda.engines.workers.cluster import check_ray
from autolambda.errors import ConfigError, TaskError
from autolambda.graders import ifeval
from autolambda.graders.grading import find_grader
from autolambda.merging.difference.measure import measure_difference
from autolambda.merging.pair import Pair
from autolambda.optimizer.aims import Aims
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.space import Space
from autolambda.responses import Sample
from autolambda.tasks.base import Slice
from autolambda.tasks.slices import open_slices

TEMPLATE_SECONDS = 5.0  # for one prompt, which usually takes a millisecond
TEMPLATE_BYTES = 1 << 30
CHARACTERS_PER_TOKEN = 128  # no tokenizer has longer tokens, except of spaces


@dataclass(frozen=True)
class Job:
    """An opened config. ``search`` and ``confirm`` are the slices of each phase.

    ``engine`` is the engine that will run. ``context`` is the number of tokens of the longest prompt and its response
    together. ``identity`` holds everything that results depend on; a study with another identity is refused.
    ``warnings`` are sentences about the tasks.
    """

    config: Config
    models: Models
    search: tuple[Slice, ...]
    confirm: tuple[Slice, ...]
    engine: EngineName
    context: int
    identity: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def batch_size(self) -> int | None:
        """Responses per engine call. ``None``, with vLLM, means all missing responses of an evaluation."""
        return self.config.engine.batch_size or (BATCH_SIZE if self.engine == "transformers" else None)

    def aims(self, budget: float | None) -> Aims:
        """Returns the aims of a search on these slices."""
        num_search, num_confirm = (sum(part.num_responses for part in phase) for phase in (self.search, self.confirm))
        num_prompts = sum(len(part.samples) for part in self.confirm)
        guards = tuple(self.config.guards.items())
        rungs, cap = self.config.search.rungs_of(num_search), self.models.sampling.max_tokens
        return Aims(budget, rungs, num_confirm, num_prompts, guards, max_tokens=cap)

    def with_repeats(self, search: Sequence[int], confirm: Sequence[int]) -> Job:
        """Returns the job with other default repeats of each task. Repeats of the config stay."""
        tasks = self.config.tasks
        searched = [
            part if task.repeats else replace(part, repeats=repeats)
            for task, part, repeats in zip(tasks, self.search, search, strict=True)
        ]
        confirmed = [
            part if self.config.confirm.repeats else replace(part, repeats=repeats)
            for part, repeats in zip(self.confirm, confirm, strict=True)
        ]
        identity = {**self.identity, **sizes_of(self.config, (searched, confirmed))}
        return replace(self, search=tuple(searched), confirm=tuple(confirmed), identity=identity)

    @property
    def search_settings(self) -> SearchSettings:
        """The settings of the search; uniform lambdas only, if the modules of the parents are not known."""
        settings = self.config.search_settings
        return settings if self.models.pair.modules.locations else replace(settings, spaces=("uniform",))

    @property
    def engine_in_words(self) -> str:
        """The engine that will run, for people, such as ``transformers on cpu, float32``."""
        if self.engine == "vllm":
            return f"vLLM {installed_version()}"
        return f"transformers on {resolve_device(self.config.engine.device)}, {self.identity['engine.dtype']}"


def open_job(config: Config) -> Job:
    """Opens the models and tasks of a config. Raises ``InputError`` for a mistake in either."""
    if not config.tasks:
        raise ConfigError(
            "no task: give a benchmark's name, or a JSONL, CSV or Parquet file with 'question' and 'answer'"
        )
    engine = resolve_engine(config.engine)
    if engine == "vllm":
        installed_version()
    if config.engine.workers > 1:
        check_ray()
    _check_graders(config)
    tasks = open_slices(config.tasks, config.confirm_size, seed=config.search.seed)
    search, confirm = tasks.search, tasks.confirm
    models = open_models(config)
    longest = max(
        _longest_prompt(models, models.chat, slices=[*search, *confirm]),
        *(_longest_prompt(models, chat, slices=confirm) for chat in models.own_chats.values()),
    )
    context = longest + models.sampling.max_tokens
    identity = identity_of(config, models, engine=engine, slices=(search, confirm))
    notes = (*tasks.notes, *_space_notes(config.search.spaces, models.pair))
    return Job(config, models, search, confirm, engine, context, identity, notes)


def _space_notes(spaces: Sequence[Space], pair: Pair) -> list[str]:
    """Returns what to say if some spaces cannot be searched. Raises ``ConfigError`` if none is left."""
    if not (others := [space for space in spaces if space != "uniform"]) or pair.modules.locations:
        return []
    text = f"the layers and modules of these models are not known: {pair.modules.reason}"
    if "uniform" not in spaces:
        raise ConfigError(f"search.spaces: {', '.join(spaces)}; {text}; use uniform")
    return [f"{text}; uniform lambdas are searched, and {' and '.join(others)} left out"]


def _check_graders(config: Config) -> None:
    """Raises ``TaskError`` for an unknown grader or one that lacks a package, before anything is loaded."""
    names = {source.grader_name for task in config.tasks for source in (task, task.confirm_on) if source}
    for name in sorted(names):
        find_grader(name)
    if "ifeval" in names:
        ifeval.check()


def validate(config: Config) -> list[str]:
    """Returns lines about a valid config: notes, slices, costs, parents, engine. Raises like ``open_job``.

    With vLLM, also checks its engine arguments. That imports vLLM, which takes 10 to 20 seconds.
    """
    job = open_job(config)
    if job.engine == "vllm":
        check_arguments(config.engine.arguments)
    phases = (("search", job.search), ("confirm", job.confirm))
    return [
        *(f"note: {warning}" for warning in (*job.models.pair.warnings, *job.warnings)),
        *(line for phase, slices in phases for part in slices for line in slice_lines(phase, part)),
        proof_sentence(job.search, job.confirm),
        *cost_lines(config, job.models, job.search, job.confirm),
        *measure_difference(job.models.pair).lines(),
        f"engine: {job.engine_in_words}",
        f"valid; {job.models.pair.num_parameters:,} parameters, "
        f"at most {job.models.sampling.max_tokens} tokens a response",
    ]


def resolve_engine(engine: EngineConfig) -> EngineName:
    """Returns the engine of ``engine.name``. ``auto`` is vLLM if a GPU and vLLM are available.

    Only transformers takes ``device`` and ``threads``, so ``auto`` is transformers if either is set.
    """
    if engine.name != "auto":
        return engine.name
    if engine.device != "auto" or engine.threads is not None:
        return "transformers"
    return "vllm" if vllm_device().type == "cuda" else "transformers"


def _rendered(chat: ChatFormat, sample: Sample, context: int) -> str:
    """Renders a prompt. Raises ``ConfigError`` if an untrusted template is endless or huge."""
    try:
        with limited(seconds=TEMPLATE_SECONDS, num_bytes=TEMPLATE_BYTES):
            text = chat.render(sample)
        problem = f"{len(text):,} characters come out" if len(text) > CHARACTERS_PER_TOKEN * context else None
    except LimitError:
        problem = f"it runs for more than {TEMPLATE_SECONDS:g} s"
    if problem:
        raise ConfigError(f"models.chat_template cannot render sample {sample.id[:60]!r}: {problem}; correct it")
    return text


def _longest_prompt(models: Models, chat: ChatFormat, *, slices: Sequence[Slice]) -> int:
    """Returns the tokens of the longest prompt.

    Raises ``TaskError`` if a prompt and its response together exceed the context.
    """
    samples = [(part.task, sample) for part in slices for sample in part.samples]
    texts = [_rendered(chat, sample, models.context) for _, sample in samples]
    prompts = chat.tokenizer(texts, add_special_tokens=False).input_ids
    max_tokens = models.sampling.max_tokens
    for (task, sample), ids in zip(samples, prompts, strict=True):
        if not ids:
            raise TaskError(f"task '{task}', sample '{sample.id}': the chat template renders it to nothing")
        if len(ids) + max_tokens > models.context:
            raise TaskError(
                f"task '{task}', sample '{sample.id}': its prompt of {len(ids)} tokens and sampling.max_tokens "
                f"{max_tokens} do not fit the model's context of {models.context}; lower sampling.max_tokens"
            )
    return max(map(len, prompts))
