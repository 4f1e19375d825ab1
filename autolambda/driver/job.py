"""Opens and checks the models and tasks of a config, before any weight is moved."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from autolambda.coefficients import RANGE_EXTRAPOLATES
from autolambda.config import Config, EngineConfig, EngineName
from autolambda.config_models import ModelsConfig
from autolambda.driver.identity import BATCH_SIZE, identity_of, sizes_of
from autolambda.driver.models import Models, open_models, parent_folders
from autolambda.driver.prompts import fitting
from autolambda.engines.device import vllm_device
from autolambda.engines.transformers.loading import resolve_device
from autolambda.engines.vllm.arguments import installed_version
from autolambda.engines.workers.cluster import check_ray
from autolambda.errors import ConfigError, SwappedError
from autolambda.graders import ifeval
from autolambda.graders.grading import find_grader
from autolambda.merging.pair import Pair
from autolambda.optimizer.aims import Aims
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.space import BEYOND, LINE, UNIFORM, Space
from autolambda.tasks.base import Slice
from autolambda.tasks.slices import Slices, open_slices


@dataclass(frozen=True)
class Job:
    """An opened config. ``search`` and ``confirm`` are the slices of each phase.

    ``engine`` is the engine that will run. ``context`` is the number of tokens of the longest prompt and its response
    together. ``identity`` holds everything that results depend on; a study with another identity is refused.
    ``opened`` are the slices as they were read, with the prompts that are too long. ``warnings`` are sentences about
    the tasks.
    """

    config: Config
    models: Models
    search: tuple[Slice, ...]
    confirm: tuple[Slice, ...]
    engine: EngineName
    context: int
    identity: Mapping[str, Any]
    opened: Slices = field(default_factory=lambda: Slices((), (), ()))
    warnings: tuple[str, ...] = ()

    @property
    def batch_size(self) -> int | None:
        """Responses per engine call. ``None``, with vLLM, means all missing responses of an evaluation."""
        return self.config.engine.batch_size or (BATCH_SIZE if self.engine == "transformers" else None)

    @property
    def grows_rungs(self) -> bool:
        """Whether the first rung grows with the engine's pace: by default with vLLM on a GPU."""
        search = self.config.search
        if search.grow_rungs is not None:
            return search.grow_rungs
        return search.rungs is None and self.engine == "vllm" and vllm_device().type == "cuda"

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

    def at(self, moment: datetime) -> Job:
        """Returns the job with its prompts rendered for another moment, if a template asks for the date."""
        if not self.models.reads_clock:
            return self
        return _job_of(self.config, self.models.at(moment), self.engine, self.opened)

    def seeded_as(self, stored: Mapping[str, Any]) -> Job:
        """Returns the job with vLLM's seeds as in the identity of a stored study, unless the config chooses them."""
        key = "engine.seeds"
        if self.engine != "vllm" or self.config.engine.seeds != "auto" or self.identity.get(key) == stored.get(key):
            return self
        others = {each: value for each, value in self.identity.items() if each != key}
        return replace(self, identity=others | ({key: stored[key]} if key in stored else {}))

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on the models, the tasks and the clock that the user should know."""
        clock = (
            f"a chat template asks for the date: all prompts of this study are rendered for {self.models.moment}, the "
            "moment of its creation; the exported template asks for the date of each request"
        )
        factors = self.identity.get("engine.rope")
        rope = (
            f"vLLM uses the {factors} rope factors of this model for every sequence, because engine.max_model_len says "
            "so; transformers switches when a sequence passes the original context, so its responses may differ"
        )
        own = [*([clock] if self.models.reads_clock else []), *([rope] if factors else [])]
        return (*self.models.warnings, *self.warnings, *own)

    @property
    def search_settings(self) -> SearchSettings:
        """The settings of the search; uniform numbers only, if the modules of the parents are not known."""
        settings = self.config.search_settings
        if self.models.pair.modules.locations:
            return settings
        return replace(settings, spaces=tuple(space for space in settings.spaces if space in UNIFORM))

    @property
    def engine_in_words(self) -> str:
        """The engine that will run, for people, such as ``transformers on cpu, float32``."""
        if self.engine == "vllm":
            return f"vLLM {installed_version()}"
        return f"transformers on {resolve_device(self.config.engine.device)}, {self.identity['engine.dtype']}"


def open_job(config: Config, *, further: Collection[str] = ()) -> Job:
    """Opens the models and tasks of a config, and the models of ``further`` roles beside those that its spaces read.

    Raises ``InputError`` for a mistake in either.
    """
    if not config.tasks:
        raise ConfigError(
            "no task: give a benchmark's name, or a JSONL, CSV or Parquet file with 'question' and 'answer'"
        )
    if config.models.swapped_names == "both":
        raise swapped_error(config.models, "by their names, the two models are swapped")
    engine = resolve_engine(config.engine)
    if engine == "vllm":
        installed_version()
    if config.engine.workers > 1:
        check_ray()
    _check_graders(config)
    tasks = open_slices(config.tasks, config.confirm_size, seed=config.search.seed)
    return _job_of(config, open_models(config, further=further), engine, tasks)


def swapped_error(models: ModelsConfig, said: str) -> SwappedError:
    """Returns the error for models in each other's place; ``said`` is how that was noticed."""
    instruct, thinking = parent_folders(models)
    return SwappedError(said, instruct=instruct, thinking=thinking)


def _job_of(config: Config, models: Models, engine: EngineName, tasks: Slices) -> Job:
    """Renders all prompts and returns the job. Raises ``InputError`` for a template or a prompt that cannot be used."""
    search = fitting(models, [models.chat], tasks.search, [task.unusable_share for task in config.tasks])
    shares = [(task.confirm_on or task).unusable_share for task in config.tasks]
    confirm = fitting(models, [models.chat, *models.own_chats.values()], tasks.confirm, shares)
    context = max(search.longest, confirm.longest) + models.sampling.max_tokens
    slices = search.slices, confirm.slices
    identity = identity_of(config, models, engine=engine, slices=slices, context=context)
    if too_long := [*search.too_long, *confirm.too_long]:
        identity["tasks.too_long"] = too_long
    notes = (*tasks.notes, *search.notes, *confirm.notes, *_space_notes(config.search.spaces, models.pair))
    if config.search.range != LINE:
        notes = (*notes, f"search.range: {RANGE_EXTRAPOLATES}")
    if config.confirm.finalists == 1 and (beyond := [space for space in config.search.spaces if space in BEYOND]):
        notes = (
            *notes,
            "confirm.finalists: with 1, the finalist for a budget is a merge of the two parents alone, so "
            f"{' and '.join(beyond)} of search.spaces cannot be the answer; set it to 2 or more",
        )
    return Job(config, models, *slices, engine, context, identity, tasks, notes)


def _space_notes(spaces: Sequence[Space], pair: Pair) -> list[str]:
    """Returns what to say if some spaces cannot be searched. Raises ``ConfigError`` if none is left."""
    if not (others := [space for space in spaces if space not in UNIFORM]) or pair.modules.locations:
        return []
    text = f"the layers and modules of these models are not known: {pair.modules.reason}"
    if len(others) == len(spaces):
        raise ConfigError(f"search.spaces: {', '.join(spaces)}; {text}; use uniform")
    left = [space for space in spaces if space in UNIFORM]
    return [f"{text}; of search.spaces, {' and '.join(others)} left out, and {' and '.join(left)} searched"]


def _check_graders(config: Config) -> None:
    """Raises ``TaskError`` for an unknown grader or one that lacks a package, before anything is loaded."""
    names = {source.grader_name for task in config.tasks for source in (task, task.confirm_on) if source}
    for name in sorted(names):
        find_grader(name)
    if "ifeval" in names:
        ifeval.check()


def resolve_engine(engine: EngineConfig) -> EngineName:
    """Returns the engine of ``engine.name``. ``auto`` is vLLM if a GPU and vLLM are available.

    Only transformers takes ``device`` and ``threads``, so ``auto`` is transformers if either is set.
    """
    if engine.name != "auto":
        return engine.name
    if engine.device != "auto" or engine.threads is not None:
        return "transformers"
    return "vllm" if vllm_device().type == "cuda" else "transformers"
