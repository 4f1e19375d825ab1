"""The config's sections about the models: the parents, how merges are rounded, how responses are sampled."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from autolambda.config_base import Name, Positive, Strict
from autolambda.merging.method import Role, RoundingName


class ModelsConfig(Strict):
    """The models: folders or hub ids. Without the parents the bundled pair is used, with its base model.

    ``base`` is the base model of both parents, and ``third`` a third parent, for schedules and methods that read them.

    ``think_end`` is the tag that closes thinking. ``None`` is the one of the Thinking parent's template and tokens.
    ``vision`` is the parent whose tensors outside the language model every merge has. A search stops if the parents
    look swapped (INSTRUCT thinks, THINKING does not), unless ``allow_swapped`` is true.
    """

    instruct: Name | None = None
    thinking: Name | None = None
    base: Name | None = None
    third: Name | None = None
    chat_template: Name = "thinking"
    chat_template_kwargs: dict[str, JsonValue] = Field(default_factory=dict)
    tokenizer: Literal["thinking", "instruct"] = "thinking"
    think_end: Name | None = None
    vision: Role = "thinking"
    allow_swapped: bool = False

    @model_validator(mode="after")
    def _both_or_none(self) -> ModelsConfig:
        if (self.instruct is None) != (self.thinking is None):
            raise ValueError("give both models.instruct and models.thinking, or neither")
        return self

    @property
    def bundled(self) -> bool:
        return self.instruct is None

    @property
    def swapped_names(self) -> Literal["both", "one"] | None:
        """Whether both names say that the models are swapped, or one of them does. ``None`` if neither does."""
        kinds = _kind(self.instruct), _kind(self.thinking)
        if self.allow_swapped or kinds[0] == kinds[1] or "instruct" in kinds[:1] or "thinking" in kinds[1:]:
            return None
        return "both" if all(kinds) else "one"


_KINDS = {
    "instruct": re.compile(r"\b(instruct|chat|it|non?[ -]?think(ing)?)\b"),
    "thinking": re.compile(r"(?<!no )(?<!non )\b(think(ing)?|reason(ing|er)?|r1|qwq)\b"),
}


def _kind(source: str | None) -> str | None:
    """Returns what the last part of a path or hub id says of a model; ``None`` if it says nothing or both."""
    words = re.sub(r"[^a-z0-9]+", " ", Path(source or "").name.lower())
    found = [kind for kind, pattern in _KINDS.items() if pattern.search(words)]
    return found[0] if len(found) == 1 else None


class MergeConfig(Strict):
    """How merges in bfloat16 and float16 are rounded, and the seed of dithered rounding."""

    rounding: RoundingName = "dithered"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


class CapConfig(Strict):
    """The rival: Thinking with a cap on its thinking, measured beside the pick if ``measure`` is true.

    ``closing`` ends the thinking at the cap. ``auto`` is the phrase of the model's makers; without one, the better of a
    general phrase and the bare tag. ``tag`` is the bare tag. Any other text must hold the tag.
    """

    measure: bool = True
    closing: Name = "auto"


Penalty = Annotated[float, Field(ge=-2, le=2)]  # the range of OpenAI and vLLM


class SamplingConfig(Strict):
    """How tokens are sampled; ``None`` takes the value from the Thinking parent's generation config."""

    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    stop: tuple[Name, ...] | None = None
    max_tokens: Positive | None = None
