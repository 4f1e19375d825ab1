"""Checks everything that a search needs before a weight is moved, and goes on after a problem to find all of them.

What can be known without a part that is missing is told all the same: prompts and what they prove without the models,
the models without the prompts, the cost without vLLM and without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from autolambda.config import Config, EngineConfig
from autolambda.driver.cost import cost_lines, in_bytes, proof_sentence, slice_lines, weight_memory
from autolambda.driver.job import Job, open_job, resolve_engine
from autolambda.driver.models import Models, open_models
from autolambda.engines.vllm.arguments import check_arguments, installed_version
from autolambda.engines.workers.cluster import check_ray
from autolambda.errors import ConfigError, InputError, error_line
from autolambda.graders import ifeval
from autolambda.graders.grading import find_grader
from autolambda.merging.difference.measure import measure_difference
from autolambda.optimizer.token_allowance import TokenAllowance
from autolambda.project.checks import input_problems
from autolambda.tasks.base import Phase, Slice
from autolambda.tasks.config import TaskConfig
from autolambda.tasks.slices import Slices, open_slices

T = TypeVar("T")
_HERE = EngineConfig(name="transformers")  # which needs no vLLM, to look at the rest


@dataclass(frozen=True)
class Inspection:
    """What a config holds. ``problems`` are all errors, each of one line or, for a pair, of several.

    ``notes`` are what the user should know; ``lines`` tell the prompts, the cost, the models and the sampling.
    """

    config: Config
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    lines: tuple[str, ...]
    prompts: tuple[tuple[Phase, Slice], ...]
    models: Models | None

    @property
    def is_valid(self) -> bool:
        return not self.problems

    @property
    def verdict(self) -> str:
        """Whether a search can start, in one line."""
        if self.problems:
            number = len(self.problems)
            return f"not valid: {number} problem{'s' if number > 1 else ''}"
        if self.models is None:
            return "valid as far as it can be told without the weights"
        pair, sampling = self.models.pair, self.models.sampling
        return f"valid; {pair.num_parameters:,} parameters, at most {sampling.max_tokens} tokens a response"

    def to_dict(self, source: str) -> dict[str, Any]:
        """Returns the findings as the command prints them as JSON; cli/README.md lists the keys."""
        prompts = [
            {
                "phase": phase,
                "task": part.task,
                "grader": part.grader,
                "prompts": len(part.samples),
                "repeats": part.repeats,
                "max_drop": part.max_drop,
            }
            for phase, part in self.prompts
        ]
        return {
            "source": source,
            "valid": self.is_valid,
            "problems": list(self.problems),
            "notes": list(self.notes),
            "prompts": prompts,
            "parameters": self.models.pair.num_parameters if self.models else None,
            "weight_bytes": self.models.pair.num_bytes if self.models else None,
            "max_tokens": self.models.sampling.max_tokens if self.models else self.config.sampling.max_tokens,
            "lines": list(self.lines),
        }


class _Problems:
    """Collects the messages of errors, each once."""

    def __init__(self) -> None:
        self.found: dict[str, None] = {}

    def attempt(self, do: Callable[[], T]) -> T | None:
        """Returns the value of a step, or ``None`` after keeping its error."""
        try:
            return do()
        except InputError as error:
            self.found[error_line(error).removeprefix("error: ")] = None
            return None


def inspect(config: Config, *, with_models: bool = True, with_difference: bool = True) -> Inspection:
    """Looks at the engine, the tasks and the models of a config. Raises no ``InputError``: it lists them.

    Without the models (``with_models``) nothing is downloaded. ``with_difference`` adds how far the weights of the
    parents are apart.
    """
    problems = _Problems()
    _check_engine(config, problems)
    missing = [error_line(error).removeprefix("error: ") for error in (input_problems(config) if with_models else ())]
    problems.found |= dict.fromkeys(missing)
    slices = _open_tasks(config, problems)
    models = None
    if with_models and not any(f"'{source}'" in text for text in missing for source in _parents(config)):
        models = problems.attempt(lambda: _checked(open_models(config)))
    job = None
    if slices is not None and models is not None:
        job = problems.attempt(lambda: open_job(config.model_copy(update={"engine": _engine_here(config)})))
    lines = [*_lines(config, slices, models, job)]
    if models is not None and with_difference:
        lines += problems.attempt(lambda: measure_difference(models.pair).lines()) or []
    phases: tuple[Phase, Phase] = ("search", "confirm")
    found = job or slices
    parts = [(phase, part) for phase in phases for part in getattr(found, phase)] if found else []
    notes = job.notes if job else (*(models.warnings if models else ()), *(slices.notes if slices else ()))
    return Inspection(config, tuple(problems.found), tuple(notes), tuple(lines), tuple(parts), models)


def _parents(config: Config) -> Sequence[str]:
    return [each for each in (config.models.instruct, config.models.thinking) if each is not None]


def _checked(models: Models) -> Models:
    """Returns the models with their tokenizer loaded and their sampling known. Raises like ``Models.sampling``."""
    _ = models.sampling
    return models


def _check_engine(config: Config, problems: _Problems) -> None:
    """Checks the engine and the graders as far as that can be done on this machine."""
    name = problems.attempt(lambda: resolve_engine(config.engine))
    if name == "vllm" and problems.attempt(installed_version) is not None:
        problems.attempt(lambda: check_arguments(config.engine.arguments))
    if config.engine.workers > 1:
        problems.attempt(check_ray)
    graders = {source.grader_name for task in config.tasks for source in (task, task.confirm_on) if source}
    for grader in sorted(graders):
        problems.attempt(lambda grader=grader: find_grader(grader))  # type: ignore[misc]
    if "ifeval" in graders:
        problems.attempt(ifeval.check)


def _engine_here(config: Config) -> EngineConfig:
    """Returns an engine that this machine has, to look at everything that does not depend on it."""
    try:
        if resolve_engine(config.engine) == "vllm":
            installed_version()
    except ConfigError:
        return _HERE
    return config.engine.model_copy(update={"workers": 1})


def _open_tasks(config: Config, problems: _Problems) -> Slices | None:
    """Returns the slices of the tasks that can be read; ``None`` if none can, or if they do not go together."""
    if not config.tasks:
        problems.found["no task: give a file with 'question' and 'answer', or a benchmark's name (--task)"] = None
        return None

    def slices_of(tasks: Sequence[TaskConfig]) -> Slices | None:
        return problems.attempt(lambda: open_slices(tasks, config.confirm_size, seed=config.search.seed))

    if len(config.tasks) == 1:
        return slices_of(config.tasks)
    readable = [task for task in config.tasks if slices_of([task])]
    return slices_of(readable) if readable else None


def _lines(config: Config, slices: Slices | None, models: Models | None, job: Job | None) -> Iterator[str]:
    """Yields what is known about prompts, cost, models and sampling."""
    found = job or slices
    if found is not None:
        for phase, parts in (("search", found.search), ("confirm", found.confirm)):
            for part in parts:
                yield from slice_lines(phase, part)
        yield proof_sentence(found.search, found.confirm)
    if models is not None and found is not None:
        yield from cost_lines(config, models, found.search, found.confirm)
    elif config.sampling.max_tokens and config.tasks:
        yield _most_tokens(config, config.sampling.max_tokens)
    if models is not None:
        yield from memory_lines(models, job)
        yield f"sampling: {models.sampling.in_words}"
    if job is not None:
        yield f"engine: {job.engine_in_words}"


def _most_tokens(config: Config, cap: int) -> str:
    """Returns the most tokens of a search, as far as the config alone tells."""
    num_search = sum(task.limit or 0 for task in config.tasks)
    num_confirm = len(config.tasks) * (config.confirm.limit or 0)
    allowance = TokenAllowance.of(
        2.0 * cap,
        num_search=num_search,
        num_confirm=num_confirm,
        num_confirm_prompts=num_confirm,
        cap=config.search.max_tokens_generated,
    )
    millions = f"{allowance.total / 1e6:,.3g} million"
    return f"tokens: at most {millions} by the config alone, if every response ran to the cap of {cap:,}"


def memory_lines(models: Models, job: Job | None) -> Iterator[str]:
    """Yields the memory that the weights of a search take; without a job, the engine's part is left out."""
    weights = weight_memory(models.pair, job)
    held = {2: "both parents", 3: "three models", 4: "four models"}[weights.num_models]
    packed = f", of which {in_bytes(weights.packed)} are packed for the CPU" if weights.packed else ""
    yield (
        f"memory: {in_bytes(weights.model)} of weights a model; the merge and {held} take "
        f"{in_bytes(weights.total)}{packed}, and the parents may lie in host memory (engine.parents: host)"
    )
