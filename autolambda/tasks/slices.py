"""The slices of a config's tasks: the prompts of the search, and the unseen prompts of the confirmation.

The order of a slice depends only on the seed. For any n, its first n prompts have the slice's shares of each
difficulty. No prompt is in both a search slice and a confirm slice, even of different tasks; white space is ignored.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autolambda.errors import TaskError
from autolambda.tasks import arithmetic
from autolambda.tasks.base import Item, Phase, Slice
from autolambda.tasks.config import BUNDLED_TASK, SourceConfig, TaskConfig
from autolambda.tasks.items import Pool, bare, open_pool
from autolambda.tasks.sources import has_splits

LEAST_SEARCHED = 256  # responses of the search slices, by repeats if neither the user nor the benchmark gives any
MOST_REPEATS = 8  # of a prompt by default; a confirmation takes as many as its tokens pay


@dataclass(frozen=True)
class Slices:
    """The slices of both phases, in the tasks' order, and notes for the user."""

    search: tuple[Slice, ...]
    confirm: tuple[Slice, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ConfirmSize:
    """The size of the confirm slices: ``limit`` prompts a task (``None``: all), each with up to ``repeats`` responses.

    ``repeats`` defaults to the benchmark's, at least ``MOST_REPEATS``. ``share`` is the share of the rows that is kept
    for the confirmation if search and confirmation use the same rows.
    """

    limit: int | None
    repeats: int | None
    share: float


def open_slices(tasks: Sequence[TaskConfig], confirm: ConfirmSize, *, seed: int) -> Slices:
    """Reads the rows of all tasks and cuts them into slices, in an order drawn by ``seed``. Raises ``TaskError``."""
    notes: list[str] = []
    items: dict[Phase, list[Sequence[Item]]] = {"search": [], "confirm": []}
    graders: dict[Phase, list[str]] = {"search": [], "confirm": []}
    for task in tasks:
        pools = _pools(task, share=confirm.share, seed=seed)
        notes += [*task.test_set_notes(), *(note for pool in pools.values() for note in pool.notes)]
        for phase, pool in pools.items():
            items[phase].append(pool.items[: task.limit if phase == "search" else confirm.limit])
            graders[phase].append(pool.grader)
    _check_no_leak(*([item for part in items[phase] for item in part] for phase in items))
    num_searched = sum(len(part) for task, part in zip(tasks, items["search"], strict=True) if not task.guard)
    parts: dict[Phase, list[Slice]] = {"search": [], "confirm": []}
    for i, (task, searched, confirmed) in enumerate(zip(tasks, items["search"], items["confirm"], strict=True)):
        repeats = task.repeats or _search_repeats(task, len(searched), num_searched)
        parts["search"].append(_slice(task, graders["search"][i], searched, repeats))
        source = task.confirm_on or task
        repeats = confirm.repeats or max(source.own_repeats, MOST_REPEATS)
        parts["confirm"].append(_slice(task, graders["confirm"][i], confirmed, repeats))
    return Slices(tuple(parts["search"]), tuple(parts["confirm"]), tuple(dict.fromkeys(notes)))


def _search_repeats(task: TaskConfig, num_prompts: int, num_searched: int) -> int:
    """Returns the default repeats of a slice. All tasks but guards add up to ``num_searched`` prompts."""
    if task.own_repeats > 1:
        return task.own_repeats
    return min(MOST_REPEATS, math.ceil(LEAST_SEARCHED / max(num_prompts, num_searched if not task.guard else 0)))


def _slice(task: TaskConfig, grader: str, items: Sequence[Item], repeats: int) -> Slice:
    return Slice(
        task.label,
        grader,
        tuple(item.sample for item in items),
        repeats,
        task.weight,
        task.guard.max_drop if task.guard else None,
        task.on_grader_error,
    )


def _pools(task: TaskConfig, *, share: float, seed: int) -> dict[Phase, Pool]:
    """Returns the items that each phase may use, in the order of its slice."""
    if task.name == BUNDLED_TASK:
        return {"search": _bundled("search", task), "confirm": _bundled("confirm", task)}
    pool = _ordered(open_pool(task), seed)
    other = _confirm_source(task)
    if other is not None:
        confirm = _ordered(open_pool(other), seed)
        return {"search": _without(pool, confirm), "confirm": confirm}
    if len(pool.items) < 2:
        why = f" ({'; '.join(note.removeprefix(f'{pool.source}: ') for note in pool.notes)})" if pool.notes else ""
        raise TaskError(
            f"{pool.source}: {len(pool.items)} rows; at least 2 are needed, to search and to confirm on others{why}"
        )
    num_confirm = min(max(round(len(pool.items) * share), 1), len(pool.items) - 1)
    confirm = replace(pool, items=pool.items[:num_confirm], notes=())
    return {"search": replace(pool, items=pool.items[num_confirm:]), "confirm": confirm}


def _confirm_source(task: TaskConfig) -> SourceConfig | None:
    """Returns the source of the confirmation; ``None`` if it uses a share of the same rows."""
    if task.confirm_on is not None:
        return task.confirm_on
    benchmark = task.benchmark
    split = task.confirm_split
    if split is None and benchmark and (task.path is None or has_splits(Path(task.path))):
        split = benchmark.confirm_split
    searched = task.split or (benchmark.split if benchmark else None)
    return None if split is None or split == searched else task.model_copy(update={"split": split})


def _bundled(phase: Phase, task: TaskConfig) -> Pool:
    samples = arithmetic.read_samples(phase)
    items = (Item(each, f"arithmetic, {each.id}", each.messages[0]["content"]) for each in samples)
    return Pool("arithmetic", task.grader_name, tuple(items))


def _ordered(pool: Pool, seed: int) -> Pool:
    """Shuffles by the seed, with each difficulty spread evenly from the first item to the last."""
    items = list(pool.items)
    random.Random(seed).shuffle(items)
    strata = [str(item.sample.metadata.get("difficulty")) for item in items]
    sizes, done = Counter(strata), Counter[str]()
    keyed = []
    for number, (item, stratum) in enumerate(zip(items, strata, strict=True)):
        keyed.append(((done[stratum] + 0.5) / sizes[stratum], number, item))
        done[stratum] += 1
    return replace(pool, items=tuple(item for _, _, item in sorted(keyed, key=lambda each: each[:2])))


def _without(search: Pool, confirm: Pool) -> Pool:
    """Leaves out the search items that the confirmation uses, with a note."""
    held_back = {bare(item) for item in confirm.items}
    kept = tuple(item for item in search.items if bare(item) not in held_back)
    if not kept:
        raise TaskError(f"{search.source}: all of its prompts are in {confirm.source} too; confirm on another set")
    lost = len(search.items) - len(kept)
    note = f"{search.source}: {lost} of its prompts are in {confirm.source} too and are left out of the search"
    return replace(search, items=kept, notes=(*search.notes, *((note,) if lost else ())))


def _check_no_leak(search: Iterable[Item], confirm: Iterable[Item]) -> None:
    """Raises ``TaskError`` for prompts in both phases, of two tasks: the confirmation must use unseen prompts."""
    searched = {bare(item): item.where for item in search}
    leaks = [(bare(item), searched[bare(item)], item.where) for item in confirm if bare(item) in searched]
    if leaks:
        prompt, first, second = leaks[0]
        more = f" ({len(leaks):,} such prompts)" if len(leaks) > 1 else ""
        raise TaskError(
            f"the prompt {prompt[:60]!r} is searched on ({first}) and confirmed on ({second}); "
            f"remove it from one of them{more}"
        )
