"""Decides what may change when a study is resumed.

Its identity (everything that its results depend on) may not change. A study may grow in trials, budget and spaces, and
may move to another machine. It may grow in prompts or repeats if the old responses stay first in the fixed order of its
slices. Then the grown study would have produced every stored response.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from autolambda.config import Config
from autolambda.errors import StudyError, shorten
from autolambda.study.store import EARLIER, StoredStudy
from autolambda.tasks.base import Slice
from autolambda.tasks.digest import PromptsKey, prompts_in_words, prompts_key
from autolambda.tasks.requests import requests_on

Slices = tuple[Sequence[Slice], Sequence[Slice]]

SIZES = ("tasks", "tasks.too_long", "search.rungs", "confirm.responses", "confirm.prompts")
"""The keys of an identity that follow from the number of prompts and repeats."""


LATER = ("sampling.end_ids", "models.prompt", "models.clock", "engine.rope")
"""Keys that a study of an earlier release lacks, and whose values follow from its other keys."""


def comparable(stored: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns a stored and a present identity with the keys that an earlier release did not write."""
    later = {key: now[key] for key in LATER if key in now}
    return {**EARLIER, **later, **stored}, {**EARLIER, **now}


def moment_of(stored: StoredStudy) -> datetime:
    """Returns the local time for which a study's prompts are rendered: as stored, else that of its creation."""
    if clock := stored.identity.get("models.clock"):
        return datetime.fromisoformat(clock)
    return datetime.fromisoformat(stored.created_at).astimezone().replace(tzinfo=None)


def check_identity(stored: StoredStudy, identity: Mapping[str, Any], *, slices: Slices) -> None:
    """Raises ``StudyError`` with every changed key if new results would not be comparable with the stored ones.

    ``slices`` are the current slices of the search and of the confirmation.
    """
    before, now = comparable(stored.identity, identity)
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if "tasks" in changed and has_grown(before.get("tasks", {}), slices):
        changed = [key for key in changed if key not in SIZES]
    if len(changed) > 1 and "models.prompt" in changed:
        changed.remove("models.prompt")  # the others changed it
    if changed:
        listed = "; ".join(
            f"{key}: {_in_words(key, before.get(key))} then, {_in_words(key, now.get(key))} now" for key in changed
        )
        raise StudyError(
            f"study '{stored.name}' was made with another config ({listed}); new results would not be comparable. "
            "Take the old values, or give another study name (--study, or study= in Python)"
        )


def has_grown(before: PromptsKey, slices: Slices) -> bool:
    """Returns whether ``slices`` request all old responses first, in the old order.

    ``before`` is the ``prompts_key`` of the old slices.
    """
    sizes = [phase["prompts"] for phase in before.values()]
    if [len(phase) for phase in sizes] != [len(phase) for phase in slices]:
        return False
    old = [
        [
            replace(part, samples=part.samples[:num_prompts], repeats=repeats)
            for part, (num_prompts, repeats) in zip(now, then, strict=True)
        ]
        for now, then in zip(slices, sizes, strict=True)
    ]
    if prompts_key(old) != before:
        return False
    for then, now in zip(old, slices, strict=True):
        asked, owed = ([each.key for each in requests_on(phase)] for phase in (then, now))
        if owed[: len(asked)] != asked:
            return False
    return True


def growth_sentence(stored: StoredStudy, config: Config, prompts: PromptsKey) -> str | None:
    """Returns a sentence on the differences from a study's stored config and prompts; ``None`` if there are none.

    Its identity is checked before, so keys that the config resolves to the same values are not named.
    """
    before, now = (dict(_flat(plain)) for plain in (stored.config, config.model_dump(mode="json")))
    for plain, key in ((before, stored.identity.get("tasks", {})), (now, prompts)):
        plain["prompts x repeats"] = prompts_in_words(key).partition(" (")[0]
    now = {
        key: value for key, value in now.items() if key in before or value not in (False, [], None)
    }  # else new keys' defaults
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key) and not _is_resolved(key)]
    listed = ", ".join(f"{key} {_short(now.get(key))} (was {_short(before.get(key))})" for key in changed)
    return f"this study goes on with {listed}" if listed else None


def _is_resolved(key: str) -> bool:
    return key == "models.think_end" or key.startswith("sampling.")


def _flat(plain: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the leaves of a config with their dotted keys; list items are numbered."""
    if isinstance(plain, Mapping) and (plain or not key):
        for name, value in plain.items():
            yield from _flat(value, f"{key}.{name}" if key else str(name))
    elif isinstance(plain, list) and any(isinstance(each, Mapping) for each in plain):
        for number, value in enumerate(plain):
            yield from _flat(value, f"{key}[{number}]")
    else:
        yield key, plain


def _in_words(key: str, value: Any) -> str:
    return prompts_in_words(value) if key == "tasks" and value else _short(value)


def _short(value: object) -> str:
    return shorten("none" if value is None else str(value) if str(value).isprintable() else repr(value), 60)
