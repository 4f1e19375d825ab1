"""The answer in sentences: what is said for each verdict, about guards and slack, and the command to continue with."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from small_search import BUDGET, finished, with_parent

from autolambda.report.report import Alike, Beyond, Likely, Open, Report
from autolambda.report.results import ScheduleResult
from autolambda.report.sentences import slack_of, slack_sentence, verdict_sentences
from autolambda.schedule import Schedule
from autolambda.statistics.estimates import Difference
from autolambda.statistics.guards import Drop
from autolambda.statistics.verdict import Verdict


def said(report: Report, storage: str | None = None) -> str:
    return "\n".join(map(str, verdict_sentences(report, storage=storage)))


def test_the_answer_comes_first_with_what_it_saves_and_how_sure_it_is() -> None:
    report = finished()
    best = report.best
    assert best is not None
    first, second, third, *rest = said(report).splitlines()
    low, high = best.measured.mean_tokens.low, best.measured.mean_tokens.high
    assert first.startswith(f"Found: {best.schedule} answers {100 * best.score.accuracy:.1f} % (")
    assert first.endswith(f" right with {best.score.mean_tokens:.1f} tokens ({low:.1f} to {high:.1f}), budget 30.")
    assert re.fullmatch(r"Compared with Thinking: \d+ % fewer tokens, .*\d\.\d points.*\(.+\)\.", second)
    assert third.startswith("Checked on 32 prompts that the search never saw (") and "one-sided" in third
    assert rest[-2] == "Export it: autolambda export small OUT --budget 30"
    assert rest[-1].endswith(": vllm serve OUT")


def test_what_we_would_take_without_a_budget_comes_after_the_answer_and_only_if_it_is_another() -> None:
    report = finished()
    other = next(each for each in report.smoothed if not report.is_pick(each) and each.parent is None)
    report = replace(report, insights=replace(report.insights, sweet_spot=other))
    lines = said(report).splitlines()
    [at] = [i for i, line in enumerate(lines) if line.startswith("Without a budget we would take ")]
    assert 2 < at < len(lines) - 2 and "estimates of the search" in lines[at]
    assert report.best is not None
    same = replace(report.insights, sweet_spot=replace(report.insights.sweet_spot, schedule=report.best.schedule))
    assert "Without a budget" not in said(replace(report, insights=same))
    alone = replace(report.insights, sweet_spot=other, highest=other)
    assert "nothing cheaper is within a point of it" in said(replace(report, insights=alone))


def test_the_command_that_serves_it_warns_of_reasoning_parsers_as_long_as_it_needs_to() -> None:
    report = finished()
    best = report.best
    assert best is not None
    for ratio, words in (
        (0.25, "Serve it without --reasoning-parser (75.0 % of its responses have no </think>"),
        (0.97, "Serve it: "),
    ):
        measured = replace(best.measured, think_ratio=replace(best.measured.think_ratio, value=ratio))
        last = said(replace(report, best=replace(best, measured=measured))).splitlines()[-1]
        assert last.startswith(words) and last.endswith("vllm serve OUT")


@pytest.mark.parametrize("is_shown", [True, False])
def test_it_says_whether_a_schedule_beyond_the_line_is_shown_to_beat_it(is_shown: bool) -> None:
    report = finished()
    line = report.confirmed[0]
    far = replace(line, trial=99, schedule=line.schedule.beyond(scale=1.3))
    low = -0.001 if is_shown else -0.02  # the one-sided bound decides
    change = Difference(0.05, 0.02, low, 0.09, low + 0.01, 0.08, 32)
    beyond = Beyond(far, line, change, is_shown)
    lines = said(replace(report, beyond=beyond)).splitlines()
    [found] = [each for each in lines if "on the line between the parents" in each]
    if is_shown:
        assert found.startswith("Trial 99 (lambda ")
        assert " is shown to be better than the best merge on the line between the parents, lambda " in found
        assert found.endswith(": 5.0 points more accurate (at least 0.9 points with 95 % confidence).")
    else:
        assert found.startswith("Trial 99 (lambda ") and ", scale 1.3) answers " in found
        assert found.endswith("so the answer stays on the line.") and "as accurate within the error" in found
    assert beyond.to_dict()["is_shown"] is is_shown and beyond.to_dict()["line_trial"] == line.trial


def test_it_says_that_a_schedule_beyond_the_line_is_not_shown_to_beat_a_parent() -> None:
    report = finished()
    instruct = report.parents["instruct"]
    assert instruct is not None
    far = replace(report.confirmed[0], trial=99, schedule=report.confirmed[0].schedule.beyond(scale=1.3))
    beyond = Beyond(far, instruct, Difference(0.01, 0.02, -0.03, 0.05, -0.02, 0.04, 32), is_shown=False)
    for answer in (report.best, instruct):
        text = said(replace(report, best=answer, beyond=beyond))
        assert (
            "but it must be shown to be better than the Instruct model itself too. It is as accurate within the error"
            in text
        )
    assert "no merge is shown to be better within 30 tokens." in text
    assert beyond.to_dict()["line_parent"] == "instruct" and beyond.to_dict()["line_trial"] is None


def test_a_pick_beyond_the_line_without_a_rival_is_said_not_to_be_compared() -> None:
    report = finished()
    assert report.best is not None
    far = replace(report.best, schedule=report.best.schedule.beyond(scale=1.3))
    assert "It was not compared with a merge on the line: none was confirmed" in said(replace(report, best=far))
    assert "not compared" not in said(report)


def test_without_a_budget_it_says_that_what_is_beyond_the_line_is_not_tested() -> None:
    report = replace(finished(), budget=None, verdict=None)
    assert "beyond the line" not in said(report)
    far = tuple(replace(each, schedule=each.schedule.beyond(scale=1.3)) for each in report.confirmed)
    assert "Without a budget, none is tested against the best merge on it." in said(replace(report, confirmed=far))


def test_a_pick_that_extrapolates_is_said() -> None:
    report = finished()
    assert report.best is not None
    best = replace(report.best, schedule=Schedule.uniform(1.2))
    assert "The schedule extrapolates: its weights are no average" in said(replace(report, best=best))
    assert "extrapolates" not in said(report)


def test_the_best_single_lambda_stands_beside_the_pick() -> None:
    report, other = finished(), finished().confirmed[0]
    assert report.best is not None
    text = said(replace(report, uniform=other))
    line = next(line for line in text.splitlines() if line.startswith("The best single lambda within the budget: "))
    assert f"{other.schedule} (trial {other.trial}) answers " in line and re.search(r", [+-]\d+\.\d points\.$", line)
    text = said(replace(report, preferred_over=other))
    assert f"Trial {other.trial} ({other.schedule}) is expected to gain less than 1 point (" in text
    assert "a single lambda is simpler." in text


def test_a_parent_that_is_the_answer_is_named_with_the_best_merge_and_no_export() -> None:
    report = with_parent(finished())
    first, *rest = said(report).splitlines()
    assert first.startswith("Found: the Instruct model itself answers ") and report.beaten is not None
    assert first.endswith("; no merge is better within 30 tokens.")
    line = next(line for line in rest if line.startswith("The best merge within the budget: "))
    assert f"{report.beaten.schedule} (trial {report.beaten.trial}) answers " in line and "points" in line
    assert "autolambda export" not in said(report) and "vllm serve" not in said(report)  # the pair has no name
    lines = said(
        replace(report, beaten=None, nearest=report.confirmed[0], open=Open(report.confirmed[0], 900))
    ).splitlines()
    assert any(line.startswith("No merge could be shown to be within the budget; the nearest: ") for line in lines)
    assert any(line.endswith("about 900 prompts to check with would probably settle it (it had 32).") for line in lines)


def test_more_prompts_are_no_advice_for_what_is_over_the_budget_or_no_better() -> None:
    report, over = with_parent(finished()), Open(finished().confirmed[0], None)
    assert "its mean is over it, which more prompts would hardly change" in said(replace(report, budget=1.5, open=over))
    assert "a guard allows" in said(replace(report, open=over))
    assert report.best is not None  # a finalist that is no more accurate
    assert "not shown" not in said(replace(report, open=Open(report.best, 9)))


def test_a_finalist_that_is_probably_within_the_budget_has_its_chance_and_its_export() -> None:
    report = finished()
    bold = Likely(report.confirmed[0], 0.874)
    for each in (
        report,
        with_parent(report),
        replace(report, verdict=Verdict.UNCERTAIN, best=None, nearest=bold.result),
    ):
        lines = said(replace(each, likely=bold, budget=30.0)).splitlines()
        at = next(i for i, line in enumerate(lines) if line.startswith("Probably within the budget (chance 87 %, not"))
        assert f"(trial {bold.result.trial})" in lines[at]
        assert (
            lines[at + 1] == f"Export that one without proof: autolambda export small OUT --trial {bold.result.trial}"
        )
        assert "anyway" not in "".join(lines)
    assert "chance 99 %" in said(replace(report, likely=Likely(bold.result, 0.9999)))


def test_the_commands_name_the_storage_that_was_given() -> None:
    last = said(finished(), storage="sqlite:///my studies/x.db").splitlines()[-2]
    assert last == "Export it: autolambda export small OUT --budget 30 --storage 'sqlite:///my studies/x.db'"
    last = said(finished(), storage="postgresql://me:secret@host/x").splitlines()[-2]
    words, _, command = last.partition(": ")
    assert words == "Export it (for *** give the password, or leave it out and have it in PGPASSWORD or ~/.pgpass)"
    assert command == "autolambda export small OUT --budget 30 --storage 'postgresql://me:***@host/x'"


@pytest.mark.parametrize(
    ("verdict", "start", "remedy"),
    [
        (
            Verdict.INFEASIBLE,
            "None found: every merge checked is over 1.5 tokens. The nearest: ",
            "What may help: a higher budget",
        ),
        (
            Verdict.UNCERTAIN,
            "Not sure: no merge is shown to stay within 1.5 tokens. The nearest: ",
            "What may help: more prompts",
        ),
    ],
)
def test_no_pick_shows_the_nearest(verdict: Verdict, start: str, remedy: str) -> None:
    nearest = finished().confirmed[0]
    text = said(replace(finished(), verdict=verdict, budget=1.5, best=None, nearest=nearest))
    assert text.startswith(start) and f"{nearest.schedule} (trial {nearest.trial})" in text and remedy in text


@pytest.mark.parametrize(("num", "words"), [(1, "1 prompt was left"), (19, "19 prompts were left"), (20, None)])
def test_too_few_prompts_are_the_reason_and_the_file_is_named(num: int, words: str | None) -> None:
    report = finished()
    nearest, [task] = report.confirmed[0], report.config.tasks
    tokens = replace(nearest.measured.mean_tokens, num_prompts=num)
    few = replace(nearest, measured=replace(nearest.measured, mean_tokens=tokens))
    config = report.config.model_copy(update={"tasks": (task.model_copy(update={"path": "/data/ten.jsonl"}),)})
    text = said(replace(report, config=config, verdict=Verdict.UNCERTAIN, best=None, nearest=few))
    if words is None:
        assert "ten.jsonl" not in text and "What may help: more prompts" in text
    else:
        assert f"Only {words} to check with: add rows to ten.jsonl (an answer takes at least 20)." in text
        assert "What may help" not in text


def test_of_finalists_as_accurate_as_the_pick_only_the_cheapest_is_named_if_it_is_cheaper() -> None:
    report, change = finished(), Difference(-0.0123, 0.02, -0.05, 0.03, -0.04, 0.02, 32)
    assert report.best is not None
    cheap, cheaper = (at_tokens(report.confirmed[0], share * report.best.score.mean_tokens) for share in (0.9, 0.8))
    text = said(replace(report, alike=(Alike(cheap, change), Alike(cheaper, change))))
    [line] = [line for line in text.splitlines() if " is cheaper, with " in line]
    assert line.startswith(f"Trial {cheaper.trial} (") and f"with {cheaper.score.mean_tokens:.1f} tokens" in line
    assert line.endswith(", and as accurate within the error: -1.2 points (-5.0 to +3.0).")
    longer = at_tokens(report.confirmed[0], 1.1 * report.best.score.mean_tokens)
    assert "is cheaper" not in said(replace(report, alike=(Alike(longer, change),)))


def at_tokens(result: ScheduleResult, mean: float) -> ScheduleResult:
    return replace(
        result, measured=replace(result.measured, mean_tokens=replace(result.measured.mean_tokens, value=mean))
    )


def test_without_a_verdict_the_next_command_is_confirm() -> None:
    report = finished()
    text = said(replace(report, budget=None, verdict=None))
    assert text.startswith("The front is the answer, since no budget was given: from ")
    assert "\nWe would take " in text and text.endswith("autolambda confirm small --budget TOKENS")
    text = said(replace(report, verdict=None, best=report.trials[0]))
    assert "Not confirmed yet. By the search alone, the Instruct model itself" not in text
    assert "Not confirmed yet. By the search alone, lambda 0 (trial 0) answers " in text
    assert text.endswith("autolambda confirm small --budget 30")
    assert "[" not in text
    text = said(replace(report, verdict=None, best=None, budget=0.5))
    assert re.search(r"no merge is surely within 0.5 tokens; the cheapest, lambda .+ \(trial \d+\), needs \d", text)
    assert "is no limit for these models" in said(replace(report, verdict=None, budget=4000.0))


def test_a_cheaper_pick_names_the_one_it_was_picked_over() -> None:
    report = finished()
    assert "Trial 1 (lambda 1) answers " in said(replace(report, cheaper_than=report.trials[1]))
    assert "shown to lose less than 1 point." in said(replace(report, cheaper_than=report.trials[1]))


def test_a_budget_that_is_no_limit_is_in_the_verdict() -> None:
    assert "4,000 tokens is no limit for these models" in said(replace(finished(), budget=4000.0))
    assert "no limit" not in said(finished())


DROP = Drop(0.004, -0.012, 0.02, 0.02, True)


def guarded(report: Report, kept: bool | None, *, verdict: Verdict = Verdict.FEASIBLE) -> Report:
    """The report as if a confirmed result within the budget were the answer and had a guard."""
    within = next(each for each in report.confirmed if each.measured.mean_tokens.high <= BUDGET)
    result = replace(within, drops={"rules": replace(DROP, kept=kept)})
    places = {"best": result} if verdict is Verdict.FEASIBLE else {"best": None, "nearest": result}
    rest = {"cheaper_than": None, "alike": (), "likely": None, "open": None}
    return replace(report, verdict=verdict, confirmed=(result,), **rest, **places)


def test_a_pick_with_a_guard_says_what_it_loses() -> None:
    lines = said(guarded(finished(), True)).splitlines()
    assert lines[3] == (
        "Guard rules is kept: -0.4 points compared with the better parent (-2.0 to +1.2); a loss of 2 is allowed."
    )
    assert "Guard" not in said(finished())


@pytest.mark.parametrize(
    ("verdict", "kept", "start", "words"),
    [
        (
            Verdict.INFEASIBLE,
            False,
            "None found: a guard stands against every merge within 30 tokens.",
            "is broken: -0.4 points",
        ),
        (
            Verdict.UNCERTAIN,
            None,
            "Not sure: a guard stands against every merge within 30 tokens.",
            "is not shown to be kept: -0.4",
        ),
    ],
)
def test_a_verdict_says_that_a_guard_stands_against_it(
    verdict: Verdict, kept: bool | None, start: str, words: str
) -> None:
    text = said(guarded(finished(), kept, verdict=verdict))
    assert text.startswith(start) and words in text and "a larger guard.max_drop" in text
    tight = said(replace(guarded(finished(), kept, verdict=verdict), budget=1.5))  # its tokens stand against it
    assert "stands against" not in tight and "max_drop" not in tight and words in tight


@pytest.mark.parametrize(
    ("budget", "parents", "bundled", "expected"),
    [
        (
            4000,
            {"instruct": 2.0, "thinking": 54.26},
            True,
            ("Thinking, the longer one, needs 54.3", "autolambda search INSTRUCT"),
        ),
        (60, {"instruct": 60.0, "thinking": 50.0}, False, ("Instruct, the longer one, needs 60.0", "give a lower one")),
        (59.9, {"instruct": 60.0, "thinking": 50.0}, False, None),
        (4000, {"thinking": 54.0}, True, None),
        (4000, {}, True, None),
    ],
)
def test_slack(budget: float, parents: dict[str, float], bundled: bool, expected: tuple[str, ...] | None) -> None:
    sentence = slack_sentence(budget, parents, bundled=bundled)
    assert sentence is None if expected is None else all(part in str(sentence) for part in expected)


def test_a_budget_below_the_longest_merge_binds() -> None:
    report = finished()
    highest = max(result.score.mean_tokens for result in (*report.trials, *report.confirmed))
    thinking = report.parents["thinking"]
    assert thinking is not None
    cheap_parents = {
        name: replace(result, measured=report.trials[0].measured) for name, result in report.parents.items()
    }
    assert slack_of(replace(report, budget=highest + 40)) is not None
    assert slack_of(replace(report, budget=highest - 0.01, parents=cheap_parents)) is None
