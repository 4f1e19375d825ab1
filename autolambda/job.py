"""A job: a config with its models and tasks opened, everything checked that can be before a weight is moved.

``Job.identity`` is what a study's results depend on; a study refuses to go on when any of it has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autolambda.chat import ChatFormat
from autolambda.config import Config, TaskConfig
from autolambda.engines.base import Engine
from autolambda.engines.transformers import TransformersEngine, resolve_device, resolve_dtype
from autolambda.errors import ConfigError, TaskError
from autolambda.models import Models, open_models
from autolambda.tasks.arithmetic import Arithmetic
from autolambda.tasks.base import Phase, Slice, Task
from autolambda.tasks.file import FileTask


@dataclass(frozen=True)
class Job:
    """What a search or an evaluation works with: ``search`` and ``confirm`` are the slices of each phase."""

    config: Config
    models: Models
    search: tuple[Slice, ...]
    confirm: tuple[Slice, ...]
    identity: Mapping[str, Any]

    @property
    def engine_in_words(self) -> str:
        """The engine that will run, for people: ``transformers on cpu, float32``."""
        return f"transformers on {resolve_device(self.config.engine.device)}, {self.identity['engine.dtype']}"


def open_job(config: Config) -> Job:
    """Opens the models and tasks of a config. Raises ``InputError`` for whatever is wrong with either."""
    if not config.tasks:
        raise ConfigError("no task: give --task FILE (JSONL, CSV or Parquet with 'question' and 'answer'), or tasks:")
    tasks = [(_task(settings, config), settings) for settings in config.tasks]
    search = tuple(_slice(task, settings, config, "search") for task, settings in tasks)
    confirm = tuple(_slice(task, settings, config, "confirm") for task, settings in tasks)
    models = open_models(config)
    _check_context(models, models.chat, slices=[*search, *confirm])
    for chat in models.own_chats.values():
        _check_context(models, chat, slices=confirm)
    return Job(config, models, search, confirm, _identity(config, models, slices=(search, confirm)))


def open_engine(job: Job) -> Engine:
    """The engine that the config names, holding the job's parents."""
    engine = job.config.engine
    return TransformersEngine(
        job.models.pair,
        tokenizer=job.models.chat.tokenizer,
        device=engine.device,
        dtype=engine.dtype,
        threads=engine.threads,
    )


def _task(settings: TaskConfig, config: Config) -> Task:
    if settings.name is not None:
        return Arithmetic()
    assert settings.path is not None
    return FileTask(
        Path(settings.path),
        question=settings.question,
        answer=settings.answer,
        grader=settings.grader,
        confirm_share=config.confirm.share,
        seed=config.search.seed,
    )


def _slice(task: Task, settings: TaskConfig, config: Config, phase: Phase) -> Slice:
    limit = settings.limit if phase == "search" else config.confirm.limit
    repeats = settings.repeats if phase == "search" else config.confirm.repeats
    return Slice(task.name, task.grader, tuple(task.samples(phase)[:limit]), repeats, settings.weight)


def _check_context(models: Models, chat: ChatFormat, *, slices: Sequence[Slice]) -> None:
    """Every prompt with its response must fit the context, or its response would be cut short unseen."""
    samples = [(part.task, sample) for part in slices for sample in part.samples]
    texts = [chat.render(sample) for _, sample in samples]
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


def _identity(config: Config, models: Models, *, slices: Sequence[Sequence[Slice]]) -> dict[str, Any]:
    """Flat keys, as in the config where there is one; contents (weights, template, prompts) by their hash."""
    chat = models.chat
    dtype = resolve_dtype(config.engine.dtype, models.pair, resolve_device(config.engine.device))
    sampling = {
        key: list(value) if isinstance(value, tuple) else value for key, value in asdict(models.sampling).items()
    }
    return {
        "models.instruct": models.pair.instruct.digest(),
        "models.thinking": models.pair.thinking.digest(),
        "models.chat_template": _hash(
            chat.template,
            *(own.template for own in models.own_chats.values()),
            json.dumps(chat.kwargs, sort_keys=True),
        ),
        "models.tokenizer": config.models.tokenizer,
        "models.vocabulary": _hash(json.dumps(sorted(chat.tokenizer.get_vocab().items()))),
        "models.think_end": chat.think_end,
        "engine.dtype": str(dtype).removeprefix("torch."),
        "engine.batch_size": config.engine.batch_size,
        "tasks": f"{_sizes(slices)}, {_hash(*(repr((part, phase)) for phase in slices for part in phase))}",
        "search.seed": config.search.seed,
        "search.knots": config.search.knots,
        **{f"sampling.{key}": value for key, value in sampling.items()},
    }


def _sizes(slices: Sequence[Sequence[Slice]]) -> str:
    """Prompts x repeats of each phase's slices, for a message: ``256x1 to search, 1024x1 to confirm``."""
    search, confirm = (" + ".join(f"{len(part.samples)}x{part.repeats}" for part in phase) for phase in slices)
    return f"{search} to search, {confirm} to confirm"


def _hash(*texts: str) -> str:
    return hashlib.sha256("\x1f".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
