"""The items of a source: every row as a prompt with a target, once each, without the rows that cannot be used.

A few unusable rows (by default at most 5 % of them) are left out with a note that counts them and names the first three
of each kind. More are refused, with all kinds in one error. Rows that repeat a prompt are left out, however many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autolambda.errors import TaskError, reason
from autolambda.graders.grading import find_grader, likely_grader
from autolambda.tasks import lm_eval
from autolambda.tasks.base import Item
from autolambda.tasks.config import MAX_UNUSABLE, SourceConfig
from autolambda.tasks.patterns.free_form import MATH, PLAIN, conversation, free_form
from autolambda.tasks.patterns.multiple_choice import CHOICES, counting_note, multiple_choice
from autolambda.tasks.patterns.prompt import columns_in, doubled_columns, formatted_columns, latex_columns
from autolambda.tasks.recognition import recognised
from autolambda.tasks.rows import Row, UnusableRow
from autolambda.tasks.sources import read_hub, read_path
from autolambda.tasks.unusable import NUM_NAMED, left_out

MOST_TARGET = 1_000_000  # characters of an answer, which is compared with every response

Used = tuple[Row, Item]
Maker = Callable[[Row], Item]


@dataclass(frozen=True)
class Pool:
    """All items of one source, its grader, and notes for the user."""

    source: str
    grader: str
    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()


def bare(item: Item) -> str:
    """Returns an item's question without differences in white space, by which repeated prompts are found."""
    return " ".join(item.question.split())


def open_pool(source: SourceConfig) -> Pool:
    """Returns a source's items, each once, with targets that its grader accepts. Raises ``TaskError``."""
    name = source.path or source.hub or (source.benchmark.hub if source.benchmark else f"lm-eval {source.lm_eval}")
    mine = source.path is not None and source.name is None
    if source.lm_eval is not None:
        return _pool_of_harness(source, name)
    rows, notes = _rows(source), list[str]()
    if not rows:
        raise TaskError(f"{name}: 0 rows; at least 2 are needed, to search and to confirm on others")
    if source.benchmark is None:
        readable = [row for row in rows if not row.problem]
        columns = dict.fromkeys(column for row in readable for column in row.cells)
        source, notes = recognised(source, readable, columns)
        if source.choices is not None:
            notes += _counting(source, readable, name)
        make, more = _maker(source, rows, columns if readable else None, name)
        notes += more
    else:
        make = source.benchmark.item
    used, problems = _used(rows, make, source.grader_name)
    has_own_ids = source.benchmark is not None and any(item.sample.id != row.id for row, item in used)
    used, repeated = _distinct(used, name, mine=mine, by_id=has_own_ids)
    if not has_own_ids:
        used, more, twice = _with_ids(used, source, name, mine=mine)
        repeated, problems = repeated + more, problems + twice
    notes = [*(f"{name}: {note}" for note in notes), *left_out(problems, source, len(rows), name), *repeated]
    return Pool(name, source.grader_name, tuple(item for _, item in used), tuple(notes))


def _pool_of_harness(source: SourceConfig, name: str) -> Pool:
    items = lm_eval.read_items(str(source.lm_eval), include_path=source.include_path, num_fewshot=source.num_fewshot)
    used = [(Row({}, item.where, f"document {number}"), item) for number, item in enumerate(items, start=1)]
    for row, item in used:
        _check_target(row, item.sample.target, source.grader_name)
    used, notes = _distinct(used, name, mine=False, by_id=True)
    return Pool(name, source.grader_name, tuple(item for _, item in used), tuple(notes))


def _rows(source: SourceConfig) -> list[Row]:
    benchmark = source.benchmark
    subset, split = (benchmark.subset, benchmark.split) if benchmark else (None, None)
    if source.path is not None:
        given = {"subset": source.subset, "split": source.split}
        return read_path(Path(source.path), **given, usual_subset=subset, usual_split=split)
    hub = benchmark.hub if benchmark else source.hub
    assert hub is not None
    return read_hub(hub, subset=source.subset or subset, split=source.split or split, revision=source.revision)


def _maker(
    source: SourceConfig, rows: Sequence[Row], columns: Mapping[str, None] | None, name: str
) -> tuple[Maker, list[str]]:
    """Returns the function from a row to its item, and notes. ``columns`` are those of the rows, if any is readable."""
    usual = CHOICES if source.choices else MATH if source.grader_name == "math" else PLAIN
    prompt, wanted, notes = source.prompt or usual, list[str](), list[str]()
    if columns is not None and source.prompt:
        own = ["question", "choices", "letters"] if source.choices else ["question"]
        try:
            wanted = columns_in(prompt, columns, own=own, answer=source.answer)
        except TaskError as error:
            raise TaskError(f"{name}: {error}") from error
        if kept := latex_columns(prompt, columns):
            notes.append(f"prompt: {{{kept[0]}}} stays as it is, as the argument of a LaTeX command")
        if formatted := formatted_columns(prompt, columns):
            notes.append(f"prompt: {{{formatted[0]}}} stays as it is; only a name fills in a column")
        if doubled := doubled_columns(prompt, columns, answer=source.answer):
            notes.append(f"prompt: {{{{{doubled[0]}}}}} gives {{{doubled[0]}}}; single braces fill in the column")
    difficulty, more = _difficulty_column(source, rows)

    def make(row: Row) -> Item:
        if source.messages is not None:
            item = conversation(row, messages=source.messages, answer=source.answer, grader=source.grader_name)
        elif source.choices is not None:
            item = multiple_choice(
                row, question=source.question, choices=source.choices, answer=source.answer, prompt=prompt,
                columns=wanted,
            )  # fmt: skip
        else:
            item = free_form(
                row, question=source.question, answer=source.answer, grader=source.grader_name, prompt=prompt,
                columns=wanted,
            )  # fmt: skip
        value = row.cell(difficulty, key="difficulty") if difficulty and row.has(difficulty) else None
        metadata = {} if _is_missing(value) else {"difficulty": row.as_text(value, repr(difficulty))}
        id = row.id_in(source.id) if source.id else row.id
        return replace(item, sample=replace(item.sample, id=id, metadata=metadata))

    return make, notes + more


def _counting(source: SourceConfig, rows: Sequence[Row], name: str) -> list[str]:
    try:
        note = counting_note(rows, choices=str(source.choices), answer=source.answer)
    except TaskError as error:
        raise TaskError(f"{name}, {error}") from error
    return [note] if note else []


def _difficulty_column(source: SourceConfig, rows: Sequence[Row]) -> tuple[str | None, list[str]]:
    """Returns the column by which slices are balanced. One that the config does not name must hold texts or numbers."""
    if source.difficulty:
        readable = [row for row in rows if not row.problem]
        if readable and not any(row.has(source.difficulty) for row in readable):
            readable[0].cell(source.difficulty, key="difficulty")  # raises
        return source.difficulty, []
    for row in rows:
        value = row.cells.get("difficulty")
        try:
            if not _is_missing(value):
                row.as_text(value, "'difficulty'")
        except UnusableRow as error:
            return None, [f"the column 'difficulty' is not used ({row.place}{error.detail}); difficulty names another"]
    return "difficulty", []


def _is_missing(difficulty: object) -> bool:
    return difficulty is None or difficulty == "" or difficulty != difficulty


def _used(rows: Sequence[Row], make: Maker, grader: str) -> tuple[list[Used], list[UnusableRow]]:
    """Returns the usable rows with their items, and the problems of the others."""
    used, problems = [], []
    for row in rows:
        try:
            item = make(row)
            _check_target(row, item.sample.target, grader)
        except UnusableRow as error:
            problems.append(error)
        else:
            used.append((row, item))
    return used, problems


def _check_target(row: Row, target: str, grader: str) -> None:
    """Raises ``UnusableRow`` for a target that its grader does not accept: no response could meet it."""
    if len(target) > MOST_TARGET:
        raise UnusableRow(row, "the answer", f" has {len(target):,} characters; give at most {MOST_TARGET:,}")
    try:
        find_grader(grader).check_target(target)
    except ValueError as error:
        advice = f"correct it, or have it compared otherwise: --grader {likely_grader([target])}"
        if "####" in target:
            advice += "; for rows of GSM8K take name: gsm8k and this path"
        kind = f"grader '{grader}' cannot compare with the answer"
        raise UnusableRow(row, kind, f" {target[:60]!r} ({reason(error)}); {advice}") from error


def _distinct(used: Sequence[Used], name: str, *, mine: bool, by_id: bool) -> tuple[list[Used], list[str]]:
    """Returns the first of the rows with one prompt (or one id), and a note on the others."""
    seen: dict[tuple[str, str], Used] = {}
    kept, lost = list[Used](), list[tuple[Used, Used]]()
    for row, item in used:
        keys = [("prompt", bare(item)), *([("id", item.sample.id)] if by_id else [])]
        first = next((seen[key] for key in keys if key in seen), None)
        if first is None:
            kept.append((row, item))
            seen.update(dict.fromkeys(keys, (row, item)))
        else:
            lost.append(((row, item), first))
    if not lost:
        return kept, []
    if not mine:
        return kept, [f"{name}: {len(lost)} of its prompts or ids are repeated; each is taken once"]
    places = ", ".join(f"{one[0].place} as {first[0].place}" for one, first in lost[:NUM_NAMED])
    other = sum(one[1].sample.target != first[1].sample.target for one, first in lost)
    more = f"; {other} of them with another answer (does the prompt lack a column?)" if other else ""
    dots = ", ..." if len(lost) > NUM_NAMED else ""
    return kept, [f"{name}: {len(lost)} rows repeat a prompt and are left out ({places}{dots}){more}"]


def _with_ids(
    used: Sequence[Used], source: SourceConfig, name: str, *, mine: bool
) -> tuple[list[Used], list[str], list[UnusableRow]]:
    """Returns the rows with an id each: of their column, or their numbers and a note if it holds no ids.

    If the config names the column, rows that repeat an id are unusable. A few of a published set are left out.
    """
    counts = Counter(item.sample.id for _, item in used)
    num_repeated = len(used) - len(counts)
    bad = next((row for row, _ in used if source.id is None and "id" in row.cells and not _holds_id(row)), None)
    if not num_repeated and bad is None:
        return list(used), [], []
    if source.id:
        kept, _ = _distinct(used, name, mine=mine, by_id=True)
        rows = {id(row) for row, _ in kept}
        lost = [UnusableRow(row, f"{source.id!r} repeats an id", f", seen {item.sample.id[:60]!r}")
                for row, item in used if id(row) not in rows]  # fmt: skip
        return kept, [], lost
    if not mine and bad is None and num_repeated <= MAX_UNUSABLE * len(used):
        kept, notes = _distinct(used, name, mine=False, by_id=True)
        return kept, notes, []
    repeated, num = counts.most_common(1)[0]
    seen = f"{bad.place} holds no id" if bad else f"{repeated[:60]!r} stands in {num} rows"
    numbered = [(row, replace(item, sample=replace(item.sample, id=row.number))) for row, item in used]
    return numbered, [f"{name}: the column 'id' is not used ({seen}); rows go by their numbers"], []


def _holds_id(row: Row) -> bool:
    try:
        return bool(row.id_in("id"))
    except UnusableRow:
        return False
