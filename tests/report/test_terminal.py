"""The report on the screen: readable at 80 columns, no markup and no control sequences from outside."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType
from small_search import finished, with_parent

from autolambda.cli.progress import trial_line
from autolambda.config import parse_config
from autolambda.driver.events import EvaluationEnded
from autolambda.report.report import Report
from autolambda.report.results import ScheduleResult
from autolambda.report.terminal import (
    front_table,
    in_lines,
    measured_view,
    progress_view,
    report_view,
    task_table,
)
from autolambda.schedule import Profile, Schedule
from autolambda.statistics.estimates import Estimate
from tests.report.test_sentences import guarded

DEEP = Schedule.by_depth_and_module(Profile((0.134, 0.395, 0.622)), Profile((0.0, 0.201, 0.428)), other=0.3)


def shown(view: RenderableType, *, width: int, terminal: bool = False) -> str:
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=terminal, color_system="truecolor" if terminal else None).print(view)
    return file.getvalue()


def scaled(value: Estimate, factor: float) -> Estimate:
    numbers = {name: getattr(value, name) * factor for name in ("value", "standard_error", "low", "high")}
    return replace(value, **numbers)


@pytest.fixture
def wide() -> Report:
    """A report at its widest: a deep schedule, thousands of tokens, some of them cut."""
    report = finished()
    measured = report.trials[1].measured
    long = replace(
        measured,
        mean_tokens=scaled(measured.mean_tokens, 12_345 / measured.mean_tokens.value),
        accuracy=replace(measured.accuracy, value=0.995, high=0.999),
        truncated_ratio=scaled(measured.accuracy, 0.3),
    )
    result = ScheduleResult(27, DEEP, long, confirmed=True)
    return replace(report, confirmed=(*report.confirmed, result), best=result)


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_too_long_and_no_word_is_broken(wide: Report, width: int) -> None:
    lines = shown(front_table(wide, wide.front, title="t"), width=width).splitlines()
    text = "\n".join(lines)
    assert max(len(line.rstrip()) for line in lines) <= width
    for word in ("→ 27", "0.13→0.40→0.62", "0.00→0.20→0.43", "other 0.3", "12,345", "Instruct as is", "accuracy %"):
        assert word in text, text
    if width == 120:  # a line for each part of a schedule, such as attention, ffn and other
        assert len(lines) == 3 + 2 + sum(len(result.schedule.to_dict()) for result in wide.front)


def test_an_ordinary_front_has_one_line_a_schedule_at_80_columns() -> None:
    report = finished()
    confirmed = tuple(result for result in report.confirmed if result.schedule.lam is not None)
    uniform = replace(report, confirmed=confirmed).front
    lines = shown(front_table(report, uniform, title="t"), width=80).splitlines()
    assert confirmed and len(lines) == 3 + 2 + len(uniform)


def test_the_cut_column_appears_with_the_first_cut_response(wide: Report) -> None:
    assert "cut" in shown(front_table(wide, wide.front, title="t"), width=80)
    uncut = tuple(each for each in finished().confirmed if each.measured.truncated_ratio.value == 0)
    report = replace(finished(), parents=dict.fromkeys(("instruct", "thinking")), confirmed=uncut)
    assert uncut
    assert "cut" not in shown(front_table(report, report.front, title="t"), width=80)


def test_the_pick_is_marked_once() -> None:
    report = finished()
    assert report.best is not None
    lines = shown(report_view(report), width=100).splitlines()
    marked = [line for line in lines if "→" in line]
    assert marked == [line for line in lines if f"→ {report.best.trial}" in line]
    assert marked


def test_a_parent_that_is_the_answer_is_marked_once() -> None:
    report = with_parent(finished())
    lines = [line for line in shown(report_view(report), width=100).splitlines() if "→" in line]
    assert len(lines) == 1 and "Instruct as is" in lines[0]


def test_how_the_parents_differ_is_told_before_the_verdict() -> None:
    differ = finished().parents_differ
    assert differ is not None
    text = shown(report_view(finished()), width=120)
    near, nearest = differ.sentences()
    assert text.index(near) < text.index(nearest) < text.index("Found: ")
    assert near not in shown(progress_view(finished()), width=120)
    assert near not in shown(report_view(replace(finished(), parents_differ=None)), width=120)


def test_only_a_terminal_gets_escape_codes() -> None:
    assert "\x1b" not in shown(report_view(finished()), width=80)
    assert "\x1b[1m" in shown(report_view(finished()), width=80, terminal=True)


def test_markup_and_control_sequences_from_outside_are_shown_not_obeyed() -> None:
    notes = ("[bold]loud[/bold] \x1b[31mred",)
    report = replace(finished(), study="[red]x", stages=replace(finished().stages, notes=notes))
    text = shown(report_view(report), width=200, terminal=True)
    assert "[bold]loud[/bold]" in text and "\x1b[31mred" not in text and "\\x1b[31mred" in text
    assert "[red]x: Demo pair" in re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize(
    ("schedule", "lines"),
    [
        (Schedule.uniform(0.59375), ["lambda 0.5938"]),
        (Schedule.by_module(attention=0.25, ffn=1.0), ["attention 0.25", "ffn 1"]),
        (Schedule.by_depth(Profile((0.0, 0.5), kind="bands")), ["lambda 0.00|0.50"]),
        (DEEP, ["attention 0.13→0.40→0.62", "ffn 0.00→0.20→0.43", "other 0.3"]),
    ],
)
def test_a_schedule_in_lines(schedule: Schedule, lines: list[str]) -> None:
    assert in_lines(schedule).splitlines() == lines


def test_one_measured_schedule() -> None:
    result = finished().trials[1]
    event = EvaluationEnded("trial 1", "trial", result.schedule, result.measured)
    line = trial_line(event)
    assert line.startswith("trial 1 ") and line.endswith("on    16  lambda 1") and "\n" not in line
    assert trial_line(replace(event, stopped="off the front")) == f"{line}  (stopped: off the front)"
    assert trial_line(replace(event, measured=None, stopped="over the budget")).split(maxsplit=2) == [
        "trial",
        "1",
        "stopped: over the budget  lambda 1",
    ]
    assert f"{result.measured.mean_tokens.value:.1f}" in line
    text = shown(measured_view(result.schedule, result.measured), width=80)
    assert "lambda 1" in text and "cut %" in text and len(text.splitlines()) == 6


def test_an_unconfirmed_parent_is_not_called_as_is_and_two_lambdas_make_a_curve() -> None:
    report = finished()
    first, second = report.trials[:2]
    parents = {"instruct": first, "thinking": second}
    text = shown(
        report_view(replace(report, trials=(first, second), smoothed=(), confirmed=(), parents=parents)), width=80
    )
    assert "Instruct as is" not in text and "lambda 1" in text and "it hardly ever thinks" in text
    parents = {"instruct": first, "thinking": None}
    single = replace(report, trials=(first,), smoothed=(first,), confirmed=(), parents=parents)
    text = shown(progress_view(single), width=80)
    assert text.count("lambda 0 ") == 1 and "ever thinks" not in text and "lambda it" not in text


def test_the_smoothed_front_stands_below_the_confirmed_one():
    """The confirmation measures a few; the rest of the front is what the surrogate makes of all trials."""
    report = finished()
    text = shown(progress_view(report), width=100)
    confirmed, smoothed = text.index("confirmed on new prompts"), text.index("estimated (95 %")
    assert confirmed < smoothed
    below = text[smoothed:]
    for result in report.smoothed_front:
        assert f"{100 * result.score.accuracy:.1f}" in below


def test_the_best_single_lambda_has_a_row_beside_the_pick() -> None:
    report = finished()
    uniform = replace(report.confirmed[0], trial=77, schedule=Schedule.uniform(0.4321))
    text = shown(report_view(replace(report, uniform=uniform)), width=80)
    row = next(line for line in text.splitlines() if line.split()[:1] == ["77"])
    assert "lambda 0.4321" in row and text.count("best single lambda") == 2  # a row, a sentence
    assert "best single lambda" not in shown(report_view(report), width=80)


@pytest.mark.parametrize(("kept", "word"), [(True, "kept"), (False, "broken"), (None, "unsure")])
def test_a_front_says_what_is_known_of_the_guards(kept: bool | None, word: str) -> None:
    report = guarded(finished(), kept)
    text = shown(front_table(report, report.front, title="t"), width=80)
    assert "guards" in text.splitlines()[2] and word in text.splitlines()[-1]
    assert "guards" not in shown(front_table(finished(), finished().front, title="t"), width=80)


def several_tasks() -> Report:
    """As if the results had a second task, a guard, with their numbers on the first."""
    report = finished()

    def double(result: ScheduleResult) -> ScheduleResult:
        tasks = {"arithmetic": result.measured.tasks["arithmetic"], "\x1b[2J": result.measured.tasks["arithmetic"]}
        return replace(result, measured=replace(result.measured, tasks=tasks))

    plain = report.config.model_dump()
    [task] = plain["tasks"]
    plain["tasks"] = [task, {"path": "x.jsonl", "label": "\x1b[2J", "guard": {"max_drop": 0.02}}]
    assert report.best is not None
    return replace(
        report,
        config=parse_config(plain),
        best=double(report.best),
        trials=tuple(map(double, report.trials)),
        parents={name: double(result) for name, result in report.parents.items() if result},
    )


def test_several_tasks_have_a_row_each() -> None:
    report = several_tasks()
    lines = shown(report_view(report), width=80).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("By task"))
    header, first, second = lines[start + 1 : start + 4]
    assert report.best is not None and header.split() == [
        "task",
        "weight",
        "Instruct",
        "Thinking",
        "→",
        str(report.best.trial),
    ]
    accuracy, tokens = report.best.measured.accuracy.value, report.best.measured.mean_tokens.value
    assert first.split()[:3] == ["arithmetic", "100", "%"] and first.split()[-2:] == [
        f"{100 * accuracy:.1f}",
        f"{tokens:.1f}",
    ]
    assert "guard" in second and "\x1b" not in second and "x1b[2J" in second
    assert "By task" not in shown(report_view(finished()), width=80)


def test_a_pick_that_is_not_confirmed_has_the_numbers_that_were_measured_of_each_task() -> None:
    report = several_tasks()
    trial = report.trials[2]
    smoothed = replace(report.smoothed[2], measured=replace(report.smoothed[2].measured, tasks={}))
    table = task_table(replace(report, best=smoothed, verdict=None))
    assert table is not None
    last = shown(table, width=80).splitlines()[2].split()[-2:]
    assert last == [f"{100 * trial.measured.accuracy.value:.1f}", f"{trial.measured.mean_tokens.value:.1f}"]
