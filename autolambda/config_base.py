"""The base class of every config section: unknown keys are errors that name the nearest key; values are frozen."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from autolambda.errors import shorten

Positive = Annotated[int, Field(ge=1, le=10**12)]
Repeats = Annotated[int, Field(ge=1, le=10_000)]
Name = Annotated[str, Field(min_length=1)]
_MOST_PROBLEMS = 8
_LONGEST = 60  # characters of a key in a message


class Strict(BaseModel):
    """A section of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: object, info: ValidationInfo) -> object:
        """Refuses true and false where a key does not take them, because pydantic would read ``true`` as 1."""
        annotation = cls.model_fields[info.field_name].annotation if info.field_name else None
        takes_them = annotation is bool or bool in get_args(annotation)
        if isinstance(value, bool) and not takes_them:
            raise ValueError(f"true and false have no meaning here, seen {str(value).lower()}")
        return value


def explain(model: type[BaseModel], error: ValidationError) -> str:
    """Returns at most 8 problems of a validation, in words and in one line."""
    problems = [_explained(model, dict(detail)) for detail in error.errors()]
    if (more := len(problems) - _MOST_PROBLEMS) > 0:
        problems[_MOST_PROBLEMS:] = [f"and {more} more"]
    return "; ".join(problems)


def _explained(model: type[BaseModel], detail: dict[str, Any]) -> str:
    """Returns one problem: the dotted key, what is wrong, and the nearest key if the key is unknown."""
    key = ".".join(str(part)[:_LONGEST] for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = _known_keys(model, detail["loc"][:-1])
        nearest = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1)
        hint = f"did you mean '{nearest[0]}'?" if nearest else f"known: {', '.join(known)}"
        if detail["loc"][0] == "engine" and not nearest:
            hint += " (vLLM's own engine arguments go with engine.name: vllm)"
        return f"unknown key {key!r}; {hint}"
    key = key if key.isprintable() else repr(key)
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return f"{key}: {message}" if key else message
    message = {"model_type": "expected keys and values", "tuple_type": "expected a list"}.get(detail["type"], message)
    return f"{key}: {message[0].lower()}{message[1:]}, seen {shorten(repr(detail['input']), 80)}"


def _known_keys(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        arguments = getattr(annotation, "__args__", ())
        candidates = [annotation, *arguments]
        model = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return list(model.model_fields)
