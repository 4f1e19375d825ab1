"""The same prompts answered by several schedules, side by side: the pick, its neighbours on the front, both parents.

The counts are of all prompts that two schedules share. The responses to read are a few of them, chosen so that every
pattern of right and wrong is there: they show what happens, not how often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas

from autolambda.report.prompts import Prompts
from autolambda.report.report import Report, confirm_key
from autolambda.report.results import ScheduleResult
from autolambda.report.snapshot import StudySnapshot
from autolambda.responses import Graded
from autolambda.study.store import Kind, Store

NUM_RESPONSES = 500
MAX_CHARACTERS = 6000  # of one response: two thirds from its start, the rest from its end
PLACE = ["task", "sample_id", "repeat"]


@dataclass(frozen=True)
class Column:
    """One schedule's responses: those of an evaluation. Fewest mean tokens come first."""

    title: str
    role: Literal["pick", "neighbour", "instruct", "thinking"]
    result: ScheduleResult
    kind: Kind
    key: str


@dataclass(frozen=True)
class Contrast:
    """Responses to the same prompts by the pick and another column: counts by who was right.

    ``longer`` is the column with more mean tokens: what only it got right is where extra tokens helped, what only the
    other got right is where they hurt. ``extra_tokens`` are the mean tokens that it took more, by the same four keys.
    """

    other: int
    longer: int
    num_common: int
    counts: Mapping[str, int]
    extra_tokens: Mapping[str, float]


@dataclass(frozen=True)
class ShownResponse:
    """One response as it is read; ``thinking`` is what stands before the last closing think tag."""

    grade: str
    num_tokens: int
    thinking: str
    text: str
    answer: str | None


@dataclass(frozen=True)
class PromptRow:
    """One prompt with a cell a column, ``None`` where that schedule was not asked."""

    task: str
    sample_id: str
    prompt: str | None
    target: str | None
    cells: tuple[ShownResponse | None, ...]


@dataclass(frozen=True)
class Comparison:
    """What there is to read. ``num_shown`` responses are in ``rows``, of ``num_responses`` in the study."""

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
    """The comparison around the pick, or around the nearest; ``None`` where there is no front yet.

    ``store`` reads texts; only those of the rows are read.
    """
    report = snapshot.report
    columns = _columns(report)
    if not columns:
        return None
    pick = next(i for i, column in enumerate(columns) if column.role == "pick")
    outcomes = snapshot.outcomes
    frames = [_of(outcomes, column) for column in columns]
    places = _places(frames, pick, num_responses // len(columns))
    texts = [_texts(store, report.study, column, places) for column in columns]
    think_end = report.config.models.think_end
    rows = []
    for task, sample_id, repeat in places:
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
    """``text`` with what is invisible or moves the cursor as its Python escape; line ends, tabs and spaces stay."""
    if text.isprintable():
        return text
    kept = "\n\t\u00a0\u2009\u202f\u200d"
    return "".join(c if c.isprintable() or c in kept else repr(c)[1:-1] for c in text.replace("\r\n", "\n"))


def shortened(text: str, limit: int = MAX_CHARACTERS) -> str:
    """At most ``limit`` characters of a text, and how many were left out of its middle."""
    if len(text) <= limit:
        return text
    head, tail = limit * 2 // 3, limit - limit * 2 // 3
    return f"{text[:head]}\n\n[… {len(text) - limit:,} characters left out …]\n\n{text[-tail:]}"


def _columns(report: Report) -> list[Column]:
    """The pick, the next on the front to either side, and the parents; all on the same slice as the pick."""
    pick = report.best or report.nearest or (report.front[-1] if report.front else None)
    if pick is None:
        return []
    candidates = report.confirmed if pick.confirmed else report.smoothed_front
    others = sorted((e for e in candidates if e.schedule != pick.schedule), key=lambda e: e.score.mean_tokens)
    fewer = [each for each in others if each.score.mean_tokens <= pick.score.mean_tokens][-1:]
    more = [each for each in others if each.score.mean_tokens > pick.score.mean_tokens][:1]
    columns = [_column(pick, "pick"), *(_column(each, "neighbour") for each in (*fewer, *more))]
    for name, result in report.parents.items():
        if result is None:
            continue
        role: Literal["instruct", "thinking"] = "instruct" if name == "instruct" else "thinking"
        if result.confirmed and pick.confirmed:
            columns.append(Column(f"{name.capitalize()} as is", role, result, "parent", name))
        elif not pick.confirmed and result.schedule not in [column.result.schedule for column in columns]:
            columns.append(Column(f"lambda {result.schedule.other:g}", role, result, "trial", str(result.trial)))
    return sorted(columns, key=lambda column: column.result.score.mean_tokens)


def _column(result: ScheduleResult, role: Literal["pick", "neighbour"]) -> Column:
    kind: Kind = "confirm" if result.confirmed else "trial"
    key = confirm_key(result.schedule) if result.confirmed else str(result.trial)
    return Column(f"trial {result.trial}", role, result, kind, key)


def _of(outcomes: pandas.DataFrame, column: Column) -> pandas.DataFrame:
    """Whether each response was correct and its tokens, by its place; aborted ones are none."""
    own = outcomes[
        (outcomes.kind == column.kind) & (outcomes.key == column.key) & (outcomes.finish_reason != "aborted")
    ]
    frame = own.assign(correct=own.grade == "correct").set_index(PLACE)
    return frame[["correct", "num_tokens"]]


def _contrast(frames: Sequence[pandas.DataFrame], columns: Sequence[Column], pick: int, other: int) -> Contrast:
    """Columns come fewest tokens first: of two the later is the longer."""
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


def _places(frames: Sequence[pandas.DataFrame], pick: int, num_places: int) -> list[tuple[str, str, int]]:
    """Where to read: of each pattern of right, wrong and not asked in turn, those that more columns answered first."""
    patterns = pandas.DataFrame({i: frame.correct.astype(float) for i, frame in enumerate(frames)}).fillna(-1)
    patterns = patterns.loc[frames[pick].index]
    asked = (patterns >= 0).sum(axis=1)
    shuffled = np.random.default_rng(0).permutation(len(patterns))
    order = shuffled[np.argsort(-asked.to_numpy()[shuffled], kind="stable")]
    patterns = patterns.iloc[order]
    turn = patterns.groupby([*patterns.columns], sort=False).cumcount()
    most = asked.iloc[order] == asked.max()
    chosen = pandas.DataFrame({"turn": turn, "less": ~most}).sort_values(["less", "turn"], kind="stable")
    return [(str(task), str(sample), int(repeat)) for task, sample, repeat in chosen.index[:num_places]]


def _texts(
    store: Store, study: str, column: Column, places: Sequence[tuple[str, str, int]]
) -> dict[tuple[str, str, int], Graded]:
    evaluation = next((e for e in store.evaluations(study, kind=column.kind) if e.key == column.key), None)
    if evaluation is None:
        return {}
    graded = store.graded(evaluation, sample_ids=sorted({sample for _, sample, _ in places}))
    return {each.key: each for each in graded if each.response.finish_reason != "aborted"}


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
