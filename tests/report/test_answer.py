"""What an answer rests on: the facts of a study, other budgets, one stage a schedule, text for a notebook."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_search import finished

from autolambda.report.answer.about import facts, in_short, model_name, pair_name
from autolambda.report.answer.budgets import answer_at, candidates, slider, some_budgets
from autolambda.report.answer.glossary import GLOSSARY
from autolambda.report.answer.notebook import as_html, as_markdown
from autolambda.report.answer.phrases import Sentence
from autolambda.report.answer.undecided import what_helps
from autolambda.report.results import ScheduleResult
from autolambda.statistics.verdict import Verdict


def test_the_facts_name_models_task_prompts_sampling_and_engine() -> None:
    found = dict(facts(finished()))
    assert found["task"] == "arithmetic" and found["Instruct"] == "the bundled one"
    assert found["prompts"] == "up to 16 prompts to search, up to 32 others to check the best"
    assert "at most 64 tokens" in found["sampling"] and found["engine"].startswith("transformers, ")
    assert in_short(finished()).startswith("Demo pair (0.7 M parameters); arithmetic; up to 16 prompts")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("org/Small-Thinking", "org/Small-Thinking"),
        ("/home/me/models/my-think", "my-think"),
        ("/x/a\x1b[2J", "a\\x1b[2J"),
    ],
)
def test_models_are_named_without_the_folders_above_them(source: str, name: str) -> None:
    report = finished()
    models = report.config.models.model_copy(update={"instruct": "org/Small-Instruct", "thinking": source})
    report = replace(report, config=report.config.model_copy(update={"models": models}))
    assert model_name(report, "thinking") == name and pair_name(report) == f"org/Small-Instruct + {name}"


def test_a_schedule_has_one_stage_in_every_table() -> None:
    report = finished()
    stages = {each.trial: each.stage for each in report.smoothed}
    stages |= {each.trial: each.stage for each in report.confirmed}
    for results in (report.trials, report.smoothed, report.confirmed, report.raw_front, report.front):
        assert [each.stage for each in results] == [stages[each.trial] for each in results]
        assert [each.to_dict()["stage"] for each in results] == [each.stage for each in results]
    moved = replace(report.trials[0], known_stage=3)
    assert moved.stage == 3 and moved.to_dict()["stage"] == 3


def with_numbers(result: ScheduleResult, accuracy: float, tokens: float, *, confirmed: bool = True) -> ScheduleResult:
    measured = replace(
        result.measured,
        accuracy=replace(result.measured.accuracy, value=accuracy),
        mean_tokens=replace(result.measured.mean_tokens, value=tokens, low=0.9 * tokens, high=1.1 * tokens),
    )
    return replace(result, measured=measured, confirmed=confirmed, parent=None)


def test_for_another_budget_a_confirmed_merge_is_preferred_to_an_estimate_by_the_margin() -> None:
    report = finished()
    a, b, c = report.trials[2:5]
    known = with_numbers(a, 0.80, 20.0)
    report = replace(report, confirmed=(known,), parents={"instruct": None, "thinking": None}, budget=None, best=None)
    close, far = (with_numbers(b, accuracy, 10.0, confirmed=False) for accuracy in (0.805, 0.85))
    assert answer_at(replace(report, smoothed=(close,)), 30).result is known
    assert answer_at(replace(report, smoothed=(far,)), 30).result is far
    assert answer_at(replace(report, smoothed=(far,)), 10.9).result is None  # its interval ends at 11
    estimate = with_numbers(a, 0.99, 20.0, confirmed=False)  # the same trial: its confirmed numbers count
    assert candidates(replace(report, smoothed=(estimate, close))) == (close, known)
    broken = replace(with_numbers(c, 0.99, 5.0, confirmed=False), allowed=0.0)
    assert answer_at(replace(report, smoothed=(broken, close)), 30).result is known


def test_the_budgets_rise_hold_the_own_one_with_its_pick_and_end_above_the_longest() -> None:
    report = finished()
    for answers in (some_budgets(report), slider(report)):
        budgets = [each.budget for each in answers]
        assert budgets == sorted(set(budgets)) and report.budget in budgets
        assert next(each.result for each in answers if each.budget == report.budget) is report.best
    table = some_budgets(report)
    assert len(table) <= 18 and all(each.result for each in table)
    most = max(each.measured.mean_tokens.high for each in candidates(report))
    assert slider(report)[-1].budget >= most
    assert slider(report)[-1].result is answer_at(replace(report, budget=None), 10 * most).result


def test_what_may_help_names_the_file_that_has_no_more_rows() -> None:
    report = replace(finished(), verdict=Verdict.UNCERTAIN, best=None, nearest=finished().confirmed[0])
    assert "more prompts to check with (a new study with a larger confirm.limit)" in what_helps(report).text
    [task] = report.config.tasks
    local = task.model_copy(update={"name": None, "path": "/home/me/ten.jsonl"})
    config = report.config.model_copy(update={"tasks": (local,)})
    few = replace(report, config=config, identity={**report.identity, "confirm.prompts": 5})
    assert "more rows in ten.jsonl (only 5 prompts were left to check with)" in what_helps(few).text


def test_a_notebook_gets_no_markup_of_others() -> None:
    report, said = replace(finished(), study="<b>x|y"), [Sentence(("a *b* <i>",), "run `it` <now>")]
    page, text = as_html(report, said), as_markdown(report, said)
    assert "<b>&lt;b&gt;x|y</b>" in page and "<i>" not in page and "&lt;now&gt;" in page
    assert "**\\<b\\>x\\|y**" in text and "a \\*b\\* \\<i\\>" in text


def test_every_word_of_the_glossary_is_explained_in_sentences() -> None:
    assert all(meaning[0].isupper() or meaning[0] == "1" for meaning in GLOSSARY.values())
    assert all(meaning.rstrip().endswith(".") for meaning in GLOSSARY.values())
    words = " ".join(GLOSSARY.values())
    assert not any(word in words for word in ("surrogate", "hypervolume", "knots", "rung"))
