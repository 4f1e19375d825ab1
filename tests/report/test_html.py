"""The page: whole, self-contained, and what it says in every state of a study; without a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hostile import NAME as HOSTILE
from hostile import TASK, hostile, hostile_storage
from small_ablation import ablated, results
from small_search import (
    NAME,
    copy_finished,
    finished,
    finished_storage,
    go_on,
    small_snapshot,
    storage_in,
    unconfirmed,
    with_parent,
)

from autolambda import open_study
from autolambda.ablation.figure import ablation_sections
from autolambda.report.answer.budgets import some_budgets
from autolambda.report.answer.glossary import GLOSSARY
from autolambda.report.comparison import compare
from autolambda.report.html import render_page
from autolambda.report.html_tables import Section
from autolambda.report.prompts import load_prompts
from autolambda.report.sentences import against_thinking, verdict_sentences
from autolambda.report.snapshot import StudySnapshot
from autolambda.statistics.verdict import Verdict
from autolambda.statistics.words import signed
from autolambda.study.store import Store

VOID = {"meta", "link", "input", "img", "br", "hr"}


class Parsed(HTMLParser):
    """A page's elements, its words, its scripts; fails where tags do not close."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        elif not self._open or self._open[-1] != "style":
            self.words += data


def page_of(snapshot: StudySnapshot, sections: Sequence[Section] = ()) -> Parsed:
    report = snapshot.report
    with closing(Store(finished_storage())) as store:
        comparison = compare(snapshot, store, load_prompts(report.config, report.identity))
    return Parsed(render_page(snapshot, comparison, sections=sections))


@pytest.fixture(scope="module")
def parsed() -> Parsed:
    return page_of(small_snapshot())


def data_of(parsed: Parsed) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(parsed.scripts[0])
    return data


def test_ablations_have_a_section_with_figures_and_numbers(parsed: Parsed) -> None:
    page = page_of(small_snapshot(), sections=ablation_sections(ablated()))
    figures = data_of(page)["figures"]
    for each in ablated():
        assert f"ablation-{each.name}" in figures and each.title in page.words
        assert ("figure", f"figure-ablation-{each.name}") in [(tag, attrs.get("id")) for tag, attrs in page.tags]
    change = results()["modules"]["without ffn"].change
    assert change is not None and f"{100 * change.low:+.1f} to {100 * change.high:+.1f}" in page.words
    assert "ablation-" not in str(data_of(parsed)["figures"].keys()) and "The paper's studies" not in parsed.words


def test_how_the_parents_differ_has_a_section_with_its_numbers(parsed: Parsed) -> None:
    snapshot = small_snapshot()
    differ = snapshot.report.parents_differ
    assert differ is not None and ("section", {"id": "parents"}) in parsed.tags
    assert all(said in parsed.words for said in differ.sentences())
    for row in (*differ.moved_rows(), *differ.step_rows()):
        assert "".join(row) in parsed.words
    assert f"Compared: {differ.basis}." in parsed.words
    for other in (None, replace(differ, steps=None, moved={})):
        page = page_of(replace(snapshot, report=replace(snapshot.report, parents_differ=other)))
        assert (("section", {"id": "parents"}) in page.tags) is (other is not None)
        assert "How far merges move" not in page.words and "distance in steps" not in page.words


def test_the_verdict_comes_first_with_its_numbers_and_the_command(parsed: Parsed) -> None:
    best = finished().best
    assert best is not None
    words = parsed.words
    assert words.index(f"Found: {best.schedule}, ") < words.index("Accuracy against tokens")
    assert f"{100 * best.score.accuracy:.1f} %" in words and "autolambda export small OUT --budget 30" in words
    assert "done: the search ended after 6 trials, because search.trials allows no more" in words


def test_the_top_says_what_was_searched_how_and_when(parsed: Parsed) -> None:
    words, snapshot = parsed.words, small_snapshot()
    top = words[: words.index("Found: ")]
    for part in (
        "Demo pair",
        "arithmetic",
        "up to 16 prompts to search",
        "at most 64 tokens",
        "transformers, ",
    ):
        assert part in top
    assert snapshot.measured_at is not None and f"{snapshot.measured_at:%Y-%m-%d}" in top
    spent = int(snapshot.trials.tokens.sum())
    assert f"{spent:,} by the search, {snapshot.report.tokens_generated - spent:,} after it" in top
    assert snapshot.seconds.keys() == {
        "Instruct",
        "Thinking",
        snapshot.report.best.name if snapshot.report.best else "",
    }
    assert all(f"{name} {each:.3g}" in top for name, each in snapshot.seconds.items())


def test_what_is_saved_is_the_first_large_number(parsed: Parsed) -> None:
    report = finished()
    found = against_thinking(report, report.best) if report.best else None
    assert found is not None
    words = parsed.words
    assert words.index(f"against Thinking{found.saving}") < words.index("accuracy against Thinking")


def test_other_budgets_have_a_table_and_a_slider_with_a_price(parsed: Parsed) -> None:
    report, slider = finished(), data_of(parsed)["slider"]
    words = parsed.words[parsed.words.index("Other budgets") :]
    for each in some_budgets(report):
        assert each.result and f"{100 * each.result.score.accuracy:.1f} " in words
        assert f"{each.result.score.mean_tokens / 1000:.3g}" in words
    budget, said, place = slider["steps"][slider["start"]]
    assert (budget, said) == (30.0, "30 tokens") and report.best is not None
    assert slider["results"][place]["who"] == f"{report.best.schedule} (trial {report.best.trial})"
    assert slider["command"] + str(budget) == "autolambda confirm small --budget 30.0"
    assert {place for *_, place in slider["steps"]} - {None} == set(range(len(slider["results"])))


def test_every_word_on_the_page_that_needs_it_is_explained(parsed: Parsed) -> None:
    assert all(word in parsed.words and meaning in parsed.words for word, meaning in GLOSSARY.items())
    for word in ("surrogate", "hypervolume", "knots ", "raw front", "smoothed front", "rung "):
        assert word not in parsed.words[: parsed.words.index("What these results depend on")]
    assert "−" not in parsed.words and not re.search(r"\d%", parsed.words)  # one minus, one way to write a percentage


@pytest.mark.parametrize("name", ["instruct", "thinking"])
def test_a_parent_that_is_the_answer_is_on_the_page_wherever_a_pick_is(name: str) -> None:
    snapshot = small_snapshot()
    page = page_of(replace(snapshot, report=with_parent(snapshot.report, name)))
    words, title = page.words, name.capitalize()
    assert f"Found: the {title} model itself, " in words and "trial None" not in words
    assert f"→ {title} as is" in words and "autolambda export" not in words
    assert any(f"the pick: {title}" in script for script in page.scripts)
    assert not any("trial None" in script for script in page.scripts)


def test_the_page_says_what_the_terminal_says_with_commands_to_copy() -> None:
    snapshot = small_snapshot()
    report = replace(snapshot.report, budget=4000.0)
    words = page_of(replace(snapshot, report=report)).words
    _, *rest = verdict_sentences(report)
    assert [each.command for each in rest if each.command] == [
        "autolambda search INSTRUCT THINKING --task my.jsonl --budget 4000",
        "autolambda export small OUT --budget 4000",
        "vllm serve OUT",
    ]
    for each in rest:
        assert f"{each.text}:\n{each.command}Copy" in words if each.command else f"{each.text}\n" in words


def test_the_tile_and_the_sentence_give_one_difference_from_thinking() -> None:
    """It is the paired one, not the difference of two accuracies on other prompts."""
    snapshot = small_snapshot()
    report = snapshot.report
    paired = [(each, gain) for each in report.confirmed if (gain := report.insights.gain_over("thinking", each))]
    assert paired
    thinking = report.parents["thinking"]
    assert thinking is not None
    more = replace(thinking.measured, accuracy=replace(thinking.measured.accuracy, value=0.123))  # on more prompts
    parents = {**report.parents, "thinking": replace(thinking, measured=more)}
    for result, gain in paired:
        shown = replace(report, best=result, parents=parents)
        [said] = [each.text for each in verdict_sentences(shown) if "Compared with Thinking" in each.text]
        words = page_of(replace(snapshot, report=shown)).words
        assert (
            f"{abs(100 * gain.value):.1f} points" in said
            and f"accuracy against Thinking{signed(gain.value)} points" in words
        )


def test_the_page_needs_nothing_else(parsed: Parsed) -> None:
    for tag, attributes in parsed.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:,")), (tag, attributes)
    assert not any(tag in ("img", "iframe", "object", "base") for tag, _ in parsed.tags)
    links = [attributes.get("href", "") for tag, attributes in parsed.tags if tag == "a"]
    ids = {attributes.get("id") for _, attributes in parsed.tags}
    assert links and {str(link)[1:] for link in links} <= ids


def test_the_policy_lets_just_the_two_scripts_run(parsed: Parsed) -> None:
    (policy,) = [a["content"] or "" for tag, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    hashes = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in parsed.scripts[1:]]
    assert re.findall(r"'sha256-([^']+)'", policy) == hashes and len(hashes) == 2
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)


def test_every_figure_has_its_place_and_its_data(parsed: Parsed) -> None:
    places = {str(a["id"]).removeprefix("figure-") for tag, a in parsed.tags if tag == "figure"}
    figures = data_of(parsed)["figures"]
    assert places == set(figures) == {"front", "curve", "schedules", "lengths", "progress", "race"}
    assert all(figure["data"] for figure in figures.values())


def test_the_responses_are_in_the_page_and_the_others_counted(parsed: Parsed) -> None:
    comparison = data_of(parsed)["comparison"]
    shown = sum(cell is not None for row in comparison["rows"] for cell in row["cells"])
    assert f"{shown:,} of {len(small_snapshot().outcomes):,} responses" in parsed.words
    assert comparison["columns"][comparison["pick"]]["role"] == "pick"


def test_a_running_study_says_so(tmp_path: Path) -> None:
    storage = copy_finished(storage_in(tmp_path))
    go_on(storage, 9)
    assert "still running, 6 trials so far" in Parsed(open_study(NAME, storage=storage).page).words


def test_a_search_without_its_confirmation_says_so(tmp_path: Path) -> None:
    words = Parsed(open_study(NAME, storage=unconfirmed(storage_in(tmp_path))).page).words
    assert "the check on new prompts is still to come" in words and "Not confirmed yet within 30 tokens" in words
    assert "autolambda confirm small --budget 30" in words


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budget": None, "best": None, "verdict": None}, "No budget was given: the front is the answer"),
        ({"verdict": Verdict.INFEASIBLE, "best": None}, "None found within 30 tokens; the nearest is trial 0"),
        ({"verdict": Verdict.UNCERTAIN, "best": None}, "Not sure within 30 tokens; the nearest is trial 0"),
    ],
)
def test_other_answers_are_said(changes: dict[str, Any], said: str) -> None:
    snapshot = small_snapshot()
    nearest = replace(finished().confirmed[0], trial=0) if "verdict" in changes else None
    assert said in page_of(replace(snapshot, report=replace(snapshot.report, nearest=nearest, **changes))).words


def test_several_tasks_have_a_line_each_below_a_schedule() -> None:
    snapshot = small_snapshot()

    def with_two(result: Any) -> Any:
        (own,) = result.measured.tasks.values()
        return replace(result, measured=replace(result.measured, tasks={"sums": own, "<b>words": own}))

    confirmed = tuple(map(with_two, snapshot.report.confirmed))
    words = page_of(replace(snapshot, report=replace(snapshot.report, confirmed=confirmed))).words
    assert "<b>words" in words and "sums" in words


def test_what_models_and_files_say_stays_text() -> None:
    hostile()
    study = open_study(HOSTILE, storage=hostile_storage())
    page = study.page
    parsed = Parsed(page)
    assert page.encode("utf-8") and "\x1b" not in page and "\x00" not in page and "\u202e" not in page
    assert len(parsed.scripts) == 3 and not any(tag in ("img", "svg") for tag, _ in parsed.tags)
    rows = data_of(parsed)["comparison"]["rows"]
    texts = " ".join(cell["text"] for row in rows for cell in row["cells"] if cell)
    for part in (
        "<script>window.hacked=1</script>",
        "\\x1b[2J",
        "\\ud83d",
        "\\u202e",
        "{{ 7 * 191 }}",
        "&lt;script&gt;",
    ):
        assert part in texts
    assert {row["task"] for row in rows} == {TASK} and any("<script>" in row["prompt"] for row in rows)
    assert "1337" not in parsed.words


def test_a_page_is_written_to_a_file(tmp_path: Path) -> None:
    study = open_study(NAME, storage=finished_storage())
    study.save(tmp_path / "report.html")
    size = (tmp_path / "report.html").stat().st_size
    assert 3e6 < size < 7e6 and (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
