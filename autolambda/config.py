"""The configuration: pydantic models of the YAML. Unknown keys are errors, and the message names the nearest key.

``Config`` holds what the user wrote. ``None`` means a default that is taken from the parents when a study is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from autolambda.coefficients import LIMITS
from autolambda.config_base import Name, Positive, Repeats, Strict, explain
from autolambda.config_models import CapConfig, MergeConfig, ModelsConfig, SamplingConfig
from autolambda.errors import ConfigError
from autolambda.merging.method import BaselineMethod
from autolambda.optimizer.settings import SamplerName, SearchSettings
from autolambda.optimizer.space import DECIMALS, Space
from autolambda.tasks.config import SourceConfig, TaskConfig
from autolambda.tasks.slices import ConfirmSize

EngineName = Literal["transformers", "vllm"]
BaselineName = Literal[BaselineMethod, "acm", "sweep", "cut"]
TrackerName = Literal["mlflow", "wandb", "tensorboard"]
Source = TypeVar("Source", bound=SourceConfig)

AblationName = Literal["uniform", "layers", "modules", "decoding", "backbones", "methods"]
ABLATIONS: tuple[AblationName, ...] = get_args(AblationName)

Lam = Annotated[float, Field(ge=0, le=1)]
_LOW, _HIGH = LIMITS["lambda"]
Lambda = Annotated[float, Field(ge=_LOW, le=_HIGH), AfterValidator(lambda value: round(value, DECIMALS))]
Lams = Annotated[tuple[Lam, ...], Field(min_length=1)]

RUNGS = (64, 256, 1024)  # responses; the whole slice is always the last rung

_REFUSED = {
    "vllm": {
        "device": "is for transformers; leave it out, and choose vLLM's GPUs with CUDA_VISIBLE_DEVICES",
        "threads": "is for transformers; leave it out, and choose vLLM's cores with VLLM_CPU_OMP_THREADS_BIND",
    },
    "transformers": {
        "merge": "is for vLLM; leave it out, or set engine.name to vllm",
        "parents": "is for vLLM; leave it out, or set engine.name to vllm",
        "seeds": "is for vLLM; leave it out, or set engine.name to vllm",
    },
}
"""The keys that only the other engine accepts, with what to do instead."""


class EngineConfig(Strict):
    """The engine that generates. ``batch_size`` responses are generated, stored and resumed together.

    It defaults to 256 with transformers, and to all responses of an evaluation with vLLM. ``merge``, ``parents`` and
    ``seeds`` are for vLLM: how weights are merged, where the parents are kept, and whether a call or each request has a
    seed. ``workers`` is the number of engines, each on separate GPUs. With ``name: vllm`` every further key is an
    engine argument of vLLM.
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
    seeds: Literal["auto", "call", "request"] = "auto"
    workers: Annotated[int, Field(ge=1, le=4096)] = 1

    @property
    def arguments(self) -> dict[str, Any]:
        """The engine arguments that are passed to vLLM unchanged."""
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


class SearchConfig(Strict):
    """The trials and tokens of a search, and the schedules that it tries.

    At most ``ladder`` of the ``trials`` go to the ladder (uniform lambdas, measured first). Every second further trial
    is in the first of the ``spaces``; the others take turns. ``rungs`` are the numbers of responses after which a trial
    may stop; ``None`` is 64, 256, 1,024 and the whole slice. With ``grow_rungs`` the first rung grows if the engine
    would mostly wait for its last responses; ``None`` grows it with vLLM on a GPU, unless ``rungs`` are given.
    ``range``, to four decimals, is that of every lambda after the ladder; outside [0, 1] it extrapolates. The space
    ``scale`` needs ``models.base``, and ``third`` needs ``models.third``. ``max_tokens_generated`` limits search and
    confirmation together; ``None`` is the tokens of both parents on the slice, with at least 2,048 responses each.
    Unless a merge leads the parents, the search ends when one more finalist should gain less than ``min_gain`` (share
    of 1). The trackers in ``callbacks`` log every evaluation and the answer.
    """

    spaces: Annotated[tuple[Space, ...], Field(min_length=1)] = ("uniform", "module", "both")
    range: tuple[Lambda, Lambda] = (0.0, 1.0)
    trials: Annotated[int, Field(ge=2, le=10**6)] = 18
    ladder: Annotated[int, Field(ge=2, le=10**6)] = 9
    knots: Annotated[int, Field(ge=2, le=6)] = 3
    sampler: SamplerName = "surrogate"
    rungs: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    grow_rungs: bool | None = None
    max_tokens_generated: Positive | None = None
    min_gain: Annotated[float, Field(ge=0, lt=1)] = 0.002
    baselines: tuple[BaselineName, ...] = ()
    callbacks: tuple[TrackerName, ...] = ()
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @model_validator(mode="after")
    def _whole_range(self) -> SearchConfig:
        if self.range[0] > 0 or self.range[1] < 1:
            raise ValueError(f"range: must hold 0 and 1, which are the parents, seen {[*self.range]}")
        return self

    def rungs_of(self, num_responses: int) -> tuple[int, ...]:
        """Returns the rungs of a slice of ``num_responses``: the rungs below this size, then the size."""
        return (*sorted(rung for rung in {*(self.rungs or RUNGS)} if rung < num_responses), num_responses)


class ConfirmConfig(Strict):
    """The confirmation: ``limit`` prompts a task for up to ``finalists`` schedules.

    A cheaper schedule is preferred if it is shown to lose less than ``margin`` accuracy (share of 1), and a uniform
    lambda if it is expected to. If a task has no other rows for the confirmation, ``share`` of its rows is kept for it.
    """

    limit: Positive | None = 1024
    repeats: Repeats | None = None  # up to 8, or the benchmark's: as many as the tokens pay
    finalists: Positive = 6
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.01
    share: Annotated[float, Field(gt=0, lt=1)] = 2 / 3


class AblationConfig(Strict):
    """The ablations. ``partial_lambda`` is used for interpolated layers and modules, and for SLERP.

    ``decoding_lambdas`` are measured at each of the ``temperatures`` with each of the ``top_ps``. ``backbones`` are
    models that replace Instruct; the default is ``models.base``. Each ablation is measured on the first ``responses``
    responses of the confirm slice; ``None`` is one for each prompt, or the benchmark's repeats.
    """

    lambdas: Lams = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    partial_lambda: Annotated[float, Field(gt=0, le=1)] = 0.8
    decoding_lambdas: Lams = (0.4, 0.8)
    temperatures: Annotated[tuple[Annotated[float, Field(ge=0, le=100)], ...], Field(min_length=1)] = (0.6, 0.7)
    top_ps: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (0.8, 0.95)
    backbones: tuple[Name, ...] = ()
    backbone_lambdas: Lams = (0.0, 0.4, 0.6, 0.8)
    methods: tuple[BaselineMethod, ...] = get_args(BaselineMethod)
    responses: Positive | None = None


class Config(Strict):
    """The whole configuration. Loading makes the paths of local parents and task files absolute."""

    models: ModelsConfig = ModelsConfig()
    merge: MergeConfig = MergeConfig()
    engine: EngineConfig = EngineConfig()
    tasks: tuple[TaskConfig, ...] = ()
    sampling: SamplingConfig = SamplingConfig()
    search: SearchConfig = SearchConfig()
    confirm: ConfirmConfig = ConfirmConfig()
    cap: CapConfig = CapConfig()
    ablation: AblationConfig = AblationConfig()
    budget: Annotated[float, Field(gt=0)] | None = None

    @property
    def further(self) -> tuple[str, ...]:
        """The roles of the models beside both parents that the search's schedules read."""
        needs = {"scale": "base", "third": "third"}
        return tuple(role for space, role in needs.items() if space in self.search.spaces)

    @property
    def weights(self) -> dict[str, float]:
        """Each task's weight in the average over tasks; a guard has weight 0."""
        shares = {task.label: 0.0 if task.guard else task.weight for task in self.tasks}
        total = sum(shares.values())
        return {label: share / total for label, share in shares.items()}

    @property
    def guards(self) -> dict[str, float]:
        """How far each guard's accuracy (share of 1) may fall below the better parent's."""
        return {task.label: task.guard.max_drop for task in self.tasks if task.guard}

    @property
    def wants_cap(self) -> bool:
        """Whether a confirmation for a budget measures Thinking with a cap on its thinking."""
        return self.cap.measure or "cut" in self.search.baselines

    @property
    def confirm_size(self) -> ConfirmSize:
        return ConfirmSize(self.confirm.limit, self.confirm.repeats, self.confirm.share)

    @property
    def search_settings(self) -> SearchSettings:
        search, confirm = self.search, self.confirm
        return SearchSettings(
            spaces=search.spaces,
            trials=search.trials,
            ladder=search.ladder,
            knots=search.knots,
            sampler=search.sampler,
            max_tokens_generated=search.max_tokens_generated,
            min_gain=search.min_gain,
            seed=search.seed,
            finalists=confirm.finalists,
            margin=confirm.margin,
            range=search.range,
        )

    @model_validator(mode="after")
    def _models_of_the_spaces(self) -> Config:
        for space, source in (("scale", self.models.base or self.models.bundled), ("third", self.models.third)):
            if space in self.search.spaces and not source:
                role = "base" if space == "scale" else "third"
                raise ValueError(f"search.spaces: {space} needs models.{role}; set it, or leave the space out")
        return self

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


def parse_config(plain: Mapping[str, object]) -> Config:
    """Validates a plain mapping. Raises ``ConfigError`` with every problem and the nearest valid keys."""
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        raise ConfigError(explain(Config, error)) from error
