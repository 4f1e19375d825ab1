"""Decides what may change when a study is resumed.

Its identity (everything that its results depend on) may not change. A study may grow in trials, budget and spaces, and
may move to another machine. It may grow in prompts or repeats if the old responses stay first in the fixed order of its
slices. Then the grown study would have produced every stored response.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from autolambda.config import Config, parse_config
from autolambda.errors import StudyError, shorten
from autolambda.study.store import EARLIER, StoredStudy
from autolambda.tasks.base import Slice
from autolambda.tasks.digest import PromptsKey, prompts_in_words, prompts_key
from autolambda.tasks.requests import requests_on

Slices = tuple[Sequence[Slice], Sequence[Slice]]

SIZES = ("tasks", "tasks.too_long", "search.rungs", "confirm.responses", "confirm.prompts")
"""The keys of an identity that follow from the number of prompts and repeats."""

GROWN = ("models.base", "models.third")
"""Keys that a study has from the moment its spaces read these models: no earlier schedule does."""

LATER = ("sampling.end_ids", "models.prompt", "models.clock", "engine.rope")
"""Keys that a study of an earlier release lacks, and whose values follow from its other keys."""

DIGESTS = {
    "models.instruct": "other weights than then",
    "models.thinking": "other weights than then",
    "models.base": "other weights than then",
    "models.third": "other weights than then",
    "models.chat_template": "another template than then",
    "models.vocabulary": "another vocabulary than then",
    "models.prompt": "the same prompts are rendered to other texts or tokens than then",
}
"""The keys of an identity whose values are digests, with what a change of them means."""


def comparable(stored: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns a stored and a present identity with the keys that an earlier release did not write."""
    later = {key: now[key] for key in (*LATER, *GROWN) if key in now}
    return {**EARLIER, **later, **stored}, {**EARLIER, **now}


def moment_of(stored: StoredStudy) -> datetime:
    """Returns the local time for which a study's prompts are rendered: as stored, else that of its creation."""
    if clock := stored.identity.get("models.clock"):
        return datetime.fromisoformat(clock)
    return datetime.fromisoformat(stored.created_at).astimezone().replace(tzinfo=None)


def check_identity(
    stored: StoredStudy, identity: Mapping[str, Any], *, slices: Slices, config: Config | None = None
) -> None:
    """Raises ``StudyError`` with every changed key if new results would not be comparable with the stored ones.

    A narrower ``search.range`` is refused too, because stored trials may lie outside it.
    ``slices`` are the current slices of the search and of the confirmation. With the current ``config``, another task
    or other models are told by their names, with a name for a study of their own.
    """
    before, now = comparable(stored.identity, identity)
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if "tasks" in changed and has_grown(before.get("tasks", {}), slices):
        changed = [key for key in changed if key not in SIZES]
    if len(changed) > 1 and "models.prompt" in changed:
        changed.remove("models.prompt")  # the others changed it
    if not changed:
        _check_range(stored, config)
        return
    others, follows, name = _others(stored, config, changed) if config else ([], frozenset[str](), "")
    listed = "; ".join(_change(key, before.get(key), now.get(key)) for key in changed if key not in follows)
    if others:
        more = f"; also changed: {listed}" if listed else ""
        raise StudyError(f"study '{stored.name}' has {' and '.join(others)}{more}; start this one with --study {name}")
    raise StudyError(
        f"study '{stored.name}' was made with another config ({listed}); new results would not be comparable. "
        "Take the old values, or give another study name (--study, or study= in Python)"
    )


def _check_range(stored: StoredStudy, config: Config | None) -> None:
    if config is None:
        return
    then, now = parse_config(stored.settings).search.range, config.search.range
    if now[0] > then[0] or now[1] < then[1]:
        raise StudyError(
            f"study '{stored.name}' has searched lambdas in {[*then]}, and search.range {[*now]} is narrower; "
            "take a range that holds the old one, or give another study name (--study, or study= in Python)"
        )


def _others(stored: StoredStudy, config: Config, changed: Sequence[str]) -> tuple[list[str], frozenset[str], str]:
    """Returns what else the study is about, in words; the changed keys that follow from it; a name for a new study."""
    words, follows, name = list[str](), set[str](), f"{stored.name}-2"
    plain = config.model_dump(mode="json")
    then, now = (_sources(tasks) for tasks in (stored.config.get("tasks", ()), plain["tasks"]))
    if "tasks" in changed and then != now:
        kind = "another task file" if any(task.get("path") for task in plain["tasks"]) else "another task"
        words.append(f"{kind} ({', '.join(then)} then, {', '.join(now)} now)")
        follows |= {*SIZES, "models.prompt"}
        name = _as_name(Path(now[0]).stem, stored.name)
    before, after = (_parents(models) for models in (stored.config.get("models", {}), plain["models"]))
    if before != after and {"models.instruct", "models.thinking"} & {*changed}:
        words.append(f"other models ({' and '.join(before)} then, {' and '.join(after)} now)")
        follows |= {key for key in changed if key.startswith("models.")}
        name = _as_name(after[1], stored.name)
    return words, frozenset(follows), name


def _sources(tasks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the tasks by what they are read from, without folders."""
    keys = ("path", "name", "hub", "lm_eval")
    return [Path(str(next(filter(None, (task.get(key) for key in keys)), "?"))).name for task in tasks]


def _parents(models: Mapping[str, Any]) -> list[str]:
    return [Path(str(models.get(name) or name)).name for name in ("instruct", "thinking")]


def _as_name(text: str, taken: str) -> str:
    """Returns a text as the name of a study that is not ``taken``."""
    name = re.sub(r"[^A-Za-z0-9._-]+|\.\.+", "-", text).strip(".-_")[:60] or "study"
    return f"{name}-2" if name == taken else name


def _change(key: str, before: object, now: object) -> str:
    """Returns a changed key with its values; a digest is not shown, for it tells nothing."""
    if key in DIGESTS and before is not None and now is not None:
        return f"{key}: {DIGESTS[key]}"
    then, current = _in_words(key, before), _in_words(key, now)
    if key in GROWN and now is None:
        space = "scale" if key == "models.base" else "third"
        return f"search.spaces: with {space} then, without it now"
    return (
        f"{key}: other prompts, {then}" if key == "tasks" and then == current else f"{key}: {then} then, {current} now"
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
    then = parse_config(stored.settings)  # with the defaults of keys that are younger than the study
    before, now = (dict(_flat(each.model_dump(mode="json"))) for each in (then, config))
    for plain, key in ((before, stored.identity.get("tasks", {})), (now, prompts)):
        plain["prompts x repeats"] = prompts_in_words(key).partition(" (")[0]
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
    return prompts_in_words(value).partition(" (")[0] if key == "tasks" and value else _short(value)


def _short(value: object) -> str:
    return shorten("none" if value is None else str(value) if str(value).isprintable() else repr(value), 60)
