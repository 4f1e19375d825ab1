"""The configuration: pydantic models of the YAML. Unknown keys are errors, and the message names the nearest key.

``Config`` holds what the user said; ``None`` means "the parents' own default", which search.py resolves and stores.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from autolambda.ablation_config import AblationConfig
from autolambda.errors import ConfigError
from autolambda.settings import merged, parse_setting, read_settings, set_key
from autolambda.strict import Name, Positive, Repeats, Strict, explain
from autolambda.tasks.config import SourceConfig, TaskConfig

EngineName = Literal["transformers", "vllm"]
Space = Literal["uniform", "module", "depth", "both"]
BaselineName = Literal["task_arithmetic", "ties", "slerp", "cut"]
Source = TypeVar("Source", bound=SourceConfig)

RUNGS = (128, 512, 2048)  # responses: the first fills an engine; the whole slice is the last


class ModelsConfig(Strict):
    """The parents: folders or hub ids. Without them the bundled pair is used."""

    instruct: Name | None = None
    thinking: Name | None = None
    base: Name | None = None
    chat_template: Name = "thinking"
    chat_template_kwargs: dict[str, JsonValue] = Field(default_factory=dict)
    tokenizer: Literal["thinking", "instruct"] = "thinking"
    think_end: Name = "</think>"

    @model_validator(mode="after")
    def _both_or_none(self) -> ModelsConfig:
        if (self.instruct is None) != (self.thinking is None):
            raise ValueError("give both models.instruct and models.thinking, or neither")
        return self

    @property
    def bundled(self) -> bool:
        return self.instruct is None


_REFUSED = {
    "vllm": {
        "device": "is for transformers; leave it out, and choose vLLM's GPUs with CUDA_VISIBLE_DEVICES",
        "threads": "is for transformers; leave it out, and choose vLLM's cores with VLLM_CPU_OMP_THREADS_BIND",
    },
    "transformers": {
        "merge": "is for vLLM; leave it out, or set engine.name to vllm",
        "parents": "is for vLLM; leave it out, or set engine.name to vllm",
    },
}
"""The keys that only the other engine takes, with what to do instead."""


class EngineConfig(Strict):
    """What generates. ``batch_size`` is the number of responses generated, stored and resumed together.

    ``None`` is 256 with transformers, and with vLLM everything that an evaluation owes. ``merge`` and ``parents`` are
    vLLM's: how weights are merged, and where the parents live. ``workers`` is the number of engines, each with GPUs of
    its own. With ``name: vllm`` every further key is an engine argument of its own.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    name: Literal["auto", "transformers", "vllm"] = "auto"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch_size: Positive | None = None
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    merge: Literal["auto", "direct", "stream"] = "auto"
    parents: Literal["auto", "gpu", "host", "files"] = "auto"
    workers: Annotated[int, Field(ge=1, le=4096)] = 1

    @property
    def arguments(self) -> dict[str, Any]:
        """The engine arguments that vLLM takes as they are."""
        return dict(self.__pydantic_extra__)

    @model_validator(mode="after")
    def _keys_of_its_engine(self) -> EngineConfig:
        unknown = {} if self.name == "vllm" else self.arguments
        wrong: list[InitErrorDetails] = [
            {"type": "extra_forbidden", "loc": (key,), "input": value} for key, value in unknown.items()
        ]
        for key, advice in _REFUSED.get(self.name, {}).items():
            if (value := getattr(self, key)) != type(self).model_fields[key].default:
                problem = PydanticCustomError("value_error", "{problem}", {"problem": f"{value!r} {advice}"})
                wrong.append({"type": problem, "loc": (key,), "input": value})
        if wrong:
            raise ValidationError.from_exception_data("engine", wrong)
        return self


class SamplingConfig(Strict):
    """How tokens are drawn; ``None`` is the Thinking parent's generation config."""

    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0  # as OpenAI and vLLM have it
    stop: tuple[Name, ...] = ()
    max_tokens: Positive | None = None


class SearchConfig(Strict):
    """What a search may spend, and where it looks.

    ``trials`` counts those of the ladder, which has at most ``ladder`` of them; what is left is shared out evenly among
    ``spaces``. ``rungs`` are the numbers of responses after which a measurement may pause; ``None`` is 128, 512, 2,048
    and the whole slice. ``max_tokens_generated`` is for search and confirmation together; ``None`` is what both parents
    cost at full size, with at least 2,048 responses each. ``min_gain`` is the expected gain in accuracy (share of 1)
    below which it stops.
    """

    spaces: Annotated[tuple[Space, ...], Field(min_length=1)] = ("uniform", "module", "both")
    trials: Annotated[int, Field(ge=2, le=10**6)] = 64
    ladder: Annotated[int, Field(ge=2, le=10**6)] = 9
    knots: Annotated[int, Field(ge=2, le=6)] = 3
    sampler: Literal["surrogate", "gp", "tpe", "random", "grid"] = "surrogate"
    rungs: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    max_tokens_generated: Positive | None = None
    min_gain: Annotated[float, Field(ge=0, lt=1)] = 0.002
    baselines: tuple[BaselineName, ...] = ()
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    def rungs_of(self, num_responses: int) -> tuple[int, ...]:
        """The rungs of a slice: those below its size, and its size."""
        return (*sorted(rung for rung in {*(self.rungs or RUNGS)} if rung < num_responses), num_responses)


class ConfirmConfig(Strict):
    """``limit`` prompts of each task's confirm slice for up to ``finalists`` schedules; ``share`` of a set's rows."""

    limit: Positive | None = 1024
    repeats: Repeats | None = None  # each benchmark's own, else 1
    finalists: Positive = 3
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.01
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5


class Config(Strict):
    """The whole configuration. Paths of local parents and task files are absolute once loaded."""

    models: ModelsConfig = ModelsConfig()
    engine: EngineConfig = EngineConfig()
    tasks: tuple[TaskConfig, ...] = ()
    sampling: SamplingConfig = SamplingConfig()
    search: SearchConfig = SearchConfig()
    confirm: ConfirmConfig = ConfirmConfig()
    ablation: AblationConfig = AblationConfig()
    budget: Annotated[float, Field(gt=0)] | None = None

    @property
    def weights(self) -> dict[str, float]:
        """Each task's share in the macro average; a guard has none."""
        shares = {task.label: 0.0 if task.guard else task.weight for task in self.tasks}
        total = sum(shares.values())
        return {label: share / total for label, share in shares.items()}

    @property
    def guards(self) -> dict[str, float]:
        """How far the accuracy of each guard task may fall below the better parent's (share of 1)."""
        return {task.label: task.guard.max_drop for task in self.tasks if task.guard}

    @model_validator(mode="after")
    def _distinct_tasks(self) -> Config:
        names = [task.label for task in self.tasks]
        if len(set(names)) < len(names):
            raise ValueError(
                f"two tasks have the same name: {', '.join(map(repr, names))}; give one another name with label"
            )
        if self.tasks and all(task.guard for task in self.tasks):
            raise ValueError("tasks: every one is a guard; at least one must be searched for")
        return self


def load_config(path: Path | None, *, overrides: Mapping[str, object], settings: Sequence[str] = ()) -> Config:
    """The config of a YAML file (or nothing), with dotted ``overrides`` and ``KEY=VALUE`` settings on top.

    Without models the bundled pair's config lies underneath. Raises ``ConfigError`` in one line.
    """
    plain = read_settings(path) if path else {}
    changes = [*overrides.items(), *map(parse_setting, settings)]
    if not _names_models(plain, changes):
        plain = merged(bundled_defaults(with_task="tasks" not in plain), plain)
    for key, value in changes:
        set_key(plain, key, value)
    return _absolute(parse_config(plain))


def parse_config(plain: Mapping[str, object]) -> Config:
    """Validates a plain mapping. Raises ``ConfigError`` that lists what is wrong, with the nearest valid key."""
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        raise ConfigError(explain(Config, error)) from error


def bundled_defaults(*, with_task: bool) -> dict[str, Any]:
    """The config that comes with the bundled pair."""
    text = resources.files("autolambda").joinpath("bundled/config.yaml").read_text(encoding="utf-8")
    plain: dict[str, Any] = yaml.safe_load(text)
    if not with_task:
        del plain["tasks"]
    return plain


def _absolute(config: Config) -> Config:
    """With absolute local paths, so that a study can be resumed from another folder."""

    def absolute(source: str | None) -> str | None:
        return str(Path(source).resolve()) if source and os.path.exists(source) else source

    names = ["instruct", "thinking", "base"]
    if config.models.chat_template not in ("instruct", "thinking"):
        names.append("chat_template")
    models = config.models.model_copy(update={name: absolute(getattr(config.models, name)) for name in names})

    def located(source: Source) -> Source:
        paths = {key: absolute(getattr(source, key)) for key in ("path", "include_path")}
        return source.model_copy(update=paths)

    tasks = tuple(
        located(task).model_copy(update={"confirm_on": located(task.confirm_on) if task.confirm_on else None})
        for task in config.tasks
    )
    return config.model_copy(update={"models": models, "tasks": tasks})


def _names_models(plain: Mapping[str, Any], changes: Sequence[tuple[str, object]]) -> bool:
    """Whether the config will name a parent once the changes are made."""
    probe = {"models": copy.deepcopy(plain.get("models"))}
    for key, value in changes:
        if key.partition(".")[0] == "models":
            set_key(probe, key, value)
    models = probe["models"]
    return isinstance(models, dict) and any(models.get(parent) is not None for parent in ("instruct", "thinking"))
