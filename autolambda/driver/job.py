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
from autolambda.engines.transformers.engine import resolve_device
from autolambda.engines.vllm.arguments import check_arguments, installed_version
from autolambda.engines.workers.cluster import check_ray
from autolambda.errors import ConfigError, TaskError
from autolambda.graders import ifeval
from autolambda.graders.grading import find_grader
from autolambda.merging.difference.measure import measure_difference
from autolambda.optimizer.aims import Aims
from autolambda.responses import Sample
from autolambda.tasks.base import Slice
from autolambda.tasks.slices import open_slices
from autolambda.tasks.unusable import MAX_UNUSABLE

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
    models = open_models(config)
    search = _fitting(models, [models.chat], tasks.search, [task.max_unusable for task in config.tasks])
    shares = [(task.confirm_on or task).max_unusable for task in config.tasks]
    confirm = _fitting(models, [models.chat, *models.own_chats.values()], tasks.confirm, shares)
    context = max(search.longest, confirm.longest) + models.sampling.max_tokens
    identity = identity_of(config, models, engine=engine, slices=(search.slices, confirm.slices))
    if too_long := [*search.too_long, *confirm.too_long]:
        identity["tasks.too_long"] = too_long
    notes = (*tasks.notes, *search.notes, *confirm.notes)
    return Job(config, models, search.slices, confirm.slices, engine, context, identity, notes)


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


@dataclass(frozen=True)
class _Fitting:
    """Slices without prompts that are too long, ``[task, id]`` of these, notes, and the tokens of the longest left."""

    slices: tuple[Slice, ...]
    too_long: tuple[list[str], ...]
    notes: tuple[str, ...]
    longest: int


def _fitting(
    models: Models, chats: Sequence[ChatFormat], slices: Sequence[Slice], shares: Sequence[float | None]
) -> _Fitting:
    """Leaves out prompts that exceed the context together with their response, if they are few.

    ``shares`` are the tasks' ``max_unusable``. Raises ``TaskError`` if more prompts of a task are too long.
    """
    kept, too_long, notes, longest = list[Slice](), list[list[str]](), list[str](), 0
    room = models.context - models.sampling.max_tokens
    for part, share in zip(slices, shares, strict=True):
        lengths = [max(each) for each in zip(*(_lengths(models, chat, part) for chat in chats), strict=True)]
        lost = [(sample.id, num) for sample, num in zip(part.samples, lengths, strict=True) if num > room]
        if lost:
            problem = (
                f"task '{part.task}', sample '{lost[0][0]}': its prompt of {lost[0][1]} tokens and sampling.max_tokens "
                f"{models.sampling.max_tokens} do not fit the model's context of {models.context}"
            )
            most = (MAX_UNUSABLE if share is None else share) * len(lengths)
            if len(lost) > most:
                raise TaskError(f"{problem}; lower sampling.max_tokens ({len(lost)} of {len(lengths)} prompts are so)")
            notes.append(f"{problem}; {len(lost)} of {len(lengths)} prompts are too long and left out")
        ids = {id for id, _ in lost}
        kept.append(replace(part, samples=tuple(sample for sample in part.samples if sample.id not in ids)))
        too_long += [[part.task, id] for id, _ in lost]
        longest = max([longest, *(num for num in lengths if num <= room)])
    return _Fitting(tuple(kept), tuple(too_long), tuple(notes), longest)


def _lengths(models: Models, chat: ChatFormat, part: Slice) -> list[int]:
    """Returns the tokens of each prompt of a slice. Raises ``TaskError`` for one without any."""
    texts = [_rendered(chat, sample, models.context) for sample in part.samples]
    lengths = [len(ids) for ids in chat.tokenizer(texts, add_special_tokens=False, verbose=False).input_ids]
    if 0 in lengths:
        empty = part.samples[lengths.index(0)]
        raise TaskError(f"task '{part.task}', sample '{empty.id}': the chat template renders it to nothing")
    return lengths
