"""The same prompts side by side: whose responses, the counts over all prompts, what is there to read."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hostile import TEXTS
from small_search import NAME, finished, finished_storage, small_snapshot, storage_in, unconfirmed, with_parent

from autolambda.report.comparison import Comparison, compare, legible, shortened
from autolambda.report.dataframes import responses
from autolambda.report.prompts import Prompts, load_prompts
from autolambda.study.store import Store


def compared(storage: str | None = None, **more: int) -> Comparison:
    snapshot = small_snapshot(storage)
    with closing(Store(storage or finished_storage())) as store:
        found = compare(snapshot, store, load_prompts(snapshot.report.config, snapshot.report.identity), **more)
    assert found is not None
    return found


def test_the_columns_are_the_pick_its_neighbours_and_both_parents_fewest_tokens_first() -> None:
    found, report = compared(), finished()
    tokens = [column.result.score.mean_tokens for column in found.columns]
    assert tokens == sorted(tokens) and report.best is not None
    assert found.columns[found.pick].result == report.best
    assert {column.role for column in found.columns} >= {"pick", "instruct", "thinking"}
    assert all(column.result.confirmed for column in found.columns)


def test_a_parent_that_is_the_pick_is_compared_once_by_its_own_responses() -> None:
    snapshot = small_snapshot()
    snapshot = replace(snapshot, report=with_parent(snapshot.report))
    with closing(Store(finished_storage())) as store:
        found = compare(snapshot, store, load_prompts(snapshot.report.config, snapshot.report.identity))
    assert found is not None
    pick = found.columns[found.pick]
    assert (pick.title, pick.kind, pick.key) == ("Instruct as is", "parent", "instruct")
    assert [column.role for column in found.columns].count("instruct") == 0 and len(found.columns) >= 3
    assert all(contrast.num_common == 32 for contrast in found.contrasts)


def test_the_counts_are_those_of_all_prompts_that_both_answered() -> None:
    found, frame = compared(num_responses=20), responses(NAME, storage=finished_storage())
    assert {contrast.other for contrast in found.contrasts} == {*range(len(found.columns))} - {found.pick}
    for contrast in found.contrasts:
        shorter = found.pick if contrast.longer == contrast.other else contrast.other
        sides = []
        for index in (shorter, contrast.longer):
            column = found.columns[index]
            own = frame[(frame.kind == column.kind) & (frame.key == column.key)]
            sides.append({each.sample_id: (each.grade == "correct", each.num_tokens) for each in own.itertuples()})
        common = sides[0].keys() & sides[1].keys()
        helped = [each for each in common if sides[1][each][0] and not sides[0][each][0]]
        hurt = [each for each in common if sides[0][each][0] and not sides[1][each][0]]
        assert contrast.num_common == len(common) == sum(contrast.counts.values())
        assert (contrast.counts["helped"], contrast.counts["hurt"]) == (len(helped), len(hurt))
        if helped:
            extra = sum(sides[1][each][1] - sides[0][each][1] for each in helped) / len(helped)
            assert contrast.extra_tokens["helped"] == pytest.approx(extra)


def test_the_rows_hold_what_was_generated_with_the_thinking_apart() -> None:
    found, frame = compared(), responses(NAME, storage=finished_storage())
    texts = {(r.kind, r.key, r.sample_id): r for r in frame.itertuples()}
    for row in found.rows:
        assert row.prompt and row.target
        for column, cell in zip(found.columns, row.cells, strict=True):
            stored = texts.get((column.kind, column.key, row.sample_id))
            assert (cell is None) == (stored is None)
            if cell is not None and stored is not None:
                assert (cell.grade, cell.num_tokens) == (stored.grade, stored.num_tokens)
                assert (
                    bool(cell.thinking) <= stored.thought and cell.text == stored.text.rpartition("</think>")[2].strip()
                )
    assert any(cell.thinking for row in found.rows for cell in row.cells if cell)
    assert found.num_shown == sum(cell is not None for row in found.rows for cell in row.cells)
    assert found.num_responses == len(frame)


def test_few_rows_hold_every_pattern_of_right_and_wrong() -> None:
    def patterns(found: Comparison) -> set[tuple[bool | None, ...]]:
        return {tuple(cell and cell.grade == "correct" for cell in row.cells) for row in found.rows}

    whole = compared(num_responses=10_000)
    full = {each for each in patterns(whole) if None not in each}
    few = compared(num_responses=(len(full) + 1) * len(whole.columns))
    assert len(few.rows) == len(full) + 1 < len(whole.rows) and full <= patterns(few)


def test_without_a_confirmation_the_searchs_own_responses_are_compared(tmp_path: Path) -> None:
    found = compared(unconfirmed(storage_in(tmp_path)))
    assert {column.kind for column in found.columns} == {"trial"} and len(found.columns) > 1
    assert found.rows and all(cell is not None for row in found.rows for cell in row.cells)


def test_without_prompts_the_ids_stand_and_the_reason_is_told() -> None:
    snapshot = small_snapshot()
    empty = replace(snapshot.report, trials=(), smoothed=(), confirmed=(), best=None)
    with closing(Store(finished_storage())) as store:
        found = compare(snapshot, store, Prompts(problem="gone"))
        nothing = compare(replace(snapshot, report=empty), store, Prompts())
    assert found is not None and found.problem == "gone" and nothing is None
    assert all(row.prompt is None and row.target is None and row.sample_id for row in found.rows)


@pytest.mark.parametrize("text", [*TEXTS, "a\rb", "\u200b\ufeff", "\x7f\x85"])
def test_legible_text_moves_no_cursor_and_fits_any_file(text: str) -> None:
    shown = legible(text)
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert shown.encode("utf-8") and (shown == text or "\\" in shown)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain <b> 日本 é", "plain <b> 日本 é"),
        ("two\nlines\tand\u00a0spaces", "two\nlines\tand\u00a0spaces"),
        ("a\r\nb", "a\nb"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\ud83d", "\\ud83d"),
        ("\u202e", "\\u202e"),
    ],
)
def test_what_legible_text_looks_like(text: str, expected: str) -> None:
    assert legible(text) == expected


def test_a_long_text_keeps_its_start_and_its_end() -> None:
    text = "a" * 5000 + "b" * 5000
    shown = shortened(text)
    assert shown.startswith("a" * 4000) and shown.endswith("b" * 2000) and "4,000 characters left out" in shown
    assert shortened("a" * 6000) == "a" * 6000
