"""What may change in a study that goes on: it may grow, and run on another machine; what its results depend on may not.

It grows in trials, budget, spaces, and in prompts or repeats as long as the responses that it has asked for stay the
first ones in the fixed order of its slices: then all that is stored is what the grown study would have measured too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autolambda.config import Config
from autolambda.errors import StudyError
from autolambda.study.store import StoredStudy
from autolambda.tasks.base import Slice
from autolambda.tasks.digest import prompts_key
from autolambda.tasks.requests import requests_on

Slices = tuple[Sequence[Slice], Sequence[Slice]]

SIZES = ("tasks", "search.rungs", "confirm.responses", "confirm.prompts")
"""The keys of an identity that follow from how many prompts and repeats there are."""


def check_identity(stored: StoredStudy, identity: Mapping[str, Any], *, slices: Slices) -> None:
    """Raises ``StudyError`` naming every key on which the stored results depend and that is different now.

    ``slices`` are those of the search and of the confirmation, as they are now.
    """
    before, now = stored.identity, identity
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if "tasks" in changed and has_grown(str(before.get("tasks")), slices):
        changed = [key for key in changed if key not in SIZES]
    if changed:
        listed = "; ".join(f"{key}: {_short(before.get(key))} then, {_short(now.get(key))} now" for key in changed)
        raise StudyError(
            f"study '{stored.name}' was made with another config ({listed}); its results would not compare. "
            "Take the old values, or give the study another name"
        )


def has_grown(before: str, slices: Slices) -> bool:
    """Whether slices whose ``prompts_key`` was ``before`` are the beginning of these, in the order of responses."""
    *sizes, _ = before.split(", ")
    phases = [re.findall(r"(\d+)x(\d+)", phase) for phase in sizes]
    if [len(phase) for phase in phases] != [len(phase) for phase in slices]:
        return False
    old = [
        [
            replace(part, samples=part.samples[: int(prompts)], repeats=int(repeats))
            for part, (prompts, repeats) in zip(now, then, strict=True)
        ]
        for now, then in zip(slices, phases, strict=True)
    ]
    if prompts_key(old) != before:
        return False
    for then, now in zip(old, slices, strict=True):
        asked, owed = ([each.key for each in requests_on(phase)] for phase in (then, now))
        if owed[: len(asked)] != asked:
            return False
    return True


def growth_sentence(stored: Mapping[str, Any], config: Config) -> str | None:
    """What of a study's stored config is different now, for people; ``None`` where nothing is."""
    before, now = (dict(_flat(plain)) for plain in (stored, config.model_dump(mode="json")))
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    listed = ", ".join(f"{key} {_short(now.get(key))} (was {_short(before.get(key))})" for key in changed)
    return f"this study goes on with {listed}" if listed else None


def _flat(plain: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a config by their dotted keys; lists of settings by number."""
    if isinstance(plain, Mapping) and (plain or not key):
        for name, value in plain.items():
            yield from _flat(value, f"{key}.{name}" if key else str(name))
    elif isinstance(plain, list) and any(isinstance(each, Mapping) for each in plain):
        for number, value in enumerate(plain):
            yield from _flat(value, f"{key}[{number}]")
    else:
        yield key, plain


def _short(value: object) -> str:
    text = "none" if value is None else str(value) if str(value).isprintable() else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
