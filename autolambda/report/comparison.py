"""Compares responses of several schedules to the same prompts: the pick, its neighbours on the front, both parents.

Counts cover all prompts that two schedules share. The responses to read are a sample that holds every pattern of right
and wrong. The sample shows what happens, not how often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas

from autolambda.engines.think_tag import USUAL
from autolambda.errors import printable
from autolambda.report.prompts import Prompts
from autolambda.report.report import Report
from autolambda.report.results import ScheduleResult
from autolambda.report.snapshot import StudySnapshot
from autolambda.responses import Graded
from autolambda.study.store import Kind, Store

NUM_RESPONSES = 500
MAX_CHARACTERS = 6000  # of one response: two thirds from its start, the rest from its end
KEEP = "\n\t\u00a0\u2009\u202f\u200d"  # line ends, tabs, special spaces and the joiner of emoji
RESPONSE_KEY = ["task", "sample_id", "repeat"]


@dataclass(frozen=True)
class Column:
    """One schedule with the evaluation that holds its responses. Columns are sorted by mean tokens."""

    title: str
    role: Literal["pick", "neighbour", "instruct", "thinking"]
    result: ScheduleResult
    kind: Kind
    key: str


@dataclass(frozen=True)
class Contrast:
    """The pick and another column on the same prompts.

    ``longer`` is the column with more mean tokens. Extra tokens ``helped`` if only the longer column is right, and
    ``hurt`` if only the shorter one is. ``counts`` and ``extra_tokens`` have the keys ``helped``, ``hurt``, ``both
    right`` and ``both wrong``. ``extra_tokens`` are mean tokens of the longer response minus the shorter one.
    """

    other: int
    longer: int
    num_common: int
    counts: Mapping[str, int]
    extra_tokens: Mapping[str, float]


@dataclass(frozen=True)
class ShownResponse:
    """One response to read; ``thinking`` is the text before the last closing think tag."""

    grade: str
    num_tokens: int
    thinking: str
    text: str
    answer: str | None


@dataclass(frozen=True)
class PromptRow:
    """One prompt with a cell per column; ``None`` if the schedule did not answer it."""

    task: str
    sample_id: str
    prompt: str | None
    target: str | None
    cells: tuple[ShownResponse | None, ...]


@dataclass(frozen=True)
class Comparison:
    """The responses to read: ``rows`` hold ``num_shown`` of the study's ``num_responses``.

    ``problem`` says why texts of prompts are missing, if any are.
    """

    columns: tuple[Column, ...]
    pick: int
    contrasts: tuple[Contrast, ...]
    rows: tuple[PromptRow, ...]
    num_shown: int
    num_responses: int
    problem: str | None


def compare(
    snapshot: StudySnapshot, store: Store, prompts: Prompts, *, num_responses: int = NUM_RESPONSES
) -> Comparison | None:
    """Returns the comparison of the pick (or the nearest result); ``None`` before there is a front.

    ``store`` must read texts. Reads only the texts of the rows.
    """
    report = snapshot.report
    columns = _columns(report)
    if not columns:
        return None
    pick = next(i for i, column in enumerate(columns) if column.role == "pick")
    outcomes = snapshot.outcomes
    frames = [_of(outcomes, column) for column in columns]
    keys = _chosen(frames, pick, num_responses // len(columns))
    texts = [_texts(store, report.study, column, keys) for column in columns]
    think_end = str(report.identity.get("models.think_end", USUAL))
    rows = []
    for task, sample_id, repeat in keys:
        found = [of_column.get((task, sample_id, repeat)) for of_column in texts]
        cells = tuple(_cell(each, think_end) if each else None for each in found)
        prompt, target = prompts.text(task, sample_id), prompts.target(task, sample_id)
        shown = None if prompt is None else legible(shortened(prompt))
        rows.append(PromptRow(legible(task), legible(sample_id), shown, target and legible(target), cells))
    return Comparison(
        columns=tuple(columns),
        pick=pick,
        contrasts=tuple(_contrast(frames, columns, pick, i) for i in range(len(columns)) if i != pick),
        rows=tuple(rows),
        num_shown=sum(cell is not None for row in rows for cell in row.cells),
        num_responses=len(outcomes),
        problem=prompts.problem,
    )


def legible(text: str) -> str:
    """Returns ``text`` with invisible characters as their Python escapes; line ends, tabs and spaces stay."""
    return printable(text.replace("\r\n", "\n"), keep=KEEP)


def shortened(text: str, limit: int = MAX_CHARACTERS) -> str:
    """Returns at most ``limit`` characters: the start, the number of characters left out, and the end."""
    if len(text) <= limit:
        return text
    head, tail = limit * 2 // 3, limit - limit * 2 // 3
    return f"{text[:head]}\n\n[… {len(text) - limit:,} characters left out …]\n\n{text[-tail:]}"


def _columns(report: Report) -> list[Column]:
    """Returns the pick, its neighbours with fewer and more tokens, and the parents, on the pick's prompts."""
    pick = report.best or report.nearest or (report.front[-1] if report.front else None)
    if pick is None:
        return []
    candidates = report.confirmed if pick.confirmed else report.smoothed_front
    others = sorted((e for e in candidates if e.schedule != pick.schedule), key=lambda e: e.score.mean_tokens)
    fewer = [each for each in others if each.score.mean_tokens <= pick.score.mean_tokens][-1:]
    more = [each for each in others if each.score.mean_tokens > pick.score.mean_tokens][:1]
    columns = [_column(pick, "pick"), *(_column(each, "neighbour") for each in (*fewer, *more))]
    for name, result in report.parents.items():
        if result is None or result is pick:
            continue
        role: Literal["instruct", "thinking"] = "instruct" if name == "instruct" else "thinking"
        if result.confirmed and pick.confirmed:
            columns.append(Column(f"{name.capitalize()} as is", role, result, "parent", name))
        elif not pick.confirmed and result.schedule not in [column.result.schedule for column in columns]:
            columns.append(Column(f"lambda {result.schedule.other:g}", role, result, "trial", str(result.trial)))
    return sorted(columns, key=lambda column: column.result.score.mean_tokens)


def _column(result: ScheduleResult, role: Literal["pick", "neighbour"]) -> Column:
    if result.trial is None:  # a parent that is the answer
        return Column(f"{result.name} as is", role, result, "parent", str(result.parent))
    kind: Kind = "confirm" if result.confirmed else "trial"
    key = result.schedule.key if result.confirmed else str(result.trial)
    return Column(f"trial {result.trial}", role, result, kind, key)


def _of(outcomes: pandas.DataFrame, column: Column) -> pandas.DataFrame:
    """Returns correctness and tokens by ``RESPONSE_KEY``, without aborted responses."""
    own = outcomes[
        (outcomes.kind == column.kind) & (outcomes.key == column.key) & (outcomes.finish_reason != "aborted")
    ]
    frame = own.assign(correct=own.grade == "correct").set_index(RESPONSE_KEY)
    return frame[["correct", "num_tokens"]]


def _contrast(frames: Sequence[pandas.DataFrame], columns: Sequence[Column], pick: int, other: int) -> Contrast:
    """Compares two columns. Columns are sorted by mean tokens, so the later one is the longer."""
    shorter, longer = min(pick, other), max(pick, other)
    both = frames[shorter].merge(frames[longer], left_index=True, right_index=True, suffixes=("_shorter", "_longer"))
    right = {"longer": both.correct_longer.to_numpy(), "shorter": both.correct_shorter.to_numpy()}
    extra = (both.num_tokens_longer - both.num_tokens_shorter).to_numpy()
    kinds = {
        "helped": right["longer"] & ~right["shorter"],
        "hurt": ~right["longer"] & right["shorter"],
        "both right": right["longer"] & right["shorter"],
        "both wrong": ~right["longer"] & ~right["shorter"],
    }
    return Contrast(
        other=other,
        longer=longer,
        num_common=len(both),
        counts={name: int(members.sum()) for name, members in kinds.items()},
        extra_tokens={name: float(extra[members].mean()) for name, members in kinds.items() if members.any()},
    )


def _chosen(frames: Sequence[pandas.DataFrame], pick: int, num_rows: int) -> list[tuple[str, str, int]]:
    """Chooses the responses to read, by ``RESPONSE_KEY``.

    Prompts with answers in most columns come first. Among these the order is random, and patterns of right and wrong
    take turns.
    """
    patterns = pandas.DataFrame({i: frame.correct.astype(float) for i, frame in enumerate(frames)}).fillna(-1)
    patterns = patterns.loc[frames[pick].index]
    asked = (patterns >= 0).sum(axis=1)
    shuffled = np.random.default_rng(0).permutation(len(patterns))
    order = shuffled[np.argsort(-asked.to_numpy()[shuffled], kind="stable")]
    patterns = patterns.iloc[order]
    turn = patterns.groupby([*patterns.columns], sort=False).cumcount()
    most = asked.iloc[order] == asked.max()
    chosen = pandas.DataFrame({"turn": turn, "less": ~most}).sort_values(["less", "turn"], kind="stable")
    return [(str(task), str(sample), int(repeat)) for task, sample, repeat in chosen.index[:num_rows]]


def _texts(
    store: Store, study: str, column: Column, keys: Sequence[tuple[str, str, int]]
) -> dict[tuple[str, str, int], Graded]:
    samples = sorted({sample for _, sample, _ in keys})
    return {
        each.key: each
        for evaluation in store.evaluations(study, kind=column.kind, key=column.key)
        for each in store.graded(evaluation, sample_ids=samples)
        if each.response.finish_reason != "aborted"
    }


def _cell(graded: Graded, think_end: str) -> ShownResponse:
    thinking, _, text = graded.response.text.rpartition(think_end)
    answer = None if graded.answer is None else legible(shortened(graded.answer, 300))
    return ShownResponse(
        graded.grade.value,
        graded.response.num_tokens,
        legible(shortened(thinking.strip())),
        legible(shortened(text.strip())),
        answer,
    )
